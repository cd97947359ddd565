/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
#ifndef STATS_MAP_H
#define STATS_MAP_H

/* Flags of maps that grow with their use. */
#ifdef OLD_KERNEL /* what traces may not allocate then */
#define GROWING 0
#else
#define GROWING BPF_F_NO_PREALLOC
#endif

enum {
	STATS_PER_CPU = (STATS + 7) & ~7, /* no two processors write to one cache line */
};

/*
 * STATS_PER_CPU counters for each processor, which alone adds to them; the size is set at load. User space reads the
 * mapped pages: while a task is in a system call that looks into a map, the kernel runs no kprobe on its processor,
 * also not for the task that has preempted it (bpf_prog_active, Linux 7.3).
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, STATS_PER_CPU);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, u32);
	__type(value, u64);
} stats SEC(".maps");

/* count adds one, and returns what this processor has counted. */
static __always_inline u64 count(u32 stat)
{
	u32 slot = bpf_get_smp_processor_id() * STATS_PER_CPU + stat;
	u64 *n = bpf_map_lookup_elem(&stats, &slot);

	return n ? ++*n : 0;
}

#endif
