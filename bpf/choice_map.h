/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * What is watched before user space has looked at it: it is known beforehand what the rules say of every process of an
 * executable, a control group, or a port. All of it is written by user space.
 */
#ifndef CHOICE_MAP_H
#define CHOICE_MAP_H

#include <bpf/bpf_core_read.h>

#include "stats_map.h"
#include "target_map.h"

/* An executable file. */
struct image {
	u64 inode;
	u32 dev; /* the kernel's own form: major << 20 | minor */
	u32 pad;
};

/* Executables that are watched whoever runs them, and what is known of a process that does. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__uint(map_flags, GROWING);
	__type(key, struct image);
	__type(value, struct target);
} images SEC(".maps");

/* By id of a control group of the cgroup2 hierarchy: whether what runs in it or below is watched (1), or is not (0). The
 * nearest one decides. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__uint(map_flags, GROWING);
	__type(key, u64);
	__type(value, u32);
} cgroups SEC(".maps");

/* A bit for each TCP port: whoever listens on it is watched. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 65536 / 64);
	__type(key, u32);
	__type(value, u64);
} ports SEC(".maps");

enum {
	CGROUP_LEVELS = 32, /* that are looked at, from a process's own upwards */
};

static __always_inline struct kernfs_node *kernfs_parent(struct kernfs_node *kn)
{
	struct kernfs_node___6_14 *old = (void *)kn;

	if (bpf_core_field_exists(old->parent))
		return BPF_CORE_READ(old, parent);
	return BPF_CORE_READ(kn, __parent);
}

/* cgroup_chosen says whether a process that is in a control group of the cgroup2 hierarchy is watched for that: the id of
 * the one that decides, or 0. */
static __always_inline u64 cgroup_chosen(struct cgroup *cgroup)
{
	struct kernfs_node *kn = BPF_CORE_READ(cgroup, kn);

	for (u32 i = 0; kn && i < CGROUP_LEVELS; i++) {
		u64 id = BPF_CORE_READ(kn, id);
		u32 *chosen = bpf_map_lookup_elem(&cgroups, &id);

		if (chosen)
			return *chosen ? id : 0;
		kn = kernfs_parent(kn);
	}
	return 0;
}

static __always_inline struct cgroup *cgroup_of(struct task_struct *task)
{
	return BPF_CORE_READ(task, cgroups, dfl_cgrp);
}

static __always_inline bool port_chosen(u16 port)
{
	u32 word = port / 64;
	u64 *bits = bpf_map_lookup_elem(&ports, &word);

	return bits && *bits >> port % 64 & 1;
}

/* watch has a process watched from now on; known is what is known of it. */
static __always_inline void watch(u32 tgid, const struct target *known)
{
	if (bpf_map_update_elem(&targets, &tgid, known, BPF_NOEXIST))
		count(STAT_TARGETS_FULL);
}

#endif
