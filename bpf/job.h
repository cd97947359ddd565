/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * Jobs that one thread hands to another: an executor's, a pool's. Who takes a job from a queue shows nowhere, but who waits
 * for its end does: the thread that has done it wakes the one that wanted it, by a futex. Which calls are followed is noted
 * at the bytes of every thread; the wake-ups are looked at only where a process was seen to make calls for nobody knows whom.
 */
#ifndef JOB_H
#define JOB_H

#include "conn_map.h"
#include "syscall.h"
#include "thread_map.h"

/* came_to_cpu is when the task was last given a processor, by the scheduler's clock; 0: this kernel does not keep it
 * (CONFIG_SCHED_INFO). */
static __always_inline u64 came_to_cpu(struct task_struct *task)
{
	return bpf_core_field_exists(task->sched_info) ? BPF_CORE_READ(task, sched_info.last_arrival) : 0;
}

/* is_under_way says that an exchange has neither ended nor been given up. */
static __always_inline bool is_under_way(u64 id, u64 key)
{
	const struct conn *c = id ? bpf_map_lookup_elem(&conns, &key) : 0;

	return c && c->request == id;
}

/* job_step is called when the current thread moves the first bytes of a message of an exchange; asks: of the request. A function of its
 * own, for the sake of the stack. */
static __noinline __attribute__((unused)) void job_step(struct thread *thread, const struct conn *c, u64 key,
							bool asks, u32 dir)
{
	if (asks && dir == DIR_INGRESS) {
		if (is_under_way(thread->serving, thread->serving_key))
			thread->multiplexes = 1;
		thread->serving = c->request;
		thread->serving_key = key;
	} else if (asks) {
		if (!thread->call_done && is_under_way(thread->call, thread->call_key))
			thread->multiplexes = 1;
		else if (thread->call && thread->call_loose)
			thread->unclaimed++;
		thread->call = c->request;
		thread->call_key = key;
		thread->call_done = 0;
		thread->call_loose = !c->cause;
		thread->on_cpu = thread->call_loose ? came_to_cpu(current_task()) : 0;
	} else if (dir == DIR_EGRESS) {
		if (thread->serving == c->request)
			thread->serving = 0;
	} else if (thread->call == c->request) {
		thread->call_done = 1;
	}
}

/*
 * job_wakes is called when the current thread wakes another one of its process. If the last that it did was a call that is
 * answered, and the other has waited in a futex since before that was made, what it waited for is what the call was for.
 * Wrong where the other waits for something else, since then, that this thread lets go of: a lock that it held all the
 * while.
 */
static __always_inline void job_wakes(struct task_struct *task, struct task_struct *woken)
{
	struct thread *thread = thread_find(task, bpf_get_current_pid_tgid());
	struct thread *other;
	struct job_event *e;

	if (!thread || !thread->call || !thread->call_loose || !thread->call_done || thread->multiplexes)
		return;
	other = thread_find(woken, woken->pid);
	if (!other || !other->serving || other->multiplexes ||
	    woken->sched_info.last_arrival > thread->on_cpu)
		return;
	if (task_regs(task).nr != NR_FUTEX || task_regs(woken).nr != NR_FUTEX)
		return;
	e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
	if (!e) {
		count(STAT_RING_FULL); /* a call loses its parent */
		return;
	}
	e->hdr = header(EVENT_JOB, woken->tgid, bpf_ktime_get_ns());
	e->call = thread->call;
	e->request = other->serving;
	e->unclaimed = thread->unclaimed;
	e->pad = 0;
	thread->unclaimed = 0;
	thread->call = 0;
	submit(e);
}

#endif
