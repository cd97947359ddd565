/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * For whom Node.js runs what it runs. Whatever is to be called later (timers, immediates, ticks, native requests) has an id
 * of its own, from a counter, and is called with that id as the current one; Node keeps counter and current id in memory that never
 * moves, also where nobody uses async_hooks. So what was current when an id was made, the id belongs to: intervals of the
 * counter and their requests are all that is remembered. Promises have no ids: what they continue is found by who resolves them.
 */
#ifndef NODE_MAP_H
#define NODE_MAP_H

#include "stats_map.h"
#include "target_map.h"

enum {
	NODE_INTERVALS = 4096, /* a power of two */
	NODE_SEARCH = 13,      /* steps to find one of them */
};

struct node_interval {
	u64 from; /* ids above this one, up to the next interval's, were made while; twice that, and 1 where it is doubted */
	u64 request; /* this one was current; 0: none is known */
};

enum node_strength {
	NODE_NONE,
	NODE_WEAK,   /* by who resolved a promise: it holds until the promises that are ready have been run */
	NODE_STRONG, /* by what was read, or the id that runs */
};

/* What is called back after a read, until the next event, is the connection's own objects: its handle, its parser. */
enum node_read {
	NODE_UNREAD,
	NODE_READ,	  /* 1: the next callback's id is that of one */
	NODE_CALLED_BACK, /* 2: so are further ones, if it is told when the loop turns to something else */
};

/* The event loop of a process, that of its first thread. Made by user space. */
struct node_loop {
	u64 ids;     /* address of its ids: struct node_ids; 0: not seen yet */
	u64 current; /* request; 0: none is known */
	u32 strength;
	u32 read; /* enum node_read */
	u32 doubt; /* what a promise has continued has resolved another one: it may be another request's that goes on */
	u32 owned;   /* what node_owner has found last is doubted */
	u32 doubted; /* what node_request has found last is doubted */
	u32 events;  /* node_event is called; set by user space */
	u64 intervals_made;
	struct node_interval intervals[NODE_INTERVALS];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 256);
	__uint(map_flags, BPF_F_NO_PREALLOC); /* programs add nothing */
	__type(key, u32);		      /* tgid */
	__type(value, struct node_loop);
} node_loops SEC(".maps");

struct node_handle {
	u32 tgid;
	u32 pad;
	u64 id;
};

/* Ids of connections' own objects: they live as long as the connection and say nothing of a request. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, struct node_handle);
	__type(value, u32);
} node_handles SEC(".maps");

/* AsyncHooks' array of the ids, as doubles (src/env.h, AsyncHooks::UidFields). */
struct node_ids {
	u64 execution; /* of what runs */
	u64 trigger;   /* of what made it */
	u64 counter;   /* the highest so far */
};

/* whole is the number that is written as a double, or 0 for one that is below 1 or too large. */
static __always_inline u64 whole(u64 number)
{
	u64 fraction = (number & ((1ULL << 52) - 1)) | 1ULL << 52;
	u32 exponent = number >> 52; /* and the sign */

	if (exponent < 1023 || exponent > 1023 + 52)
		return 0;
	return fraction >> (52 - (exponent - 1023) & 63);
}

static __always_inline struct node_loop *node_loop_of(u64 pid_tgid)
{
	u32 tgid = pid_tgid >> 32;

	/* Worker threads have loops of their own, of which nothing is known. */
	return tgid == (u32)pid_tgid ? bpf_map_lookup_elem(&node_loops, &tgid) : 0;
}

/* node_read_ids reads the ids of now; false: there are none. */
static __always_inline bool node_read_ids(const struct node_loop *loop, struct node_ids *ids)
{
	if (!loop->ids || bpf_probe_read_user(ids, sizeof(*ids), (void *)loop->ids))
		return false;
	ids->execution = whole(ids->execution);
	ids->trigger = whole(ids->trigger);
	ids->counter = whole(ids->counter);
	return ids->counter;
}

/* node_is_handle says whether an id is that of a connection's own object. */
static __always_inline bool node_is_handle(u32 tgid, u64 id)
{
	struct node_handle key = {.tgid = tgid, .id = id};

	return bpf_map_lookup_elem(&node_handles, &key);
}

/* node_owner is the request that was current when an id was made; 0: none is known. */
static __noinline __attribute__((unused)) u64 node_owner(struct node_loop *loop, u64 id)
{
	u64 low, high;

	if (!loop)
		return 0;
	high = loop->intervals_made;
	low = high > NODE_INTERVALS ? high - NODE_INTERVALS : 0;
	/* The last one that begins below id is in [low, high), if there is one. */
	loop->owned = 0;
	if (low == high || loop->intervals[low & (NODE_INTERVALS - 1)].from >> 1 >= id)
		return 0;
	for (u32 i = 0; i < NODE_SEARCH && high - low > 1; i++) {
		u64 middle = low + (high - low) / 2;

		if (loop->intervals[middle & (NODE_INTERVALS - 1)].from >> 1 < id)
			low = middle;
		else
			high = middle;
	}
	loop->owned = loop->intervals[low & (NODE_INTERVALS - 1)].from & 1;
	return loop->intervals[low & (NODE_INTERVALS - 1)].request;
}

/* node_owns has the ids that are made from now on be the current request's. */
static __always_inline void node_owns(struct node_loop *loop, u64 counter)
{
	u64 from = counter << 1 | !!loop->doubt;
	u64 request = loop->current;
	u64 n = loop->intervals_made;
	struct node_interval *last = &loop->intervals[(n - 1) & (NODE_INTERVALS - 1)];
	struct node_interval *next;

	if (n && last->request == request && (last->from & 1) == (from & 1))
		return;
	if (n && last->from >> 1 == counter) { /* no id was made meanwhile */
		last->from = from;
		last->request = request;
		return;
	}
	next = &loop->intervals[n & (NODE_INTERVALS - 1)];
	next->from = from;
	next->request = request;
	loop->intervals_made = n + 1;
}

/* node_set makes a request the current one. */
static __always_inline void node_set(struct node_loop *loop, u64 request, u32 strength, u64 counter,
				     bool doubt)
{
	loop->doubt = doubt;
	loop->current = request;
	loop->strength = request ? strength : NODE_NONE;
	node_owns(loop, counter);
}

/* node_pick is the request to which the ids say that what runs belongs. What made it comes first: a call that waited for a
 * connection is sent when another one's answer is there. */
static __always_inline u64 node_pick(struct node_loop *loop, u32 tgid, const struct node_ids *ids)
{
	if (ids->trigger && !node_is_handle(tgid, ids->trigger))
		return node_owner(loop, ids->trigger);
	return node_owner(loop, ids->execution);
}

/* node_reads is called when the loop has read a part of a request, or of the answer to a call that was made for one. */
static __always_inline void node_reads(struct node_loop *loop, u64 request)
{
	struct node_ids ids;

	if (!node_read_ids(loop, &ids))
		return;
	node_set(loop, request, NODE_STRONG, ids.counter, false);
	loop->read = NODE_READ;
}

/* node_calls_back is called when the loop calls something back, with its id. */
static __always_inline void node_calls_back(struct node_loop *loop, u32 tgid, u64 id)
{
	struct node_ids ids;
	u64 owner;

	if (!node_read_ids(loop, &ids))
		return;
	if (!id) {
		loop->read = NODE_UNREAD;
		node_set(loop, 0, NODE_NONE, ids.counter, false);
		return;
	}
	if (node_is_handle(tgid, id))
		return;
	if (loop->read == NODE_READ || (loop->read && loop->events)) {
		struct node_handle key = {.tgid = tgid, .id = id};
		u32 yes = 1;

		loop->read = NODE_CALLED_BACK;
		bpf_map_update_elem(&node_handles, &key, &yes, BPF_ANY);
		return;
	}
	owner = node_owner(loop, id);
	node_set(loop, owner, NODE_STRONG, ids.counter, loop->owned);
}

/* node_event is called when the loop turns to something else that is ready, of which nothing is known. */
static __always_inline void node_event(struct node_loop *loop)
{
	struct node_ids ids;

	loop->read = NODE_UNREAD;
	if (node_read_ids(loop, &ids))
		node_set(loop, 0, NODE_NONE, ids.counter, false);
}

/* node_resolves is called when a promise is resolved: what waits for it goes on next. */
static __always_inline void node_resolves(struct node_loop *loop, u32 tgid)
{
	struct node_ids ids;
	u64 request;

	if (!node_read_ids(loop, &ids))
		return;
	if (!ids.execution) {
		loop->doubt = 1;
		node_owns(loop, ids.counter);
		return;
	}
	if (node_is_handle(tgid, ids.execution))
		return;
	request = node_pick(loop, tgid, &ids);
	if (request)
		node_set(loop, request, NODE_WEAK, ids.counter, loop->owned);
	else if (loop->strength != NODE_STRONG)
		node_set(loop, 0, NODE_NONE, ids.counter, false);
}

/* node_drained is called when all promises that were ready have been run. */
static __always_inline void node_drained(struct node_loop *loop)
{
	struct node_ids ids;

	if (loop->strength == NODE_WEAK && node_read_ids(loop, &ids))
		node_set(loop, 0, NODE_NONE, ids.counter, false);
}

/* node_request is the request on whose behalf the loop makes a call, or 0. */
static __always_inline u64 node_request(struct node_loop *loop, u32 tgid, const struct node_ids *ids)
{
	u64 request;

	if (ids->execution && !node_is_handle(tgid, ids->execution)) {
		request = node_pick(loop, tgid, ids);
		loop->doubted = loop->owned;
		if (request || (ids->trigger && !node_is_handle(tgid, ids->trigger)))
			return request;
	}
	loop->doubted = loop->doubt;
	return loop->current;
}

/* The following are global, so that each is verified once. */

/* node_task is what the current thread's loop runs, or 0: 1 + the id. */
__noinline u64 node_task(void)
{
	struct node_loop *loop = node_loop_of(bpf_get_current_pid_tgid());
	struct node_ids ids;

	return loop && node_read_ids(loop, &ids) ? 1 + ids.execution : 0;
}

/* node_call is the request for which the current thread's loop makes a call. Where one request lets another one go on, as by
 * giving back a permit for which that waits, it is doubted: see node_doubts. */
__noinline u64 node_call(void)
{
	u64 id = bpf_get_current_pid_tgid();
	struct node_loop *loop = node_loop_of(id);
	struct node_ids ids;

	return loop && node_read_ids(loop, &ids) ? node_request(loop, id >> 32, &ids) : 0;
}

/* node_doubts says that the last answer of node_call may be wrong. */
__noinline int node_doubts(void)
{
	struct node_loop *loop = node_loop_of(bpf_get_current_pid_tgid());

	return loop && loop->doubted;
}

/* node_has_read is node_reads of the current thread's loop. */
__noinline int node_has_read(u64 request)
{
	struct node_loop *loop = node_loop_of(bpf_get_current_pid_tgid());

	if (loop)
		node_reads(loop, request);
	return 0;
}

#endif
