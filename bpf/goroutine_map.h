/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * The current request of each goroutine. A goroutine's id and its parent's are read from runtime.g, which
 * a register holds at every system call that Go code makes; nothing is probed.
 */
#ifndef GOROUTINE_MAP_H
#define GOROUTINE_MAP_H

#include "stats_map.h"
#include "target_map.h"

struct goroutine {
	u32 tgid;
	u32 pad;
	u64 id;
};

struct goroutine_state {
	u64 request;  /* 0: none */
	u8 inherited; /* it is the ancestor's, taken when the goroutine was first seen, and never again */
	u8 dials;     /* it opened a connection for whoever: what it starts inherits nothing from it */
	u8 pad[6];
};

/* Added when a goroutine serves a request or makes a call; nothing tells when one ends, so the least
 * recently used goes. A goroutine that fell out has no request: calls lose a parent, none gets a wrong one. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 32768);
	__type(key, struct goroutine);
	__type(value, struct goroutine_state);
} goroutines SEC(".maps");

/* The ids of the goroutine at address g, running on the user stack at sp. */
struct goids {
	u64 id;	    /* 0: this is no goroutine */
	u64 parent; /* 0: not known */
};

static __always_inline struct goids read_goids(const struct target *target, u64 g, u64 sp)
{
	struct goids ids = {};
	u64 stack[2]; /* runtime.g begins with its stack's bounds */

	/* In code that is not Go's the register holds anything: only a g has this stack. */
	if (bpf_probe_read_user(stack, sizeof(stack), (void *)g) || sp <= stack[0] || sp > stack[1])
		return ids;
	if (bpf_probe_read_user(&ids.id, sizeof(ids.id), (void *)(g + target->goid)))
		ids.id = 0;
	return ids;
}

static __always_inline u64 read_parent_goid(const struct target *target, u64 g)
{
	u64 parent;

	if (!target->parent_goid ||
	    bpf_probe_read_user(&parent, sizeof(parent), (void *)(g + target->parent_goid)))
		return 0;
	return parent;
}

/* goroutine_serves makes request the goroutine's own. */
static __always_inline void goroutine_serves(u32 tgid, u64 goid, u64 request)
{
	struct goroutine key = {.tgid = tgid, .id = goid};
	struct goroutine_state *state = bpf_map_lookup_elem(&goroutines, &key);

	if (state) {
		state->request = request;
		state->inherited = 0;
		return;
	}
	struct goroutine_state fresh = {.request = request};

	if (bpf_map_update_elem(&goroutines, &key, &fresh, BPF_ANY))
		count(STAT_GOROUTINES_FULL);
}

/*
 * goroutine_request is the request on whose behalf the goroutine runs, or 0: its own, or that of the
 * goroutine that started it as it was when this one was first seen. Wrong where a long-lived goroutine was
 * started within a request and is first seen while the same parent serves a later one: user space
 * refuses what it can show to be older than the request.
 */
static __always_inline u64 goroutine_request(u32 tgid, struct goids ids, u32 *flags)
{
	struct goroutine key = {.tgid = tgid, .id = ids.id};
	struct goroutine_state *state = bpf_map_lookup_elem(&goroutines, &key);
	struct goroutine_state fresh = {.inherited = 1};

	*flags |= FLAG_CAUSE_GOROUTINE;
	if (state) {
		if (state->inherited)
			*flags |= FLAG_CAUSE_INHERITED;
		return state->request;
	}
	if (!ids.parent)
		return 0;
	key.id = ids.parent;
	state = bpf_map_lookup_elem(&goroutines, &key);
	if (state && !state->dials)
		fresh.request = state->request;
	key.id = ids.id;
	if (bpf_map_update_elem(&goroutines, &key, &fresh, BPF_NOEXIST))
		count(STAT_GOROUTINES_FULL);
	*flags |= FLAG_CAUSE_INHERITED;
	return fresh.request;
}

/* goroutine_dials marks a goroutine that opens a connection and serves no request of its own. */
static __always_inline void goroutine_dials(u32 tgid, u64 goid)
{
	struct goroutine key = {.tgid = tgid, .id = goid};
	struct goroutine_state *state = bpf_map_lookup_elem(&goroutines, &key);
	struct goroutine_state fresh = {.inherited = 1, .dials = 1};

	if (state) {
		if (state->inherited)
			state->dials = 1;
		return;
	}
	if (bpf_map_update_elem(&goroutines, &key, &fresh, BPF_NOEXIST))
		count(STAT_GOROUTINES_FULL);
}

#endif
