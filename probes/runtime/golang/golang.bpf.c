//go:build ignore

// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
/*
 * What the socket hooks cannot know of a Go program: on whose behalf the goroutine that owns a pooled
 * connection writes a request.
 */
#include "vmlinux.h"

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>

#include "event.h"
#include "fd.h"
#include "conn_map.h"
#include "goroutine_map.h"
#include "preempt.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

enum {
	IFACE_DATA = 8,	    /* an interface's data word follows its type */
	MAX_FD = 1 << 20,   /* fs.nr_open */
	MAX_CONN_DEPTH = 3, /* net.Conns wrapped in one another that are followed to the socket */
};

#if defined(__TARGET_ARCH_x86)
#define ARG0(r) ((r)->ax)
#define ARG1(r) ((r)->bx)
#define GO_G(r) ((r)->r14)
#define GO_SP(r) ((r)->sp)
#elif defined(__TARGET_ARCH_arm64)
#define ARG0(r) ((r)->user_regs.regs[0])
#define ARG1(r) ((r)->user_regs.regs[1])
#define GO_G(r) ((r)->user_regs.regs[28])
#define GO_SP(r) ((r)->user_regs.sp)
#endif

/* fd_of returns the descriptor behind a net.Conn's data word, or -1: what is there must look like one. */
static __always_inline s32 fd_of(const struct target *target, u64 conn)
{
	for (int i = 0; i < MAX_CONN_DEPTH; i++) {
		s32 fd, family, sotype;
		u64 netfd;

		/* *net.TCPConn and *net.UnixConn begin with a *net.netFD. */
		if (bpf_probe_read_user(&netfd, sizeof(netfd), (void *)conn))
			return -1;
		if (!bpf_probe_read_user(&family, sizeof(family), (void *)(netfd + target->family)) &&
		    !bpf_probe_read_user(&sotype, sizeof(sotype), (void *)(netfd + target->sotype)) &&
		    !bpf_probe_read_user(&fd, sizeof(fd), (void *)(netfd + target->sysfd)) &&
		    (family == AF_UNIX || family == AF_INET || family == AF_INET6) && sotype == SOCK_STREAM &&
		    fd >= 0 && fd < MAX_FD)
			return fd;
		/* *tls.Conn, and most wrappers, begin with the net.Conn that they wrap. */
		if (bpf_probe_read_user(&conn, sizeof(conn), (void *)(conn + IFACE_DATA)))
			return -1;
	}
	return -1;
}

/* note_call notes on a pooled connection for whom its next request is. */
static __always_inline void note_call(struct pt_regs *ctx)
{
	u64 id = bpf_get_current_pid_tgid();
	struct target *target = target_of(id >> 32);
	struct fd_socket s;
	struct goids ids;
	struct conn *c;
	u32 flags = 0;
	u64 conn;
	s32 fd;

	if (!target || !(target->flags & TARGET_GO))
		return;
	ids = read_goids(target, GO_G(ctx), GO_SP(ctx), 0);
	if (!ids.id)
		return;
	if (bpf_probe_read_user(&conn, sizeof(conn), (void *)(ARG0(ctx) + target->persist_conn + IFACE_DATA)))
		return;
	fd = fd_of(target, conn);
	if (fd < 0)
		return;
	s = fd_socket((struct task_struct *)bpf_get_current_task(), fd);
	if (!s.sk)
		return;
	c = conn_find((u64)s.sk, s.inode);
	if (!c)
		c = conn_add((u64)s.sk, s.inode, id >> 32, 0);
	if (!c)
		return;
	ids.parent = read_parent_goid(target, GO_G(ctx));
	c->noted = goroutine_request(id >> 32, ids, &flags);
	c->noted_task = ids.id;
	c->noted_parent = ids.parent;
	c->noted_flags = flags;
	c->flags |= CONN_NOTED;
}

/*
 * net/http.(*persistConn).roundTrip, on the goroutine that wants the answer; the request is then written by
 * the connection's own goroutine. One hit a call, some 0.5 us: it sits on an instruction that the kernel
 * emulates. Nothing cheaper tells it: between the two goroutines lie channels only.
 */
SEC("uprobe")
int persist_conn_round_trip(struct pt_regs *ctx)
{
	uprobe_begins();
	note_call(ctx);
	uprobe_ends();
	return 0;
}

/* hand_over is called when the running goroutine gives to the one of a runtime.sudog what that waits for; where is its address,
 * or that of a pointer to it: the first of those who wait at a channel. */
static __always_inline void hand_over(struct pt_regs *ctx, u64 where, const bool closes)
{
	u32 tgid = bpf_get_current_pid_tgid() >> 32;
	struct target *target = target_of(tgid);
	struct goids ids;
	u64 to;

	if (!target || !(target->flags & TARGET_GO))
		return;
	ids = read_goids(target, GO_G(ctx), GO_SP(ctx), 0);
	if (!ids.id)
		return;
	if (closes &&
	    (bpf_probe_read_user(&where, sizeof(where), (void *)(where + target->receivers)) || !where))
		return;
	/* A sudog begins with its g. */
	if (bpf_probe_read_user(&to, sizeof(to), (void *)where) ||
	    bpf_probe_read_user(&to, sizeof(to), (void *)(to + target->goid)))
		return;
	goroutine_hands_over(tgid, ids.id, to);
}

/* runtime.send: something is sent over a channel at which a receiver waits. Attached to programs that show calls for whom
 * nobody knows. */
SEC("uprobe")
int chan_send(struct pt_regs *ctx)
{
	uprobe_begins();
	hand_over(ctx, ARG1(ctx), false);
	uprobe_ends();
	return 0;
}

/* runtime.closechan, attached with it. */
SEC("uprobe")
int chan_close(struct pt_regs *ctx)
{
	uprobe_begins();
	hand_over(ctx, ARG0(ctx), true);
	uprobe_ends();
	return 0;
}
