//go:build ignore

// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
/* What the socket hooks cannot know of a Python program: which context was copied from which, and in which one bytes were written
 * that uvloop sends later. */
#include "vmlinux.h"

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>

#include "event.h"
#include "fd.h"
#include "task_map.h"
#include "preempt.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#if defined(__TARGET_ARCH_x86)
#define RESULT(r) ((r)->ax)
#define ARG0(r) ((r)->di)
#elif defined(__TARGET_ARCH_arm64)
#define RESULT(r) ((r)->user_regs.regs[0])
#define ARG0(r) ((r)->user_regs.regs[0])
#endif

static __always_inline void note_copy(u64 copy)
{
	u32 tgid = bpf_get_current_pid_tgid() >> 32;
	struct target *target = target_of(tgid);
	struct thread *thread;

	if (!copy || !target || !(target->flags & TARGET_PYTHON))
		return;
	thread = thread_get(current_task());
	if (thread)
		context_copies(tgid, read_context(target, thread), copy, thread);
}

/*
 * The return of PyContext_CopyCurrent, which everything calls that runs something later, or elsewhere: asyncio's tasks, timers
 * and callbacks, asyncio.to_thread. Its entry is an instruction that the kernel emulates, and nothing else tells of a copy:
 * contexts do not know where they come from.
 */
SEC("uretprobe")
int context_copied(struct pt_regs *ctx)
{
	uprobe_begins();
	note_copy(RESULT(ctx));
	uprobe_ends();
	return 0;
}

/* takes has the tasks that are made in the same callback, until it accepts again, be those of the connection. */
static __always_inline void takes(struct thread *thread, u64 conn_key, const struct conn *c)
{
	thread->accepted_key = conn_key;
	thread->accepted = c->id;
	thread->accepted_switches = thread->switches;
}

static __always_inline void note_accept(s32 fd)
{
	u32 tgid = bpf_get_current_pid_tgid() >> 32;
	struct target *target = target_of(tgid);
	struct task_struct *task = current_task();
	struct thread *thread;
	struct fd_socket s;
	struct conn *c;

	if (!target || !(target->flags & TARGET_PYTHON))
		return;
	thread = thread_get(task);
	if (!thread)
		return;
	thread->accepted = 0;
	if (fd < 0)
		return;
	s = fd_socket(task, fd);
	if (!s.sk)
		return;
	c = conn_find((u64)s.sk, s.inode);
	if (!c)
		c = conn_add((u64)s.sk, s.inode, tgid, 0);
	if (!c)
		return;
	if (read_context(target, thread))
		takes(thread, (u64)s.sk, c);
	else
		c->flags |= CONN_ACCEPTED;
}

/* The return of the C library's accept4: the tasks that are made next are those of the connection. */
SEC("uretprobe")
int connection_accepted(struct pt_regs *ctx)
{
	uprobe_begins();
	note_accept(RESULT(ctx));
	uprobe_ends();
	return 0;
}

static __always_inline void note_peer(s32 fd)
{
	struct target *target = target_of(bpf_get_current_pid_tgid() >> 32);
	struct task_struct *task = current_task();
	struct thread *thread;
	struct fd_socket s;
	struct conn *c;

	if (!target || !(target->flags & TARGET_PYTHON))
		return;
	thread = thread_get(task);
	if (!thread || !read_context(target, thread))
		return;
	s = fd_socket(task, fd);
	if (!s.sk)
		return;
	c = conn_find((u64)s.sk, s.inode);
	if (!c || !(c->flags & CONN_ACCEPTED))
		return;
	c->flags &= ~CONN_ACCEPTED;
	takes(thread, (u64)s.sk, c);
}

/*
 * The end of the C library's getpeername, whose argument is still there: uvloop accepts outside of contexts, and calls the protocol
 * back later, in one that all connections share. It asks for the peer's name just before, once for each connection; nothing else
 * tells for which one it calls back.
 */
SEC("uprobe")
int peer_asked(struct pt_regs *ctx)
{
	uprobe_begins();
	note_peer(ARG0(ctx));
	uprobe_ends();
	return 0;
}

enum {
	UV_HANDLE = 24, /* uvloop.loop.UVHandle._handle, behind the object's head and its table of methods */
	UV_STREAM_FD =
		184, /* uv_stream_t.io_watcher.fd (libuv 1.x on 64 bits: include/uv.h, include/uv/unix.h) */
	UV_NAMED_PIPE = 7, /* uv_handle_type */
	UV_TCP = 12,
};

/* How uv_handle_t of libuv begins. */
struct uv_handle {
	u64 data; /* uvloop: the transport */
	u64 loop;
	u32 type;
	u32 pad;
};

/* stream_fd is the descriptor of a transport of uvloop's, or -1: it is something else. */
static __always_inline s32 stream_fd(u64 transport)
{
	struct uv_handle handle;
	u64 at;
	s32 fd;

	if (bpf_probe_read_user(&at, sizeof(at), (void *)(transport + UV_HANDLE)) ||
	    bpf_probe_read_user(&handle, sizeof(handle), (void *)at) || handle.data != transport ||
	    (handle.type != UV_TCP && handle.type != UV_NAMED_PIPE) ||
	    bpf_probe_read_user(&fd, sizeof(fd), (void *)(at + UV_STREAM_FD)))
		return -1;
	return fd;
}

static __always_inline void note_write(u64 transport)
{
	u32 tgid = bpf_get_current_pid_tgid() >> 32;
	struct target *target = target_of(tgid);
	struct task_struct *task = current_task();
	struct thread *thread;
	struct fd_socket s;
	struct conn *c;
	s32 fd;

	if (!target || !(target->flags & TARGET_PYTHON))
		return;
	fd = stream_fd(transport);
	if (fd < 0)
		return;
	s = fd_socket(task, fd);
	if (!s.sk)
		return;
	c = conn_meet(s.sk, s.inode, s.family, tgid);
	thread = thread_get(task);
	if (c && thread)
		context_writes(thread, read_context(target, thread), (u64)s.sk, c);
}

/*
 * uvloop's UVStream.write and .writelines, before 0.23: what a task writes is sent by the loop, when it has run all that was ready,
 * in a context of its own. One hit a write, some 0.8 us, on an instruction that the kernel emulates; that the bytes were written by a
 * task is nowhere in memory.
 */
SEC("uprobe")
int transport_writes(struct pt_regs *ctx)
{
	uprobe_begins();
	note_write(ARG0(ctx));
	uprobe_ends();
	return 0;
}
