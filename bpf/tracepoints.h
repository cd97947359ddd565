/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/* Tracepoints as the way in, which need neither trampolines nor kprobes. */
#ifndef TRACEPOINTS_H
#define TRACEPOINTS_H

#include "call.h"

const volatile bool syscalls_only; /* nothing but system calls is seen: of io_uring, that it is used */

#ifndef OLD_KERNEL /* The socket tracepoints, from 6.3: they fire for sockets only and hand over the struct sock. */

/* socket_buffer is where the bytes of the message lie that a socket's tracepoint tells of. */
static __always_inline struct buffer socket_buffer(const struct call_regs *regs, struct thread *thread)
{
	if (regs->nr != NR_SENDMMSG && regs->nr != NR_RECVMMSG)
		return call_buffer(regs, 0);
	if (!thread->watched) {
		needed(NEED_SYSCALLS); /* which message of the call it is, is not known */
		return (struct buffer){};
	}
	return call_buffer(regs, thread->message++);
}

/* The beginning of a send, from 6.16: before the first byte can have left. Fires for each piece of it. */
SEC("tp_btf/tcp_sendmsg_locked")
int BPF_PROG(tcp_sendmsg_locked)
{
	struct call call = {};

	if (is_watched(&call) && call_details(&call) && !call.thread->begin)
		call.thread->begin = bpf_ktime_get_ns();
	return 0;
}

/* socket_call finds out whose call over sk has ended, and where its bytes lie. */
static __always_inline void socket_call(struct telling *t, struct call *call, struct sock *sk, bool shown,
					const u32 dir)
{
	find_regs(call);
	t->io.uring = by_uring(call, sk, dir);
	if (!t->io.uring && shown)
		t->io.buf = socket_buffer(&call->regs, call->thread);
}

SEC("tp_btf/sock_send_length")
int BPF_PROG(sock_send_length, struct sock *sk, int ret, int flags)
{
	struct call call = {};
	struct tcp_sock *tp;
	u64 begin;

	if (!is_watched(&call) || !is_stream_socket(sk, true) || !call_details(&call))
		return 0;
	begin = call.thread->begin;
	call.thread->begin = 0;
	if (ret <= 0)
		return 0;

	NEW_TELLING(t, call.thread);

	set_sent_times(&t->io, begin, ret);
	socket_call(t, &call, sk, true, DIR_EGRESS);
	tp = bpf_skc_to_tcp_sock(sk);
	if (tp) {
		t->io.tcp = 1;
		t->io.seq = tp->write_seq - ret;
	} else {
		needed(NEED_SYSCALLS);
	}
	socket_moved(t, &call, sk, ret, DIR_EGRESS, true);
	return 0;
}

SEC("tp_btf/sock_recv_length")
int BPF_PROG(sock_recv_length, struct sock *sk, int ret, int flags)
{
	struct call call = {};
	struct tcp_sock *tp;

	if (ret < 0 || flags & (MSG_PEEK | MSG_OOB | MSG_ERRQUEUE) || !is_watched(&call) ||
	    !is_stream_socket(sk, true))
		return 0;
	if (!ret) {
		read_nothing(sk, true);
		return 0;
	}
	if (!call_details(&call))
		return 0;

	NEW_TELLING(t, call.thread);

	t->io.begin = t->io.end = bpf_ktime_get_ns();
	socket_call(t, &call, sk, !(flags & MSG_TRUNC) /* it threw the bytes away */, DIR_INGRESS);
	tp = bpf_skc_to_tcp_sock(sk);
	if (tp) {
		t->io.tcp = 1;
		t->io.seq = tp->copied_seq - ret;
	} else {
		needed(NEED_SYSCALLS);
	}
	socket_moved(t, &call, sk, ret, DIR_INGRESS, true);
	return 0;
}
#endif

/* A Unix socket's end is seen where the process closes or shuts it down; TCP's by its state. */
static __always_inline void unix_end(struct task_struct *task, u32 fd, bool closes, u64 now)
{
	struct fd_socket s = fd_socket(task, fd);
	struct conn *c;

	if (!s.sk || s.family != AF_UNIX)
		return;
	c = conn_find((u64)s.sk, s.inode);
	if (!c)
		return;
	if (!closes)
		on_end(c, END_LOCAL, now);
	else if (only_descriptor(s.file))
		conn_closed(c, (u64)s.sk, END_CLOSED, now);
}

/*
 * What the socket tracepoints do not tell: the beginning and the end of what goes over Unix sockets, which
 * message of a sendmmsg or recvmmsg it is, and before 6.16 the beginning of every send. It costs every system
 * call of the machine some 50 ns, so it is attached where one of these is needed.
 */
SEC("tp_btf/sys_enter")
int BPF_PROG(sys_enter, struct pt_regs *user, long nr)
{
	struct call call = {};

	switch (nr) {
	case NR_WRITE:
	case NR_WRITEV:
	case NR_PWRITEV2:
	case NR_SENDTO:
	case NR_SENDMSG:
	case NR_SENDMMSG:
	case NR_RECVMMSG:
	case NR_SENDFILE:
	case NR_SPLICE:
	case NR_CLOSE:
	case NR_SHUTDOWN:
	case NR_IO_URING_ENTER:
		break;
	default:
		return 0;
	}
	if (!is_watched(&call))
		return 0;
	if (nr == NR_CLOSE || nr == NR_SHUTDOWN) {
		call.regs = regs_at(user);
		if (call.regs.is_64_bit && !(nr == NR_SHUTDOWN && call.regs.args[1] == SHUT_RD))
			unix_end(current_task(), call.regs.args[0], nr == NR_CLOSE, bpf_ktime_get_ns());
		return 0;
	}
	if (!call_details(&call))
		return 0;
	if (nr == NR_IO_URING_ENTER) {
		call.thread->begin = 0; /* each of its sends has a beginning of its own */
		if (syscalls_only)
			call.target->flags |= TARGET_URING;
		return 0;
	}
	call.thread->begin = bpf_ktime_get_ns();
	call.thread->message = 0;
	call.thread->watched = 1;
	return 0;
}

/*
 * The syscall tracepoints: the way in where the socket tracepoints are missing. From the descriptor to the
 * socket it is ten reads, and every system call of the machine pays for the tracepoint. Bytes that
 * io_uring moves pass here unseen.
 */
enum {
	MESSAGES = 8, /* of one sendmmsg or recvmmsg that are followed */
	/* In one number, for the stack is short: */
	SHOWN = 1, /* the process has, or had, the bytes */
	SENT = 2,
};

/* call_moved tells what one finished call, or one message of one, moved over a descriptor. shown: the process has,
 * or had, the bytes. */
static __always_inline int call_moved(u32 fd, u32 total, u32 index, bool shown, const u32 dir)
{
	struct call call = {};
	struct fd_socket s;
	struct tcp_sock *tp;

	if (!is_watched(&call) || !call_details(&call))
		return 0;
	s = fd_socket(call.task, fd);
	if (!s.sk)
		return 0;
	if (!total) {
		if (dir == DIR_INGRESS)
			read_nothing(s.sk, false);
		return 0;
	}

	NEW_TELLING(t, call.thread);

	if (dir == DIR_EGRESS)
		set_sent_times(&t->io, call.thread->begin, total);
	else
		t->io.begin = t->io.end = bpf_ktime_get_ns();
	find_regs(&call);
	if (shown)
		t->io.buf = call_buffer(&call.regs, index);
	if (s.family != AF_UNIX) {
		tp = (struct tcp_sock *)s.sk;
		t->io.tcp = 1;
		t->io.seq = dir == DIR_EGRESS ? BPF_CORE_READ(tp, write_seq) : BPF_CORE_READ(tp, copied_seq);
		t->io.seq -= total;
	}
	socket_moved(t, &call, s.sk, total, dir, false);
	return 0;
}

/* Global, so that each is verified once and not for each message of a call. */
__noinline int call_sent(u32 fd, u32 total, u32 index, u32 shown)
{
	return call_moved(fd, total, index, shown, DIR_EGRESS);
}

__noinline int call_received(u32 fd, u32 total, u32 index, u32 shown)
{
	return call_moved(fd, total, index, shown, DIR_INGRESS);
}

SEC("tp_btf/sys_exit")
int BPF_PROG(sys_exit, struct pt_regs *user, long ret)
{
	struct mmsghdr *list = 0;
	struct call_regs regs;
	u32 how = SHOWN;
	u32 messages = 1;
	u32 total = ret;
	u32 flags = 0;
	u32 fd;

	if (ret < 0)
		return 0;
	regs = regs_at(user);
	switch (regs.nr) {
	case NR_WRITE:
	case NR_WRITEV:
	case NR_PWRITEV2:
	case NR_SENDTO:
	case NR_SENDMSG:
	case NR_SENDFILE:
	case NR_SENDMMSG:
	case NR_SPLICE:
		how |= SENT;
		break;
	case NR_READ:
	case NR_READV:
	case NR_PREADV2:
	case NR_RECVMMSG:
	case NR_RECVFROM:
	case NR_RECVMSG:
		flags = received_flags(&regs);
		break;
	default:
		return 0;
	}
	if (!target_of(bpf_get_current_pid_tgid() >> 32) || !regs.is_64_bit ||
	    flags & (MSG_PEEK | MSG_OOB | MSG_ERRQUEUE))
		return 0;
	fd = regs.args[0];
	if (flags & MSG_TRUNC)
		how &= ~SHOWN; /* it threw the bytes away */
	if (regs.nr == NR_SPLICE) {
		/* From a socket into a pipe, or from a pipe into a socket. */
		call_received(fd, total, 0, how & SHOWN);
		fd = regs.args[2];
	}
	if (regs.nr == NR_SENDMMSG || regs.nr == NR_RECVMMSG) {
		list = (struct mmsghdr *)regs.args[1];
		messages = ret;
	}
	for (u32 i = 0; i < MESSAGES && i < messages; i++) {
		if (list && bpf_probe_read_user(&total, sizeof(total), &list[i].msg_len))
			break;
		if (how & SENT)
			call_sent(fd, total, i, how & SHOWN);
		else
			call_received(fd, total, i, how & SHOWN);
	}
	return 0;
}

#endif
