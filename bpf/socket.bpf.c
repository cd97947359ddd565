//go:build ignore

// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
/* The core program: connections of watched processes and the bytes on them, and which processes there are. */
#include "vmlinux.h"

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>

#include "event.h"
#include "fd.h"
#include "flow.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Types that user space reads and no map holds. */
const struct conn_event *export_conn_event __attribute__((unused));
const struct data_event *export_data_event __attribute__((unused));
const struct progress_event *export_progress_event __attribute__((unused));
const struct end_event *export_end_event __attribute__((unused));
const struct process_event *export_process_event __attribute__((unused));
const enum event_kind *export_event_kind __attribute__((unused));
const enum event_flag *export_event_flag __attribute__((unused));
const enum end_how *export_end_how __attribute__((unused));
const enum stat *export_stat __attribute__((unused));
const enum verdict_kind *export_verdict_kind __attribute__((unused));
const enum target_flag *export_target_flag __attribute__((unused));
const enum direction *export_direction __attribute__((unused));
const enum reader_state *export_reader_state __attribute__((unused));

const volatile bool syscalls_only; /* nothing but system calls is seen: of io_uring, that it is used */

/* Processes that came, for discovery. Few, and read at once: a process may live for milliseconds only. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 16);
} processes SEC(".maps");

/* Whether bytes had moved over the TCP connection, in this direction, before those of the call. */
static __always_inline bool moved_before(const struct io *io, const u32 dir)
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

/* The connection of a call, made known if it is not; 0 if there is none to follow. */
static __always_inline struct conn *conn_of(const struct io *io, struct target *target, bool closed,
					    const u32 dir)
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
	if (!c && http1_request(first_bytes(io)))
		__sync_fetch_and_add(&target->map_full, 1);
	return c;
}

/* by_uring tells whether io_uring moves the bytes: on behalf of the task, or in one of its workers. */
static __always_inline bool by_uring(const struct task_struct *task, s32 nr)
{
	return nr == NR_IO_URING_ENTER || task->flags & PF_IO_WORKER;
}

/* socket_buffer is where the bytes of the message lie that a socket's tracepoint tells of. */
static __always_inline struct buffer socket_buffer(struct pt_regs *regs, s32 nr, struct thread *thread)
{
	if (nr != NR_SENDMMSG && nr != NR_RECVMMSG)
		return call_buffer(regs, 0);
	if (!thread->watched) {
		need_syscalls(); /* which message of the call it is, is not known */
		return (struct buffer){};
	}
	return call_buffer(regs, thread->message++);
}

/* The socket tracepoints, from 6.3: they fire for sockets only and hand over the struct sock. */

/* The beginning of a send, from 6.16: before the first byte can have left. Fires for each piece of it. */
SEC("tp_btf/tcp_sendmsg_locked")
int BPF_PROG(tcp_sendmsg_locked)
{
	struct thread *thread;

	if (!target_of(bpf_get_current_pid_tgid() >> 32))
		return 0;
	thread = thread_get(bpf_get_current_task_btf());
	if (thread && !thread->begin)
		thread->begin = bpf_ktime_get_ns();
	return 0;
}

SEC("tp_btf/sock_send_length")
int BPF_PROG(sock_send_length, struct sock *sk, int ret, int flags)
{
	u64 id = bpf_get_current_pid_tgid();
	struct task_struct *task;
	struct target *target;
	struct thread *thread;
	struct pt_regs *regs;
	struct tcp_sock *tp;
	struct telling t = {};
	struct io *io = &t.io;
	struct conn *c;
	s32 nr;

	target = target_of(id >> 32);
	if (!target || !is_stream(sk->__sk_common.skc_family, sk->sk_type, sk->sk_protocol))
		return 0;
	task = bpf_get_current_task_btf();
	regs = (struct pt_regs *)bpf_task_pt_regs(task);
	thread = thread_get(task);
	if (!thread)
		return 0;
	io->begin = thread->begin;
	thread->begin = 0;
	if (ret <= 0)
		return 0;
	nr = CALL_NR(regs);
	io->key = (u64)sk;
	io->inode = sk->sk_socket->file->f_inode->i_ino;
	/* What is not long leaves at once: the clock is not read twice. */
	io->end = io->begin && ret <= QUIET_FROM ? io->begin : bpf_ktime_get_ns();
	if (!io->begin)
		io->begin = io->end;
	io->tgid = id >> 32;
	io->tid = id;
	io->total = ret;
	io->uring = by_uring(task, nr);
	if (io->uring)
		target->flags |= TARGET_URING;
	else
		io->buf = socket_buffer(regs, nr, thread);
	tp = bpf_skc_to_tcp_sock(sk);
	if (tp) {
		io->tcp = 1;
		io->seq = tp->write_seq - ret;
	} else {
		need_syscalls();
	}
	c = conn_of(io, target, tp && sk->__sk_common.skc_state == TCP_CLOSE, DIR_EGRESS);
	if (c)
		on_bytes(&t, c, target, thread, regs, DIR_EGRESS);
	return 0;
}

SEC("tp_btf/sock_recv_length")
int BPF_PROG(sock_recv_length, struct sock *sk, int ret, int flags)
{
	u64 id = bpf_get_current_pid_tgid();
	struct task_struct *task;
	struct target *target;
	struct thread *thread;
	struct pt_regs *regs;
	struct tcp_sock *tp;
	struct telling t = {};
	struct io *io = &t.io;
	struct conn *c;
	s32 nr;

	if (ret < 0 || flags & (MSG_PEEK | MSG_OOB | MSG_ERRQUEUE))
		return 0;
	target = target_of(id >> 32);
	if (!target || !is_stream(sk->__sk_common.skc_family, sk->sk_type, sk->sk_protocol))
		return 0;
	io->key = (u64)sk;
	io->inode = sk->sk_socket->file->f_inode->i_ino;
	io->end = bpf_ktime_get_ns();
	io->begin = io->end;
	if (!ret) {
		/* Nothing was asked for, or the peer has no more to send. */
		if (sk->sk_shutdown & RCV_SHUTDOWN) {
			c = conn_find(io->key, io->inode);
			if (c)
				on_end(c, END_PEER, io->end);
		}
		return 0;
	}
	task = bpf_get_current_task_btf();
	regs = (struct pt_regs *)bpf_task_pt_regs(task);
	thread = thread_get(task);
	if (!thread)
		return 0;
	nr = CALL_NR(regs);
	io->tgid = id >> 32;
	io->tid = id;
	io->total = ret;
	io->uring = by_uring(task, nr);
	if (io->uring)
		target->flags |= TARGET_URING;
	else if (!(flags & MSG_TRUNC)) /* it threw the bytes away */
		io->buf = socket_buffer(regs, nr, thread);
	tp = bpf_skc_to_tcp_sock(sk);
	if (tp) {
		io->tcp = 1;
		io->seq = tp->copied_seq - ret;
	} else {
		need_syscalls();
	}
	c = conn_of(io, target, tp && sk->__sk_common.skc_state == TCP_CLOSE, DIR_INGRESS);
	if (c)
		on_bytes(&t, c, target, thread, regs, DIR_INGRESS);
	return 0;
}

/* A Unix socket's end is seen where the process closes or shuts it down; TCP's by its state. */
static __always_inline void unix_end(struct task_struct *task, u32 fd, bool closes, u64 now)
{
	struct fd_socket s = fd_socket(task, fd);
	struct conn *c;
	u64 key;

	if (!s.sk || s.family != AF_UNIX)
		return;
	key = (u64)s.sk;
	c = conn_find(key, s.inode);
	if (!c)
		return;
	if (!closes) {
		on_end(c, END_LOCAL, now);
	} else if (only_descriptor(s.file)) {
		on_end(c, END_CLOSED, now);
		goroutine_keeps(c);
		bpf_map_delete_elem(&conns, &key);
	}
}

/*
 * What the socket tracepoints do not tell: the beginning and the end of what goes over Unix sockets, which
 * message of a sendmmsg or recvmmsg it is, and before 6.16 the beginning of every send. It costs every system
 * call of the machine some 50 ns, so it is attached where one of these is needed.
 */
SEC("tp_btf/sys_enter")
int BPF_PROG(sys_enter, struct pt_regs *regs, long nr)
{
	struct task_struct *task;
	struct target *target;
	struct thread *thread;

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
	target = target_of(bpf_get_current_pid_tgid() >> 32);
	if (!target)
		return 0;
	task = bpf_get_current_task_btf();
	if (nr == NR_CLOSE || nr == NR_SHUTDOWN) {
		if (IS_64_BIT(regs) && !(nr == NR_SHUTDOWN && CALL_ARG2(regs) == 0 /* SHUT_RD */))
			unix_end(task, CALL_ARG1(regs), nr == NR_CLOSE, bpf_ktime_get_ns());
		return 0;
	}
	thread = thread_get(task);
	if (!thread)
		return 0;
	if (nr == NR_IO_URING_ENTER) {
		thread->begin = 0; /* each of its sends has a beginning of its own */
		if (syscalls_only)
			target->flags |= TARGET_URING;
		return 0;
	}
	thread->begin = bpf_ktime_get_ns();
	thread->message = 0;
	thread->watched = 1;
	return 0;
}

/*
 * The syscall tracepoints: the way in where the socket tracepoints are missing. From the descriptor to the
 * socket it is ten reads, and every system call of the machine pays for the tracepoint. Bytes that
 * io_uring moves pass here unseen.
 */
enum {
	MESSAGES = 8, /* of one sendmmsg or recvmmsg that are followed */
};

/* socket_of sets what io says of the connection behind a descriptor of the task; false if there is none. */
static __always_inline bool socket_of(struct task_struct *task, u32 fd, struct io *io, u8 *state)
{
	struct fd_socket s = fd_socket(task, fd);
	struct sock *sk = s.sk;

	if (!sk)
		return false;
	io->key = (u64)sk;
	io->inode = s.inode;
	io->tcp = s.family != AF_UNIX;
	*state = BPF_CORE_READ(sk, __sk_common.skc_state);
	return true;
}

/* moved is what one finished call, or one message of one, moved over a descriptor. */
struct moved {
	u32 fd;
	u32 total;
	u32 index; /* of the message */
	u32 shown; /* the process has, or had, the bytes */
};

static __always_inline void call_moved(const struct moved *m, const u32 dir)
{
	u64 id = bpf_get_current_pid_tgid();
	struct task_struct *task = bpf_get_current_task_btf();
	struct pt_regs *regs = (struct pt_regs *)bpf_task_pt_regs(task);
	struct target *target = target_of(id >> 32);
	struct thread *thread = thread_get(task);
	struct telling t = {};
	struct io *io = &t.io;
	struct tcp_sock *tp;
	struct conn *c;
	u8 state;

	if (!target || !thread || !socket_of(task, m->fd, io, &state))
		return;
	io->end = bpf_ktime_get_ns();
	if (!m->total) {
		struct sock *sk = (struct sock *)io->key;

		if (dir == DIR_INGRESS && BPF_CORE_READ(sk, sk_shutdown) & RCV_SHUTDOWN) {
			c = conn_find(io->key, io->inode);
			if (c)
				on_end(c, END_PEER, io->end);
		}
		return;
	}
	io->begin = dir == DIR_EGRESS && thread->begin ? thread->begin : io->end;
	io->tgid = id >> 32;
	io->tid = id;
	io->total = m->total;
	if (m->shown)
		io->buf = call_buffer(regs, m->index);
	if (io->tcp) {
		tp = (struct tcp_sock *)io->key;
		io->seq = dir == DIR_EGRESS ? BPF_CORE_READ(tp, write_seq) : BPF_CORE_READ(tp, copied_seq);
		io->seq -= m->total;
	}
	c = conn_of(io, target, io->tcp && state == TCP_CLOSE, dir);
	if (c)
		on_bytes(&t, c, target, thread, regs, dir);
}

/* Global, so that each is verified once and not for each message of a call. */
__noinline int call_sent(struct moved *m)
{
	if (m)
		call_moved(m, DIR_EGRESS);
	return 0;
}

__noinline int call_received(struct moved *m)
{
	if (m)
		call_moved(m, DIR_INGRESS);
	return 0;
}

SEC("tp_btf/sys_exit")
int BPF_PROG(sys_exit, struct pt_regs *regs, long ret)
{
	u64 id = bpf_get_current_pid_tgid();
	struct target *target;
	bool egress = false;
	u32 messages = 1;
	u32 flags = 0;
	s32 nr;

	if (ret < 0)
		return 0;
	nr = CALL_NR(regs);
	switch (nr) {
	case NR_WRITE:
	case NR_WRITEV:
	case NR_PWRITEV2:
	case NR_SENDTO:
	case NR_SENDMSG:
	case NR_SENDFILE:
	case NR_SENDMMSG:
	case NR_SPLICE:
		egress = true;
		break;
	case NR_READ:
	case NR_READV:
	case NR_PREADV2:
	case NR_RECVMMSG:
		break;
	case NR_RECVFROM:
		flags = CALL_ARG4(regs);
		break;
	case NR_RECVMSG:
		flags = CALL_ARG3(regs);
		break;
	default:
		return 0;
	}
	target = target_of(id >> 32);
	if (!target || !IS_64_BIT(regs) || flags & (MSG_PEEK | MSG_OOB | MSG_ERRQUEUE))
		return 0;
	struct moved m = {
		.fd = CALL_ARG1(regs),
		.total = ret,
		.shown = !(flags & MSG_TRUNC), /* it threw the bytes away */
	};

	if (nr == NR_SPLICE) {
		/* From a socket into a pipe, or from a pipe into a socket. */
		call_received(&m);
		m.fd = CALL_ARG3(regs);
	}
	if (nr == NR_SENDMMSG || nr == NR_RECVMMSG)
		messages = ret;
	for (u32 i = 0; i < MESSAGES && i < messages; i++) {
		if (nr == NR_SENDMMSG || nr == NR_RECVMMSG) {
			struct mmsghdr *msg = (struct mmsghdr *)CALL_ARG2(regs);

			m.index = i;
			if (bpf_probe_read_user(&m.total, sizeof(m.total), &msg[i].msg_len))
				break;
		}
		if (egress)
			call_sent(&m);
		else
			call_received(&m);
	}
	return 0;
}

static __always_inline void tell_process(u32 kind, u32 tgid, u32 parent, const char *filename)
{
	struct process_event *e = bpf_ringbuf_reserve(&processes, sizeof(*e), 0);

	if (!e) {
		count(STAT_PROCESS_RING_FULL);
		return;
	}
	e->hdr = header(kind, tgid, bpf_ktime_get_ns());
	e->parent = parent;
	e->pad = 0;
	e->filename[0] = 0;
	if (filename)
		bpf_probe_read_kernel_str(e->filename, sizeof(e->filename), filename);
	bpf_ringbuf_submit(e, BPF_RB_FORCE_WAKEUP);
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(inet_sock_set_state, const struct sock *sk, int oldstate, int newstate)
{
	u64 key = (u64)sk;
	struct conn *c;
	u64 now;

	if (sk->sk_protocol != IPPROTO_TCP)
		return 0;
	if (newstate == TCP_SYN_SENT) {
		u64 id = bpf_get_current_pid_tgid();
		struct task_struct *task = bpf_get_current_task_btf();
		struct target *target = target_of(id >> 32);
		struct thread *thread;

		if (!target)
			return 0;
		c = conn_add(key, sk->sk_socket->file->f_inode->i_ino, id >> 32, 0);
		if (!c)
			return 0;
		if (target->flags & TARGET_GO) {
			struct pt_regs *regs = (struct pt_regs *)bpf_task_pt_regs(task);
			struct goids ids = read_goids(target, USER_G(regs), USER_SP(regs), 0);

			if (ids.id)
				goroutine_dials(id >> 32, ids.id);
			return 0;
		}
		/* The call is made for the request that is current now; its bytes may be written from another
		 * callback, when the connection is established. */
		thread = thread_get(task);
		if (thread && thread->request) {
			c->noted = thread->request;
			c->noted_flags = 0;
			c->flags |= CONN_NOTED;
		}
		return 0;
	}
	if (newstate == TCP_LISTEN) {
		tell_process(EVENT_LISTEN, bpf_get_current_pid_tgid() >> 32, 0, 0);
		return 0;
	}
	if (newstate == TCP_ESTABLISHED) {
		/* A client's: now it has its port. It is told before the first bytes, so that the request is known
		 * for what it is when it comes out at the other end. */
		c = bpf_map_lookup_elem(&conns, &key);
		if (c)
			conn_announce(c, key, bpf_ktime_get_ns());
		return 0;
	}
	if (newstate != TCP_FIN_WAIT1 && newstate != TCP_LAST_ACK && newstate != TCP_CLOSE)
		return 0;
	c = bpf_map_lookup_elem(&conns, &key);
	if (!c)
		return 0;
	now = bpf_ktime_get_ns();
	if (newstate != TCP_CLOSE) {
		on_end(c, END_LOCAL, now);
		return 0;
	}
	on_end(c, sk->sk_err ? END_RESET : END_CLOSED, now);
	goroutine_keeps(c);
	bpf_map_delete_elem(&conns, &key);
	return 0;
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(sched_process_exec, struct task_struct *task, pid_t old_pid, struct linux_binprm *bprm)
{
	struct inode *inode = bprm->file->f_inode;
	struct image image = {.inode = inode->i_ino, .dev = inode->i_sb->s_dev};
	struct target *known = bpf_map_lookup_elem(&images, &image);
	u32 tgid = task->tgid;

	if (known && !target_of(tgid) && bpf_map_update_elem(&targets, &tgid, known, BPF_NOEXIST))
		count(STAT_TARGETS_FULL);
	tell_process(EVENT_EXEC, tgid, 0, bprm->filename);
	return 0;
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(sched_process_fork, struct task_struct *parent, struct task_struct *child)
{
	u32 tgid = child->tgid;
	struct target *target;

	if (child->pid != child->tgid)
		return 0; /* a thread */
	target = target_of(parent->tgid);
	if (!target)
		return 0;
	/* The child may serve a request before user space has heard of it. */
	struct target inherited = *target;

	inherited.ring_full = 0;
	inherited.map_full = 0;
	inherited.muted = 0;
	if (bpf_map_update_elem(&targets, &tgid, &inherited, BPF_ANY))
		count(STAT_TARGETS_FULL);
	tell_process(EVENT_FORK, tgid, parent->tgid, 0);
	return 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(sched_process_exit, struct task_struct *task)
{
	struct process_event *e;

	if (task->signal->live.counter || !target_of(task->tgid))
		return 0;
	e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
	if (!e) {
		/* User space finds by itself that the process is gone, only later. */
		count(STAT_RING_FULL);
		return 0;
	}
	e->hdr = header(EVENT_EXIT, task->tgid, bpf_ktime_get_ns());
	e->parent = 0;
	e->pad = 0;
	e->filename[0] = 0;
	submit(e);
	return 0;
}
