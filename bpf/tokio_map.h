/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * The current request of each task of tokio, the runtime of Rust's asynchronous programs. Tasks move between threads; which one
 * runs is in thread-local memory, and is read at the socket hooks. A task works for the request that it has read, or for that of
 * the task that has spawned it. The connections of clients (hyper, reqwest) are tasks of their own, which live long and send what
 * others ask of them over a channel: their call is made for who has asked for it. Who spawns and who asks is told by probes of
 * the runtime's own.
 */
#ifndef TOKIO_MAP_H
#define TOKIO_MAP_H

#include "job.h"
#include "target_map.h"

struct tokio_key {
	u32 tgid;
	u32 pad;
	u64 id; /* of the task; they are not used again */
};

struct tokio_state {
	u64 request;  /* for which it works; 0: none is known */
	u64 conn_key; /* of the connection over which that came */
	u64 asked; /* request of who has asked something of it since it has last read or called; 0: none is known */
	u64 early; /* id of the call that it has made before anyone was seen to ask for it, and that is not answered; 0: none */
	u8 serves;  /* it has read the request itself */
	u8 shared;  /* it has served two at once: it works for none */
	u8 told;    /* someone was seen to ask, whoever it was */
	u8 several; /* those who have asked work for different requests */
	u8 pad[4];
};

/* Added when a task reads a request or makes a call, and when one that works for a request spawns it, or one asks something of it; nothing tells when one
 * ends, so the least recently used goes. A task that fell out has no request: calls lose a parent, none gets a wrong one. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, struct tokio_key);
	__type(value, struct tokio_state);
} tokio_tasks SEC(".maps");

/* tokio::runtime::task::Header, the beginning of a task (tokio/src/runtime/task/core.rs; repr(C)). */
struct tokio_header {
	u64 state; /* tokio/src/runtime/task/state.rs */
	u64 next;
	u64 vtable;
};

enum {
	TOKIO_NOTIFIED = 4,  /* of the state: the task was woken, and has not run since */
	TOKIO_OFFSETS = 56,  /* in the vtable, behind seven functions: where in a task the next three are */
	TOKIO_FURTHEST = 256 /* bytes into a task at which its id may be */
};

struct tokio_offsets {
	u64 trailer;
	u64 scheduler;
	u64 id;
};

/* tokio_current is the id of the task that the current thread runs; 0: none. */
static __always_inline u64 tokio_current(const struct target *target)
{
#if defined(__TARGET_ARCH_x86)
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	u64 fs = BPF_CORE_READ(task, thread.fsbase);
	u64 id = 0;

	if (fs && target->task_id)
		bpf_probe_read_user(&id, sizeof(id), (void *)(fs + target->task_id));
	if (id && target->task_some) {
		u64 some = 0; /* Option<u64> before Option<NonZeroU64> */

		bpf_probe_read_user(&some, sizeof(some), (void *)(fs + target->task_id - sizeof(some)));
		return some == 1 ? id : 0;
	}
	return id;
#else
	return 0;
#endif
}

/* tokio_task is tokio_current of the current process; global, so that it is verified once. */
__noinline u64 tokio_task(void)
{
	struct target *target = target_of(bpf_get_current_pid_tgid() >> 32);

	return target ? tokio_current(target) : 0;
}

/* tokio_id is the id of the task that begins at an address, and sets what its state is; 0: that is no task, or of a version
 * that is not known. */
static __always_inline u64 tokio_id(u64 at, u64 *state)
{
	struct tokio_header header;
	struct tokio_offsets offsets;
	u64 id;

	if (bpf_probe_read_user(&header, sizeof(header), (void *)at) ||
	    bpf_probe_read_user(&offsets, sizeof(offsets), (void *)(header.vtable + TOKIO_OFFSETS)))
		return 0;
	if (offsets.scheduler < sizeof(header) || offsets.id <= offsets.scheduler ||
	    offsets.id > TOKIO_FURTHEST || offsets.trailer <= offsets.id)
		return 0;
	if (bpf_probe_read_user(&id, sizeof(id), (void *)(at + offsets.id)))
		return 0;
	*state = header.state;
	return id;
}

static __always_inline struct tokio_state *tokio_find(u32 tgid, u64 id)
{
	struct tokio_key key = {.tgid = tgid, .id = id};

	return bpf_map_lookup_elem(&tokio_tasks, &key);
}

const volatile struct tokio_state blank_tokio_state; /* on the stack there is no room for one */

/* tokio_add is the state of a task of which nothing is known, or that is new; 0: there is no room. */
static __always_inline struct tokio_state *tokio_add(u32 tgid, u64 id)
{
	struct tokio_key key = {.tgid = tgid, .id = id};

	if (bpf_map_update_elem(&tokio_tasks, &key, (const void *)&blank_tokio_state, BPF_ANY)) {
		count(STAT_TASKS_FULL);
		return 0;
	}
	return bpf_map_lookup_elem(&tokio_tasks, &key);
}

/* tokio_works says that a task works for a request that nothing has followed yet on its connection. */
static __always_inline bool tokio_works(const struct tokio_state *state)
{
	return state && !state->shared && is_under_way(state->request, state->conn_key);
}

/* tokio_spawns is called when a task (0: none) has made another one. */
static __always_inline void tokio_spawns(u32 tgid, u64 from, u64 id)
{
	const struct tokio_state *maker = from && id ? tokio_find(tgid, from) : 0;
	struct tokio_state *state;

	if (!tokio_works(maker))
		return;
	state = tokio_add(tgid, id);
	if (!state)
		return;
	state->request = maker->request;
	state->conn_key = maker->conn_key;
}

/* tokio_tells tells that a call was made for another request than it seemed. */
static __always_inline void tokio_tells(u32 tgid, u64 id, u64 call, u64 request)
{
	struct caller_event *e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);

	if (!e) {
		count(STAT_RING_FULL);
		return;
	}
	e->hdr = header(EVENT_CALLER, tgid, bpf_ktime_get_ns());
	e->call = call;
	e->cause = request;
	e->task = id;
	e->parent_task = 0;
	e->flags = FLAG_CAUSE_TASK;
	e->pad = 0;
	submit(e);
}

/*
 * tokio_asks is called when a task (0: none) has put something into the channel of another one; notified: that one was woken before,
 * and has not run since. One that was running may have taken it already, and made its call.
 *
 * What is asked by another request's task than that for which it was made belongs to no request: it works for who asks.
 */
static __always_inline void tokio_asks(u32 tgid, u64 from, u64 id, bool notified)
{
	const struct tokio_state *asker = from ? tokio_find(tgid, from) : 0;
	struct tokio_state *state = tokio_find(tgid, id);
	u64 request = tokio_works(asker) ? asker->request : 0;
	u64 early;

	if (!state)
		state = tokio_add(tgid, id);
	if (!state || state->serves)
		return;
	early = state->early;
	state->early = 0;
	if (early && state->request != request)
		tokio_tells(tgid, id, early, request);
	if (state->request != request)
		state->request = 0;
	if (early)
		return;
	state->several = state->told && notified && (state->several || state->asked != request);
	state->asked = request;
	state->told = 1;
}

/* tokio_reads is called when a task has read the beginning of a request over a connection. */
static __always_inline void tokio_reads(u32 tgid, u64 id, u64 conn_key, u64 request)
{
	struct tokio_state *state = tokio_find(tgid, id) ?: tokio_add(tgid, id);

	if (!state)
		return;
	if (state->serves && state->conn_key != conn_key && is_under_way(state->request, state->conn_key)) {
		u64 other = state->conn_key;
		const struct conn *c = bpf_map_lookup_elem(&conns, &other);

		state->shared |= c && c->flags & CONN_SERVING;
	}
	state->request = request;
	state->conn_key = conn_key;
	state->serves = 1;
}

static __always_inline void tokio_forgets(struct tokio_state *state)
{
	state->asked = 0;
	state->early = 0;
	state->told = 0;
	state->several = 0;
}

/* tokio_answered is called when a task has read of the answer to a call: what was asked of it before is done. */
static __always_inline void tokio_answered(u32 tgid, u64 id)
{
	struct tokio_state *state = tokio_find(tgid, id);

	if (state)
		tokio_forgets(state);
}

/* tokio_calls is the request for which a task makes a call, or 0. User space refuses one that has ended. Wrong where a channel has several
 * senders, two of them use it at the same time, and the one that wakes the task is not the one whose message it takes first. */
static __always_inline u64 tokio_calls(u32 tgid, u64 id, u64 call)
{
	struct tokio_state *state = tokio_find(tgid, id) ?: tokio_add(tgid, id);
	u64 request;
	bool told;

	if (!state)
		return 0;
	if (state->serves)
		return state->shared ? 0 : state->request;
	told = state->told;
	request = state->several ? 0 : told ? state->asked : state->request;
	tokio_forgets(state);
	if (!told)
		state->early = call;
	return request;
}

/* The following are of the current process, and global, so that each is verified once. */

__noinline u64 tokio_call(u64 id, u64 call)
{
	return tokio_calls(bpf_get_current_pid_tgid() >> 32, id, call);
}

/* tokio_has_read is called for what a task has read of a request, or, without one, of an answer. */
__noinline int tokio_has_read(u64 id, u64 conn_key, u64 request)
{
	u32 tgid = bpf_get_current_pid_tgid() >> 32;

	if (request)
		tokio_reads(tgid, id, conn_key, request);
	else
		tokio_answered(tgid, id);
	return 0;
}

#endif
