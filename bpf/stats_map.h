/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
#ifndef STATS_MAP_H
#define STATS_MAP_H

/* Flags of maps that grow with their use. */
#ifdef OLD_KERNEL /* what traces may not allocate then */
#define GROWING 0
#else
#define GROWING BPF_F_NO_PREALLOC
#endif

/* One counter for each enumerator of enum stat; programs add, user space sums and reads. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, STATS);
	__type(key, u32);
	__type(value, u64);
} stats SEC(".maps");

/* count adds one, and returns what this processor has counted. */
static __always_inline u64 count(u32 stat)
{
	u64 *n = bpf_map_lookup_elem(&stats, &stat);

	return n ? ++*n : 0;
}

#endif
