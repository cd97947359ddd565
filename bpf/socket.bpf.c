//go:build ignore

// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
/* The core program: connections of watched processes and the bytes on them, and which processes there are. */
#include "vmlinux.h"

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>

#include "event.h"
#include "choice_map.h"
#include "functions.h"
#include "job.h"
#include "tracepoints.h"
#include "transport_map.h" /* for the Go probe */

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Types that user space reads and no map holds. */
const struct conn_event *export_conn_event __attribute__((unused));
const struct data_event *export_data_event __attribute__((unused));
const struct progress_event *export_progress_event __attribute__((unused));
const struct end_event *export_end_event __attribute__((unused));
const struct job_event *export_job_event __attribute__((unused));
const struct handoff_event *export_handoff_event __attribute__((unused));
const struct caller_event *export_caller_event __attribute__((unused));
const struct method_event *export_method_event __attribute__((unused));
const struct process_event *export_process_event __attribute__((unused));
const enum event_kind *export_event_kind __attribute__((unused));
const enum event_flag *export_event_flag __attribute__((unused));
const enum end_how *export_end_how __attribute__((unused));
const enum stat *export_stat __attribute__((unused));
const enum verdict_kind *export_verdict_kind __attribute__((unused));
const enum target_flag *export_target_flag __attribute__((unused));
const enum direction *export_direction __attribute__((unused));
const enum reader_state *export_reader_state __attribute__((unused));
const enum need *export_need __attribute__((unused));

/* Processes that came, for discovery. Few, and read at once: a process may live for milliseconds only. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 18);
} processes SEC(".maps");

static __always_inline void tell_process(u32 kind, u32 tgid, u64 of, const char *name)
{
	struct process_event *e = bpf_ringbuf_reserve(&processes, sizeof(*e), 0);

	if (!e) {
		count(STAT_PROCESS_RING_FULL);
		return;
	}
	e->hdr = header(kind, tgid, bpf_ktime_get_ns());
	e->of = of;
	e->name[0] = 0;
	if (name)
		bpf_probe_read_kernel_str(e->name, sizeof(e->name), name);
	bpf_ringbuf_submit(e, BPF_RB_FORCE_WAKEUP);
}

/* How far a connection is. */
struct answer {
	u64 pos[2];  /* bytes so far, by direction */
	u64 last[2]; /* when the last of them moved */
};

/* One element, for user space, which maps it. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, u32);
	__type(value, struct answer);
} answers SEC(".maps");

/* Attached to nothing: user space runs it, with the key and the id of a connection. It answers if the connection is
 * followed, and is not about to change: the time of bytes is written before their position, and the two must be of the
 * same bytes. */
SEC("raw_tp")
int ask(const u64 *args)
{
	u64 key = args[0], id = args[1];
	struct conn *c = bpf_map_lookup_elem(&conns, &key);
	u32 zero = 0;
	volatile struct answer *a = bpf_map_lookup_elem(&answers, &zero);

	if (!c || !a || c->id != id)
		return 0;
	for (int dir = 0; dir < 2; dir++) {
		a->pos[dir] = c->pos[dir];
		a->last[dir] = c->last[dir];
	}
	barrier();
	for (int dir = 0; dir < 2; dir++)
		if (a->pos[dir] != c->pos[dir] || a->last[dir] != c->last[dir])
			return 0;
	return c->id == id;
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
		struct task_struct *task = current_task();
		struct target *target = target_of(id >> 32);
		struct thread *thread;

		if (!target)
			return 0;
		c = conn_add(key, sk->sk_socket->file->f_inode->i_ino, id >> 32, 0);
		if (!c)
			return 0;
		struct call_regs regs = task_regs(task);

		if (target->flags & TARGET_GO) {
			struct goids ids = read_goids(target, regs.g, regs.sp, 0);

			if (ids.id)
				goroutine_dials(id >> 32, ids.id);
			return 0;
		}
		if (target->flags & TARGET_TASKS && current_task_id(target, regs.sp, regs.java))
			return 0; /* whatever task writes the bytes makes the call */
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
		u32 tgid = bpf_get_current_pid_tgid() >> 32;
		const struct target unknown = {};

		if (!target_of(tgid) && port_chosen(sk->__sk_common.skc_num))
			watch(tgid, &unknown);
		tell_process(EVENT_LISTEN, tgid, 0, 0);
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
	/* A socket that is only shut down may be read by a call that is under way. */
	if (newstate == TCP_CLOSE || sk->sk_shutdown == SHUTDOWN_MASK)
		catch_up_received(c, sk, now);
	if (newstate != TCP_CLOSE) {
		on_end(c, END_LOCAL, now);
		return 0;
	}
	conn_closed(c, key, sk->sk_err ? END_RESET : END_CLOSED, now);
	return 0;
}

/* tell_turn tells, among the events of a watched process, that they are of another program from here on, or end. */
static __always_inline void tell_turn(u32 kind, u32 tgid)
{
	struct process_event *e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);

	if (!e) {
		/* User space finds by itself that a process is gone, only later. */
		count(STAT_RING_FULL);
		return;
	}
	e->hdr = header(kind, tgid, bpf_ktime_get_ns());
	e->of = 0;
	e->name[0] = 0;
	submit(e);
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(sched_process_exec, struct task_struct *task, pid_t old_pid, struct linux_binprm *bprm)
{
	struct inode *inode = bprm->file->f_inode;
	struct image image = {.inode = inode->i_ino, .dev = inode->i_sb->s_dev};
	struct target *known = bpf_map_lookup_elem(&images, &image);
	const struct target unknown = {};
	u32 tgid = task->tgid;
	bool watched = target_of(tgid);
	u64 cgroup = cgroup_chosen(cgroup_of(task));

	if (!watched && (known || cgroup))
		watch(tgid, known ?: &unknown);
	tell_process(EVENT_EXEC, tgid, cgroup, bprm->filename);
	if (watched)
		tell_turn(EVENT_EXEC, tgid);
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

/* The next three are attached where rules choose by control group. */
SEC("tp_btf/cgroup_attach_task")
int BPF_PROG(cgroup_attach_task, struct cgroup *to, const char *path, struct task_struct *task)
{
	const struct target unknown = {};
	u32 tgid = task->tgid;

	if (task->pid != tgid)
		return 0; /* its other threads have been, or are to be, moved as well */
	if (!to->root->hierarchy_id && !target_of(tgid) && cgroup_chosen(to))
		watch(tgid, &unknown);
	tell_process(EVENT_MOVED, tgid, 0, 0);
	return 0;
}

SEC("tp_btf/cgroup_mkdir")
int BPF_PROG(cgroup_mkdir, struct cgroup *cgroup, const char *path)
{
	if (!cgroup->root->hierarchy_id)
		tell_process(EVENT_CGROUP, 0, cgroup->kn->id, path);
	return 0;
}

SEC("tp_btf/cgroup_rmdir")
int BPF_PROG(cgroup_rmdir, struct cgroup *cgroup)
{
	u64 id = cgroup->kn->id;

	if (!cgroup->root->hierarchy_id)
		bpf_map_delete_elem(&cgroups, &id);
	return 0;
}

/* Attached where processes make calls for nobody knows whom. */
SEC("tp_btf/sched_waking")
int BPF_PROG(sched_waking, struct task_struct *woken)
{
	struct task_struct *task = current_task();
	u32 tgid = woken->tgid;

	if (tgid == (u32)(bpf_get_current_pid_tgid() >> 32) && target_of(tgid))
		job_wakes(task, woken);
	return 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(sched_process_exit, struct task_struct *task)
{
	if (!task->signal->live.counter && target_of(task->tgid))
		tell_turn(EVENT_EXIT, task->tgid);
	return 0;
}
