/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
#ifndef THREAD_MAP_H
#define THREAD_MAP_H

#include <bpf/bpf_core_read.h>

#include "stats_map.h"

enum { TELLING_WORDS = 19 };

/* What is known of a thread of a watched process. */
struct thread {
	u64 begin;   /* when the sending call that is under way was entered; 0: not seen */
	u64 request; /* the current request of the thread; 0: none */
	u32 message; /* index of the next message within a sendmmsg or recvmmsg */
	u32 watched; /* sys_enter is attached: message is right */
	/* A call of a kernel's function that is under way, from its entry to its return: */
	u64 sk;	 /* address of the struct sock; 0: none */
	u64 msg; /* address of the struct msghdr */
	u32 flags;
	/* The same of tcp_recvmsg, to the first bytes: */
	u32 read_flags;
	u64 read_sk;
	u64 read_msg;
	/* The same of tcp_sendmsg by kprobes, until release_sock has told of all that it sends: */
	u64 send_sk;
	u64 send_msg;
	u32 send_seq; /* write_seq of what is told so far */
	u32 pad;
	/* The connection that it has accepted, for the tasks that it makes now: */
	u64 accepted_key;
	u64 accepted; /* id; 0: none */
	/* CPython: how often it had gone into a context or out of one; 0: not known */
	u64 switches;	       /* when that was read last */
	u64 read_switches;     /* when it had read what request is for, outside of a context */
	u64 accepted_switches; /* when it had accepted the connection */
	/* What job.h knows: */
	u64 serving;	 /* the request that it has read and that is not answered; 0: none */
	u64 serving_key; /* of its connection */
	u64 call;	 /* id of the call that it has made last; 0: none, or who waited for it is told */
	u64 call_key;	 /* of its connection */
	u64 on_cpu;	 /* when it had come to its processor then: task_struct.sched_info.last_arrival */
	u8 call_loose;	 /* nobody knows for whom it was made */
	u8 call_done;	 /* its answer has begun */
	u8 multiplexes;	 /* it was seen to have two requests or two calls under way: an event loop's */
	/* CPython: the context that it was last seen in is that of what runs, and not one of the loop's. A loop that reads outside of
	 * contexts runs tasks from within one of its own, and what is not a task by itself. */
	u8 own;
	u32 unclaimed; /* calls that were loose and done when the next one was made */
#ifndef OLD_KERNEL
	u64 telling[TELLING_WORDS]; /* struct telling of the call that is under way */
#endif
};

#ifdef OLD_KERNEL /* before 5.11 */
/* By thread id. Nothing removes the threads that have ended; the least recently used go. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, u32);
	__type(value, struct thread);
} threads SEC(".maps");

static __always_inline struct task_struct *current_task(void)
{
	return (struct task_struct *)bpf_get_current_task();
}

static __always_inline u32 task_flags(struct task_struct *task)
{
	return BPF_CORE_READ(task, flags);
}

static __always_inline void *task_uring(struct task_struct *task)
{
	return BPF_CORE_READ(task, io_uring);
}

const volatile struct thread blank_thread; /* it would take a third of a program's stack */

static __always_inline struct thread *thread_get(struct task_struct *task)
{
	u32 tid = bpf_get_current_pid_tgid();
	struct thread *thread = bpf_map_lookup_elem(&threads, &tid);

	if (thread)
		return thread;
	if (bpf_map_update_elem(&threads, &tid, (const void *)&blank_thread, BPF_NOEXIST))
		count(STAT_THREADS_FULL);
	return bpf_map_lookup_elem(&threads, &tid);
}

/* thread_find is of any task; 0: it has done nothing yet. */
static __always_inline struct thread *thread_find(struct task_struct *task, u32 tid)
{
	return bpf_map_lookup_elem(&threads, &tid);
}
#else
/* Added when a watched thread does I/O, removed by the kernel with the thread. */
struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct thread);
} threads SEC(".maps");

static __always_inline struct task_struct *current_task(void)
{
	return bpf_get_current_task_btf();
}

static __always_inline u32 task_flags(struct task_struct *task)
{
	return task->flags;
}

static __always_inline void *task_uring(struct task_struct *task)
{
	return task->io_uring;
}

/* thread_get is of the current task. */
static __always_inline struct thread *thread_get(struct task_struct *task)
{
	struct thread *thread = bpf_task_storage_get(&threads, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);

	if (!thread)
		count(STAT_THREADS_FULL);
	return thread;
}

static __always_inline struct thread *thread_find(struct task_struct *task, u32 tid)
{
	return bpf_task_storage_get(&threads, task, 0, 0);
}
#endif

#endif
