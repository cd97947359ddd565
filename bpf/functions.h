/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * The kernel's own functions as the way in, by fentry and fexit or by kprobe and kretprobe. What TCP receives is told
 * by one hook: tcp_cleanup_rbuf ends every way of reading (recvmsg, splice, zero copy) and says how much it was, also
 * for a call that had been waiting since before the hook was there. Sends, and Unix sockets, take an entry and a
 * return. A kretprobe can miss a return, and the thread's next entry notices: only Unix sockets have one; the return of
 * a send over TCP is told by release_sock, which ends it.
 */
#ifndef FUNCTIONS_H
#define FUNCTIONS_H

#include "call.h"

/* tcp_recvmsg has an argument before its flags: until 5.18. */
const volatile bool recvmsg_nonblock;

/* entered keeps what the return of the function will need. */
static __always_inline void entered(struct call *call, struct sock *sk, struct msghdr *msg, u32 flags)
{
	struct thread *thread = call->thread;

	if (thread->sk) {
		u64 key = thread->sk;
		struct conn *c = bpf_map_lookup_elem(&conns, &key);

		count(STAT_MISSED_RETURNS);
		if (c)
			c->flags |= CONN_LOST;
	}
	thread->sk = (u64)sk;
	thread->msg = (u64)msg;
	thread->flags = flags;
}

static __always_inline int function_entered(struct sock *sk, struct msghdr *msg, u32 flags)
{
	struct call call = {};

	if (!sk || !is_watched(&call) || !call_details(&call))
		return 0;
	entered(&call, sk, msg, flags);
	return 0;
}

/* read_entered is function_entered for tcp_recvmsg, of which tcp_received is the return. */
static __always_inline int read_entered(u64 sk, u64 msg, u32 flags)
{
	struct call call = {};

	if (!is_watched(&call) || !call_details(&call))
		return 0;
	call.thread->read_sk = sk;
	call.thread->read_msg = msg;
	call.thread->read_flags = flags;
	return 0;
}

/* send_entered is function_entered for what sends: nothing has left yet. */
static __always_inline int send_entered(struct sock *sk, struct msghdr *msg)
{
	struct call call = {};

	if (!sk || !is_watched(&call) || !call_details(&call))
		return 0;
	entered(&call, sk, msg, 0);
	call.thread->begin = bpf_ktime_get_ns();
	return 0;
}

/* The bytes of a call of the kernel's function; msg: 0 if they are not in the process's memory. */
static __always_inline void find_buffer(struct telling *t, struct call *call, struct sock *sk,
					struct msghdr *msg, u32 n, const u32 dir, const bool trusted)
{
	find_regs(call);
	t->io.uring = by_uring(call, sk, dir);
	if (msg)
		t->io.buf = iter_buffer(msg, n, trusted);
}

static __always_inline int sent(struct sock *sk, struct msghdr *msg, long ret, const bool trusted)
{
	struct call call = {};
	u64 begin;

	if (!sk || !is_watched(&call) || !call_details(&call))
		return 0;
	begin = call.thread->begin;
	call.thread->begin = 0;
	call.thread->sk = 0;
	if (ret <= 0 || !is_stream_socket(sk, trusted))
		return 0;

	NEW_TELLING(t, call.thread);

	set_sent_times(&t->io, begin, ret);
	find_buffer(t, &call, sk, msg, ret, DIR_EGRESS, trusted);
	if (FIELD(sk, __sk_common.skc_family) != AF_UNIX) {
		t->io.tcp = 1;
		t->io.seq = BPF_CORE_READ((struct tcp_sock *)sk, write_seq) - (u32)ret;
	}
	socket_moved(t, &call, sk, ret, DIR_EGRESS, trusted);
	return 0;
}

/* unix_received is the return of what reads from a Unix socket. */
static __always_inline int unix_received(struct sock *sk, struct msghdr *msg, long ret, u32 flags,
					 const bool trusted)
{
	struct call call = {};

	if (!sk || !is_watched(&call) || !call_details(&call))
		return 0;
	call.thread->sk = 0;
	if (ret < 0 || flags & (MSG_PEEK | MSG_OOB | MSG_ERRQUEUE) || !is_stream_socket(sk, trusted))
		return 0;
	if (!ret) {
		read_nothing(sk, trusted);
		return 0;
	}

	NEW_TELLING(t, call.thread);

	t->io.begin = t->io.end = bpf_ktime_get_ns();
	find_buffer(t, &call, sk, msg, ret, DIR_INGRESS, trusted);
	socket_moved(t, &call, sk, ret, DIR_INGRESS, trusted);
	return 0;
}

/*
 * tcp_received is called when a read of TCP has copied bytes so far. A read that has to wait for more calls it each
 * time that it does: what is told already is known by the sequence number.
 */
static __always_inline int tcp_received(struct sock *sk, int copied, const bool trusted)
{
	struct call call = {};
	u32 seq, fresh;
	struct conn *c;
	u32 flags;
	u64 key;

	if (copied < 0 || !is_watched(&call))
		return 0;
	if (!copied) {
		read_nothing(sk, trusted);
		return 0;
	}
	if (!call_details(&call))
		return 0;
	call.thread->send_sk = 0; /* whatever it sent is over */

	NEW_TELLING(t, call.thread);

	find_regs(&call);
	t->io.uring = by_uring(&call, sk, DIR_INGRESS);
	flags = received_flags(&call.regs);
	if (call.thread->read_sk == (u64)sk)
		flags = call.thread->read_flags;
	if (flags & (MSG_PEEK | MSG_OOB | MSG_ERRQUEUE))
		return 0;
	seq = BPF_CORE_READ((struct tcp_sock *)sk, copied_seq);
	fresh = copied;
	key = (u64)sk;
	c = conn_find(key, socket_inode(sk, trusted));
	if (c && c->last[DIR_INGRESS] && seq - c->seq[DIR_INGRESS] < fresh)
		fresh = seq - c->seq[DIR_INGRESS];
	if (!fresh)
		return 0;
	if (t->io.uring || call.regs.nr == NR_RECVMMSG) {
		/* Only the entry of tcp_recvmsg knows where the bytes are. */
		if (call.thread->read_sk == (u64)sk)
			t->io.buf = iter_buffer((struct msghdr *)call.thread->read_msg, fresh, false);
		else
			needed(NEED_ENTRY);
	} else if (!(flags & MSG_TRUNC)) { /* it threw the bytes away */
		t->io.buf = call_buffer(&call.regs, 0);
		if (fresh < copied) {
			if (t->io.buf.segments)
				t->io.buf.base = 0; /* the start may be in any of them */
			else if (t->io.buf.base)
				t->io.buf.base += copied - fresh;
		}
	}
	call.thread->read_sk = 0;
	t->io.begin = t->io.end = bpf_ktime_get_ns();
	t->io.tcp = 1;
	t->io.seq = seq - fresh;
	socket_moved(t, &call, sk, fresh, DIR_INGRESS, trusted);
	return 0;
}

static __always_inline int unix_ended(struct sock *sk, bool closes)
{
	u64 key = (u64)sk;
	struct conn *c;

	if (!sk)
		return 0;
	c = bpf_map_lookup_elem(&conns, &key);
	if (!c)
		return 0;
	if (closes)
		conn_closed(c, key, END_CLOSED, bpf_ktime_get_ns());
	else
		on_end(c, END_LOCAL, bpf_ktime_get_ns());
	return 0;
}

/* fentry and fexit. */

SEC("fentry/tcp_sendmsg")
int BPF_PROG(fentry_tcp_sendmsg, struct sock *sk, struct msghdr *msg, size_t size)
{
	return send_entered(sk, msg);
}

SEC("fexit/tcp_sendmsg")
int BPF_PROG(fexit_tcp_sendmsg, struct sock *sk, struct msghdr *msg, size_t size, int ret)
{
	return sent(sk, msg, ret, true);
}

/* sendfile and splice into a socket, until 6.4. */
SEC("fentry/tcp_sendpage")
int BPF_PROG(fentry_tcp_sendpage, struct sock *sk)
{
	return send_entered(sk, 0);
}

SEC("fexit/tcp_sendpage")
int BPF_PROG(fexit_tcp_sendpage, struct sock *sk, struct page *page, int offset, size_t size, int flags,
	     int ret)
{
	return sent(sk, 0, ret, true);
}

SEC("fentry/tcp_cleanup_rbuf")
int BPF_PROG(fentry_tcp_cleanup_rbuf, struct sock *sk, int copied)
{
	return tcp_received(sk, copied, true);
}

SEC("fentry/tcp_recvmsg")
int BPF_PROG(fentry_tcp_recvmsg, struct sock *sk, struct msghdr *msg, size_t size, int flags)
{
	return read_entered((u64)sk, (u64)msg, flags);
}

/* Until 5.18 an argument stands before the flags. */
SEC("fentry/tcp_recvmsg")
int BPF_PROG(fentry_tcp_recvmsg_nonblock, struct sock *sk, struct msghdr *msg, size_t size, int nonblock,
	     int flags)
{
	return read_entered((u64)sk, (u64)msg, flags);
}

SEC("fentry/unix_stream_sendmsg")
int BPF_PROG(fentry_unix_stream_sendmsg, struct socket *sock, struct msghdr *msg, size_t size)
{
	return send_entered(sock->sk, msg);
}

SEC("fexit/unix_stream_sendmsg")
int BPF_PROG(fexit_unix_stream_sendmsg, struct socket *sock, struct msghdr *msg, size_t size, int ret)
{
	return sent(sock->sk, msg, ret, true);
}

SEC("fentry/unix_stream_sendpage")
int BPF_PROG(fentry_unix_stream_sendpage, struct socket *sock)
{
	return send_entered(sock->sk, 0);
}

SEC("fexit/unix_stream_sendpage")
int BPF_PROG(fexit_unix_stream_sendpage, struct socket *sock, struct page *page, int offset, size_t size,
	     int flags, int ret)
{
	return sent(sock->sk, 0, ret, true);
}

SEC("fexit/unix_stream_recvmsg")
int BPF_PROG(fexit_unix_stream_recvmsg, struct socket *sock, struct msghdr *msg, size_t size, int flags,
	     int ret)
{
	return unix_received(sock->sk, flags & MSG_TRUNC ? 0 : msg, ret, flags, true);
}

SEC("fexit/unix_stream_splice_read")
int BPF_PROG(fexit_unix_stream_splice_read, struct socket *sock, void *ppos, void *pipe, size_t size,
	     unsigned int flags, long ret)
{
	return unix_received(sock->sk, 0, ret, 0, true);
}

SEC("fentry/unix_release")
int BPF_PROG(fentry_unix_release, struct socket *sock)
{
	return unix_ended(sock->sk, true);
}

SEC("fentry/unix_shutdown")
int BPF_PROG(fentry_unix_shutdown, struct socket *sock, int mode)
{
	return mode == SHUT_RD ? 0 : unix_ended(sock->sk, false);
}

/* kprobe and kretprobe. */

static __always_inline struct sock *sock_of(struct socket *sock)
{
	return BPF_CORE_READ(sock, sk);
}

/* The call whose return this is; 0: its entry was not seen. */
static __always_inline struct thread *returning(void)
{
	struct call call = {};

	return is_watched(&call) && call_details(&call) && call.thread->sk ? call.thread : 0;
}

static __always_inline int kernel_sent(long ret, bool bytes)
{
	struct thread *thread = returning();

	return thread ? sent((struct sock *)thread->sk, bytes ? (struct msghdr *)thread->msg : 0, ret, false)
		      : 0;
}

/* tcp_send_entered is send_entered for TCP; sock_released is its return. */
static __always_inline int tcp_send_entered(struct sock *sk, struct msghdr *msg)
{
	struct call call = {};

	if (!sk || !is_watched(&call) || !call_details(&call))
		return 0;
	call.thread->send_sk = (u64)sk;
	call.thread->send_msg = (u64)msg;
	call.thread->send_seq = BPF_CORE_READ((struct tcp_sock *)sk, write_seq);
	call.thread->begin = bpf_ktime_get_ns();
	return 0;
}

/*
 * sock_released is called when a socket is let go of: at the end of a send, and while one waits for room. TCP's own count
 * says how much was taken since. A kretprobe would miss the return of a send where others are under way.
 */
static __always_inline int sock_released(struct sock *sk)
{
	struct msghdr *msg;
	struct call call = {};
	u32 seq, n;
	u64 begin;
	u8 state;

	if (!is_watched(&call) || !call_details(&call) || call.thread->send_sk != (u64)sk)
		return 0;
	msg = (struct msghdr *)call.thread->send_msg;
	seq = BPF_CORE_READ((struct tcp_sock *)sk, write_seq);
	n = seq - call.thread->send_seq;
	call.thread->send_seq = seq;
	if (!msg || !BPF_CORE_READ(msg, msg_iter.count))
		call.thread->send_sk = 0; /* all of it is taken */
	begin = call.thread->begin;
	state = BPF_CORE_READ(sk, __sk_common.skc_state);
	/* A FIN counts as well, but nothing is sent after it. */
	if (!n || n >= 1U << 31 || (state != TCP_ESTABLISHED && state != TCP_CLOSE_WAIT))
		return 0;
	call.thread->begin = 0;

	NEW_TELLING(t, call.thread);

	set_sent_times(&t->io, begin, n);
	t->io.tcp = 1;
	t->io.seq = seq - n;
	find_buffer(t, &call, sk, msg, n, DIR_EGRESS, false);
	socket_moved(t, &call, sk, n, DIR_EGRESS, false);
	return 0;
}

static __always_inline int kernel_unix_received(long ret, bool bytes)
{
	struct thread *thread = returning();

	if (!thread)
		return 0;
	if (thread->flags & MSG_TRUNC)
		bytes = false;
	return unix_received((struct sock *)thread->sk, bytes ? (struct msghdr *)thread->msg : 0, ret,
			     thread->flags, false);
}

SEC("kprobe/tcp_sendmsg")
int BPF_KPROBE(kprobe_tcp_sendmsg, struct sock *sk, struct msghdr *msg)
{
	return tcp_send_entered(sk, msg);
}

SEC("kprobe/tcp_sendpage")
int BPF_KPROBE(kprobe_tcp_sendpage, struct sock *sk)
{
	return tcp_send_entered(sk, 0);
}

SEC("kprobe/release_sock")
int BPF_KPROBE(kprobe_release_sock, struct sock *sk)
{
	return sock_released(sk);
}

SEC("kprobe/tcp_cleanup_rbuf")
int BPF_KPROBE(kprobe_tcp_cleanup_rbuf, struct sock *sk, int copied)
{
	return tcp_received(sk, copied, false);
}

SEC("kprobe/tcp_recvmsg")
int BPF_KPROBE(kprobe_tcp_recvmsg, struct sock *sk, struct msghdr *msg, size_t size, int a, int b)
{
	return read_entered((u64)sk, (u64)msg, recvmsg_nonblock ? b : a);
}

SEC("kprobe/unix_stream_sendmsg")
int BPF_KPROBE(kprobe_unix_stream_sendmsg, struct socket *sock, struct msghdr *msg)
{
	return send_entered(sock_of(sock), msg);
}

SEC("kretprobe/unix_stream_sendmsg")
int BPF_KRETPROBE(kretprobe_unix_stream_sendmsg, int ret)
{
	return kernel_sent(ret, true);
}

SEC("kprobe/unix_stream_sendpage")
int BPF_KPROBE(kprobe_unix_stream_sendpage, struct socket *sock)
{
	return send_entered(sock_of(sock), 0);
}

SEC("kretprobe/unix_stream_sendpage")
int BPF_KRETPROBE(kretprobe_unix_stream_sendpage, int ret)
{
	return kernel_sent(ret, false);
}

SEC("kprobe/unix_stream_recvmsg")
int BPF_KPROBE(kprobe_unix_stream_recvmsg, struct socket *sock, struct msghdr *msg, size_t size, int flags)
{
	return function_entered(sock_of(sock), msg, flags);
}

SEC("kretprobe/unix_stream_recvmsg")
int BPF_KRETPROBE(kretprobe_unix_stream_recvmsg, int ret)
{
	return kernel_unix_received(ret, true);
}

SEC("kprobe/unix_stream_splice_read")
int BPF_KPROBE(kprobe_unix_stream_splice_read, struct socket *sock)
{
	return function_entered(sock_of(sock), 0, 0);
}

SEC("kretprobe/unix_stream_splice_read")
int BPF_KRETPROBE(kretprobe_unix_stream_splice_read, long ret)
{
	return kernel_unix_received(ret, false);
}

SEC("kprobe/unix_release")
int BPF_KPROBE(kprobe_unix_release, struct socket *sock)
{
	return unix_ended(sock_of(sock), true);
}

SEC("kprobe/unix_shutdown")
int BPF_KPROBE(kprobe_unix_shutdown, struct socket *sock, int mode)
{
	return mode == SHUT_RD ? 0 : unix_ended(sock_of(sock), false);
}

#endif
