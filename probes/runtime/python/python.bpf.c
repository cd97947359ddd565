//go:build ignore

// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
/* What the socket hooks cannot know of a Python program: which context was copied from which. */
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
#elif defined(__TARGET_ARCH_arm64)
#define RESULT(r) ((r)->user_regs.regs[0])
#endif

static __always_inline void note_copy(u64 copy)
{
	u32 tgid = bpf_get_current_pid_tgid() >> 32;
	struct target *target = target_of(tgid);
	struct thread *thread;
	u64 from;

	if (!copy || !target || !(target->flags & TARGET_PYTHON))
		return;
	thread = thread_get(current_task());
	if (!thread)
		return;
	from = read_context(target);
	task_copied(tgid, from, copy, thread->accepted ? thread->accepted_key : 0, thread->accepted);
	thread->accepted = 0;
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

static __always_inline void note_accept(s32 fd)
{
	u32 tgid = bpf_get_current_pid_tgid() >> 32;
	struct target *target = target_of(tgid);
	struct task_struct *task = current_task();
	struct thread *thread;
	struct fd_socket s;
	struct conn *c;

	if (fd < 0 || !target || !(target->flags & TARGET_PYTHON) || !read_context(target))
		return;
	s = fd_socket(task, fd);
	if (!s.sk)
		return;
	thread = thread_get(task);
	if (!thread)
		return;
	c = conn_find((u64)s.sk, s.inode);
	if (!c)
		c = conn_add((u64)s.sk, s.inode, tgid, 0);
	if (!c)
		return;
	thread->accepted_key = (u64)s.sk;
	thread->accepted = c->id;
}

/* The return of the C library's accept4: the task that is made next is that of the connection. */
SEC("uretprobe")
int connection_accepted(struct pt_regs *ctx)
{
	uprobe_begins();
	note_accept(RESULT(ctx));
	uprobe_ends();
	return 0;
}
