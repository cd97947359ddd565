/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * The current request of each goroutine. A goroutine's id and its parent's are read from runtime.g, which
 * a register holds at every system call that Go code makes; nothing is probed.
 */
#ifndef GOROUTINE_MAP_H
#define GOROUTINE_MAP_H

#include "conn_map.h"

struct goroutine {
	u32 tgid;
	u32 pad;
	u64 id;
};

/* Of a goroutine that serves a connection, the connection's request is the current one: nothing is written
 * for each request. */
struct goroutine_state {
	u64 request;  /* where no connection is served; 0: none */
	u64 conn_key; /* of the connection that it serves; 0: none */
	u64 conn;     /* its id */
	u8 inherited; /* request is the ancestor's, taken when the goroutine was first seen, and never again */
	u8 dials;     /* it opened a connection for whoever: what it starts inherits nothing from it */
	u8 loose;     /* it has made a call for nobody knows whom, or whose ancestor says */
	u8 pad[5];
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

/* known is a goroutine that is likely, or 0. */
static __always_inline struct goids read_goids(const struct target *target, u64 g, u64 sp, u64 known)
{
	struct goids ids = {};
	u64 stack[2]; /* runtime.g begins with its stack's bounds */

	if (bpf_probe_read_user(&ids.id, sizeof(ids.id), (void *)(g + target->goid))) {
		ids.id = 0;
		return ids;
	}
	/* In code that is not Go's the register holds anything: only a g has this stack, or the very number
	 * that is expected. */
	if (!ids.id || ids.id == known)
		return ids;
	if (bpf_probe_read_user(stack, sizeof(stack), (void *)g) || sp <= stack[0] || sp > stack[1])
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

/* goroutine_serves makes the requests of c those of the goroutine: it alone is c->task, and of no other. */
static __always_inline void goroutine_serves(u64 goid, u64 conn_key, struct conn *c)
{
	struct goroutine key = {.tgid = c->tgid, .id = goid};
	struct goroutine_state *old = bpf_map_lookup_elem(&goroutines, &key);
	struct goroutine_state state = {.conn_key = conn_key, .conn = c->id};

	c->task = goid;
	if (old) {
		u64 other_key = old->conn_key;

		if (other_key && old->conn != c->id) {
			struct conn *other = bpf_map_lookup_elem(&conns, &other_key);

			if (other && other->id == old->conn)
				other->task = 0;
		}
		*old = state;
		return;
	}
	if (bpf_map_update_elem(&goroutines, &key, &state, BPF_ANY))
		count(STAT_GOROUTINES_FULL);
}

/* goroutine_keeps leaves the last request of c, which goes away, with the goroutine that serves it. */
static __always_inline void goroutine_keeps(const struct conn *c)
{
	struct goroutine key = {.tgid = c->tgid, .id = c->task};
	struct goroutine_state *state;

	if (!c->task)
		return;
	state = bpf_map_lookup_elem(&goroutines, &key);
	if (state && state->conn_key && state->conn == c->id) {
		state->request = c->request;
		state->conn_key = 0;
	}
}

/* A goroutine that serves one request, of a connection that is served by others. */
struct serving {
	u64 goid;
	u64 request;
	u64 check; /* of both and the process: two that are written at once make none */
};

/* By goroutine: there is a new one for each such request, so one that came long after takes its place. As if it had fallen out of
 * goroutines, it has no request then. */
enum { SERVINGS = 65536 };

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SERVINGS);
	__type(key, u32);
	__type(value, struct serving);
} servings SEC(".maps");

static __always_inline struct serving *serving_of(u32 tgid, u64 goid)
{
	u32 slot = (goid + tgid * 0x9e37U) & (SERVINGS - 1);

	return bpf_map_lookup_elem(&servings, &slot);
}

static __always_inline u64 serving_check(u32 tgid, u64 goid, u64 request)
{
	return mixed(goid * 0x9e3779b97f4a7c15ULL + request + tgid);
}

/* goroutine_serves_one makes a request that of the goroutine, until it serves another one. */
static __always_inline void goroutine_serves_one(u32 tgid, u64 goid, u64 request)
{
	struct serving *s = serving_of(tgid, goid);

	if (!s)
		return;
	s->goid = goid;
	s->request = request;
	s->check = serving_check(tgid, goid, request);
}

/* serving_request is the request that was given to the goroutine so, or 0. */
static __always_inline u64 serving_request(u32 tgid, u64 goid)
{
	struct serving *s = serving_of(tgid, goid);
	u64 request;

	if (!s || s->goid != goid)
		return 0;
	request = s->request;
	return request && s->check == serving_check(tgid, goid, request) ? request : 0;
}

static __always_inline u64 state_request(const struct goroutine_state *state)
{
	u64 conn_key = state->conn_key;
	struct conn *c;

	if (!conn_key)
		return state->request;
	c = bpf_map_lookup_elem(&conns, &conn_key);
	return c && c->id == state->conn ? c->request : 0;
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
	struct goroutine_state fresh = {.inherited = !!ids.parent, .loose = 1};
	u64 request = serving_request(tgid, ids.id);

	*flags |= FLAG_CAUSE_GOROUTINE;
	if (request)
		return request;
	if (state) {
		request = state_request(state);
		if (state->inherited)
			*flags |= FLAG_CAUSE_INHERITED;
		if (state->inherited || !request)
			state->loose = 1;
		return request;
	}
	key.id = ids.parent;
	fresh.request = ids.parent ? serving_request(tgid, ids.parent) : 0;
	state = ids.parent && !fresh.request ? bpf_map_lookup_elem(&goroutines, &key) : 0;
	if (state && !state->dials)
		fresh.request = state_request(state);
	key.id = ids.id;
	if (bpf_map_update_elem(&goroutines, &key, &fresh, BPF_NOEXIST))
		count(STAT_GOROUTINES_FULL);
	if (ids.parent)
		*flags |= FLAG_CAUSE_INHERITED;
	return fresh.request;
}

/*
 * goroutine_hands_over is called when a goroutine gives to another one what that waits for. If it has made calls for whom
 * nobody knows, and the other serves a request, it was for that: who waits for the end of a job is who wanted it. User
 * space is told.
 */
static __always_inline void goroutine_hands_over(u32 tgid, u64 from, u64 to)
{
	struct goroutine key = {.tgid = tgid, .id = from};
	struct goroutine_state *state = bpf_map_lookup_elem(&goroutines, &key);
	struct goroutine_state *other;
	struct handoff_event *e;
	u64 request;

	if (!state || !state->loose)
		return;
	key.id = to;
	request = serving_request(tgid, to);
	if (!request) {
		other = bpf_map_lookup_elem(&goroutines, &key);
		request = other ? state_request(other) : 0;
	}
	if (!request)
		return;
	e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
	if (!e) {
		count(STAT_RING_FULL); /* calls lose a parent */
		return;
	}
	state->loose = 0;
	e->hdr = header(EVENT_HANDOFF, tgid, bpf_ktime_get_ns());
	e->task = from;
	e->request = request;
	submit(e);
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
