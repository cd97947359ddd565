/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/* What every attachment does: it finds out whose call it is, and hands what moved to the one logic. */
#ifndef CALL_H
#define CALL_H

#include "fd.h"
#include "flow.h"

/* FIELD reads a field of a kernel's structure; trusted: the verifier knows what p is. */
#define FIELD(p, field) (trusted ? (p)->field : BPF_CORE_READ(p, field))

/* call is a call of a watched process. */
struct call {
	struct task_struct *task;
	struct target *target;
	struct thread *thread;
	u32 tgid;
	u32 tid;
	struct call_regs regs;
};

/* is_watched sets who calls; false if that is not a watched process. */
static __always_inline bool is_watched(struct call *call)
{
	u64 id = bpf_get_current_pid_tgid();

	call->tgid = id >> 32;
	call->tid = id;
	call->target = target_of(call->tgid);
	return call->target;
}

/* call_details sets the rest, but for the registers. */
static __always_inline bool call_details(struct call *call)
{
	call->task = current_task();
	call->thread = thread_get(call->task);
	return call->thread;
}

/* find_regs sets the registers. A function of its own, for the sake of the stack. */
static __noinline void find_regs(struct call *call)
{
	call->regs = task_regs(call->task);
}

/* Whether bytes had moved over the TCP connection, in this direction, before those of the call. */
static __noinline bool moved_before(const struct io *io, const u32 dir)
{
	struct tcp_sock *tp = (struct tcp_sock *)io->key;
	u64 moved;

	/* SYN and FIN count as a byte each. */
	if (dir == DIR_INGRESS)
		moved = BPF_CORE_READ(tp, bytes_received) -
			(u32)(BPF_CORE_READ(tp, rcv_nxt) - (io->seq + io->total));
	else
		moved = BPF_CORE_READ(tp, bytes_acked) +
			(u32)(io->seq + io->total - BPF_CORE_READ(tp, snd_una));
	return moved > (u64)io->total + 2;
}

/* The connection of a call, made known if it is not; 0 if there is none to follow. A function of its own, for the sake of the
 * stack. */
static __noinline struct conn *conn_of(const struct io *io, struct target *target, bool closed, const u32 dir)
{
	struct conn *c = conn_find(io->key, io->inode);
	u32 flags = 0;

	if (c)
		return c;
	if (closed) {
		count(STAT_AFTER_CLOSE);
		return 0;
	}
	if (io->tcp)
		flags = moved_before(io, dir) ? CONN_ESTABLISHED : 0;
	c = conn_add(io->key, io->inode, io->tgid, flags);
	if (!c && is_request(first_bytes(io)))
		__sync_fetch_and_add(&target->map_full, 1);
	return c;
}

static __always_inline bool is_stream_socket(struct sock *sk, const bool trusted)
{
	return is_stream(FIELD(sk, __sk_common.skc_family), FIELD(sk, sk_type), FIELD(sk, sk_protocol));
}

static __always_inline u64 socket_inode(struct sock *sk, const bool trusted)
{
	return trusted ? sk->sk_socket->file->f_inode->i_ino
		       : BPF_CORE_READ(sk, sk_socket, file, f_inode, i_ino);
}

/* socket_moved is called when n bytes have moved over sk. t->io has times, buf, tcp and seq. */
static __always_inline void socket_moved(struct telling *t, struct call *call, struct sock *sk, u32 n,
					 const u32 dir, const bool trusted)
{
	struct io *io = &t->io;
	struct conn *c;

	io->key = (u64)sk;
	io->inode = socket_inode(sk, trusted);
	io->tgid = call->tgid;
	io->tid = call->tid;
	io->total = n;
	if (io->uring && !io->buf.base)
		call->target->flags |= TARGET_URING;
	c = conn_of(io, call->target, io->tcp && FIELD(sk, __sk_common.skc_state) == TCP_CLOSE, dir);
	if (c)
		on_bytes(t, c, call->target, call->thread, &call->regs, dir);
}

enum { SHUT_RD };

/* received_flags are those of the read that a task is in, as far as its system call tells. */
static __always_inline u32 received_flags(const struct call_regs *regs)
{
	return regs->nr == NR_RECVFROM ? regs->args[3] : regs->nr == NR_RECVMSG ? regs->args[2] : 0;
}

/* receives and sends tell in which directions a system call may move a socket's bytes. */
static __always_inline bool receives(s32 nr)
{
	return nr == NR_READ || nr == NR_READV || nr == NR_PREADV2 || nr == NR_RECVFROM || nr == NR_RECVMSG ||
	       nr == NR_RECVMMSG || nr == NR_SPLICE;
}

static __always_inline bool sends(s32 nr)
{
	return nr == NR_WRITE || nr == NR_WRITEV || nr == NR_PWRITEV2 || nr == NR_SENDTO ||
	       nr == NR_SENDMSG || nr == NR_SENDMMSG || nr == NR_SENDFILE || nr == NR_SPLICE;
}

/*
 * by_uring tells whether io_uring moves the bytes. What it has completed is done by the task at the end of whatever
 * call it makes next, or by a worker: the task's registers then are of something else.
 */
static __noinline bool by_uring(const struct call *call, struct sock *sk, const u32 dir)
{
	const struct call_regs *regs = &call->regs;
	u32 fd = regs->args[0];

	if (task_flags(call->task) & PF_IO_WORKER)
		return true;
	if (!bpf_core_field_exists(call->task->io_uring) || !task_uring(call->task))
		return false;
	if (!(dir == DIR_INGRESS ? receives(regs->nr) : sends(regs->nr)))
		return true;
	if (regs->nr == NR_SPLICE && dir == DIR_EGRESS)
		fd = regs->args[2];
	return fd_socket(call->task, fd).sk != sk;
}

/* set_sent_times stamps a send; what is not long leaves at once: the clock is not read twice. */
static __always_inline void set_sent_times(struct io *io, u64 begin, u32 n)
{
	io->end = begin && n <= QUIET_FROM ? begin : bpf_ktime_get_ns();
	io->begin = begin ?: io->end;
}

/* catch_up_received brings the ingress position up to what the process has taken from the connection in any way: the
 * socket tracepoints do not see splice. A FIN that was read counts as a byte. */
static __always_inline void catch_up_received(struct conn *c, const struct sock *sk, u64 now)
{
	struct tcp_sock *tp = (struct tcp_sock *)sk;
	u32 copied = BPF_CORE_READ(tp, copied_seq);
	u32 next = BPF_CORE_READ(tp, rcv_nxt);
	u64 unseen;

	if (c->last[DIR_INGRESS])
		unseen = copied - c->seq[DIR_INGRESS];
	else if (!(c->flags & CONN_ESTABLISHED))
		unseen = BPF_CORE_READ(tp, bytes_received) - (u32)(next - copied);
	else
		return;
	if (unseen && copied == next && BPF_CORE_READ(sk, __sk_common.skc_flags) & SOCK_DONE)
		unseen--;
	if (!unseen || unseen >= 1U << 31)
		return;
	c->pos[DIR_INGRESS] += unseen;
	c->seq[DIR_INGRESS] = copied;
	c->last[DIR_INGRESS] = now;
}

/* read_nothing is called when a read of a socket gave nothing: none was asked for, or the peer has no more to send. */
static __always_inline void read_nothing(struct sock *sk, const bool trusted)
{
	struct conn *c;
	u64 now;

	if (!(FIELD(sk, sk_shutdown) & RCV_SHUTDOWN))
		return;
	c = conn_find((u64)sk, socket_inode(sk, trusted));
	if (!c || c->flags & CONN_PEER_END)
		return;
	now = bpf_ktime_get_ns();
	if (FIELD(sk, __sk_common.skc_family) != AF_UNIX)
		catch_up_received(c, sk, now);
	on_end(c, END_PEER, now);
}

/* conn_closed ends a connection that is gone in both directions. */
static __always_inline void conn_closed(struct conn *c, u64 key, u32 how, u64 now)
{
	on_end(c, how, now);
	goroutine_keeps(c);
	bpf_map_delete_elem(&conns, &key);
}

#endif
