/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
#ifndef THREAD_MAP_H
#define THREAD_MAP_H

#include "stats_map.h"

/* What is known of a thread of a watched process. */
struct thread {
	u64 begin;   /* when the sending call that is under way was entered; 0: not seen */
	u64 request; /* the current request of the thread; 0: none */
	u32 message; /* index of the next message within a sendmmsg or recvmmsg */
	u32 watched; /* sys_enter is attached: message is right */
};

/* Added when a watched thread does I/O, removed by the kernel with the thread. */
struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct thread);
} threads SEC(".maps");

static __always_inline struct thread *thread_get(struct task_struct *task)
{
	struct thread *thread = bpf_task_storage_get(&threads, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);

	if (!thread)
		count(STAT_THREADS_FULL);
	return thread;
}

#endif
