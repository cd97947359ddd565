/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * The current request of each task, where a runtime runs many of them on one thread and its memory tells which one runs.
 *
 * CPython: every callback of an event loop runs in a context (PEP 567), and each asyncio task has one of its own for life,
 * which was copied from that of whoever made the task. So the context is the task, and where it was copied from is what the
 * task works for. Copies are told by a probe of the runtime's own; the context is read at the socket hooks (context.h).
 *
 * HotSpot: a virtual thread has an id of its own, and works for the request that it has read.
 */
#ifndef TASK_MAP_H
#define TASK_MAP_H

#include "conn_map.h"
#include "context.h"
#include "node_map.h"
#include "syscall.h"
#include "thread_map.h"
#include "tokio_map.h"

struct task_key {
	u32 tgid;
	u32 pad;
	/* CPython: the address of the context. They are used again; a copy writes over what was there. HotSpot: of the
	 * virtual thread; they are not. */
	u64 id;
};

struct task_state {
	u64 request;  /* for which it works; 0: for that which is under way on conn */
	u64 conn_key; /* of the server connection whose requests it works for; 0: none */
	u64 conn;     /* its id */
	u64 parent;   /* the task from which it was made, if nothing was known of that; else 0 */
	u64 made;     /* when */
	u32 shared;   /* it answers requests of several connections: it works for none */
	u32 children; /* how many tasks that were made from it have answered on conn, which is not believed before the last
		       * of CHILDREN; 0: it is known otherwise */
};

enum { CHILDREN = 3 };

/* The least recently used goes. A task that fell out has no request: calls lose a parent, none gets a wrong one. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct task_key);
	__type(value, struct task_state);
} tasks SEC(".maps");

#define UNKNOWN_TASK (~0ULL) /* the thread runs a task, and which is not known */

/*
 * virtual_thread is the id of the virtual thread that the current thread runs, or 0. Where Java code makes a system call, a
 * register holds the JavaThread: believed only if the stack pointer is within the stack that it names. Its two handles are
 * of the same object where it runs no virtual thread.
 */
__noinline u64 virtual_thread(u64 sp, u64 thread)
{
	u64 stack[2]; /* where it begins, and its size: it grows downwards */
	struct target *target = target_of(bpf_get_current_pid_tgid() >> 32);
	u64 own, runs, id;

	if (!target)
		return 0;
	if (bpf_probe_read_user(stack, sizeof(stack), (void *)(thread + target->stack_base)) ||
	    sp > stack[0] || sp < stack[0] - stack[1])
		return 0;
	if (bpf_probe_read_user(&own, sizeof(own), (void *)(thread + target->thread_object)) ||
	    bpf_probe_read_user(&own, sizeof(own), (void *)own) ||
	    bpf_probe_read_user(&runs, sizeof(runs), (void *)(thread + target->virtual_thread)) ||
	    bpf_probe_read_user(&runs, sizeof(runs), (void *)runs) || own == runs)
		return 0;
	if (bpf_probe_read_user(&id, sizeof(id),
				(void *)(target->monitor_owner ? thread + target->monitor_owner
							       : runs + target->thread_id)))
		return UNKNOWN_TASK;
	return id;
}

/* current_task_id is the task that the current thread runs; 0: none, or this runtime has none. sp and java are registers with which
 * it has entered the kernel. */
static __always_inline u64 current_task_id(struct target *target, u64 sp, u64 java)
{
	return target->flags & TARGET_PYTHON  ? python_context()
	       : target->flags & TARGET_JAVA  ? virtual_thread(sp, java)
	       : target->flags & TARGET_NODE  ? node_task()
	       : target->flags & TARGET_TOKIO ? tokio_task()
					      : 0;
}

static __always_inline struct task_state *task_find(u32 tgid, u64 id)
{
	struct task_key key = {.tgid = tgid, .id = id};

	return bpf_map_lookup_elem(&tasks, &key);
}

const volatile struct task_state blank_task; /* it would take too much of a stack */

/* task_new is a task of which nothing is known yet; 0: there is no room. */
static __always_inline struct task_state *task_new(u32 tgid, u64 id)
{
	struct task_key key = {.tgid = tgid, .id = id};

	if (bpf_map_update_elem(&tasks, &key, (const void *)&blank_task, BPF_ANY))
		count(STAT_TASKS_FULL);
	return bpf_map_lookup_elem(&tasks, &key);
}

static __always_inline void task_set(u32 tgid, u64 id, const struct task_state *state)
{
	struct task_key key = {.tgid = tgid, .id = id};

	if (bpf_map_update_elem(&tasks, &key, state, BPF_ANY))
		count(STAT_TASKS_FULL);
}

/* is_guess says that the task's connection is not believed yet. */
static __always_inline bool is_guess(const struct task_state *state)
{
	return state->children && state->children < CHILDREN;
}

/* task_conn is the connection that the task works for, or 0. */
static __always_inline struct conn *task_conn(const struct task_state *state)
{
	u64 key = state->conn_key;
	struct conn *c;

	if (!key || is_guess(state))
		return 0;
	c = bpf_map_lookup_elem(&conns, &key);
	return c && c->id == state->conn ? c : 0;
}

/* task_request is the request on whose behalf the task runs, or 0. User space refuses one that has ended. Wrong where a
 * task goes on with another request than that for which it was made, as a worker that takes jobs from a queue. */
static __always_inline u64 task_request(u32 tgid, u64 id)
{
	struct task_state *state = task_find(tgid, id);
	struct conn *c;

	if (!state)
		return 0;
	if (state->request)
		return state->request;
	c = task_conn(state);
	return c ? c->request : 0;
}

/* task_works has the task work for a request from now on. */
static __always_inline void task_works(u32 tgid, u64 id, u64 request)
{
	struct task_state *state;

	if (id == UNKNOWN_TASK)
		return;
	state = task_find(tgid, id) ?: task_new(tgid, id);
	if (state)
		state->request = request;
}

/* task_bind has the task work for what comes over a connection. */
static __always_inline void task_bind(struct task_state *state, u64 conn_key, u64 conn)
{
	if (state->shared)
		return;
	if (state->conn != conn && task_conn(state)) {
		state->shared = 1;
		state->conn_key = 0;
		return;
	}
	state->conn_key = conn_key;
	state->conn = conn;
	state->children = 0;
}

/*
 * child_answers is called when a task answers of which nothing is known but from which it was made, and nothing of that one
 * either. If it was made after the request was read, and this happens again and for no other connection, what it was made from
 * is the task of a connection that was open before, and makes one for each request.
 */
static __noinline __attribute__((unused)) int child_answers(u32 tgid, u64 id, u64 conn_key, u64 made)
{
	struct conn *c = bpf_map_lookup_elem(&conns, &conn_key);
	struct task_state *parent;

	if (!c || made < c->last[DIR_INGRESS])
		return 0;
	parent = task_find(tgid, id);
	if (!parent) {
		parent = task_new(tgid, id);
		if (!parent)
			return 0;
		parent->conn_key = conn_key;
		parent->conn = c->id;
		parent->children = 1;
	} else if (parent->conn != c->id) {
		parent->shared = 1;
		parent->conn_key = 0;
	} else if (is_guess(parent)) {
		parent->children++;
	}
	return 0;
}

/* task_answers is called when a task writes the first of a response: it works for the connection's requests. This finds what
 * belongs to connections that were accepted unseen. */
static __noinline __attribute__((unused)) int task_answers(u32 tgid, u64 id, u64 conn_key, u64 conn)
{
	struct task_state *state = task_find(tgid, id) ?: task_new(tgid, id);

	if (!state)
		return 0;
	if (state->parent)
		child_answers(tgid, state->parent, conn_key, state->made);
	state->parent = 0;
	task_bind(state, conn_key, conn);
	return 0;
}

/* task_copied is called when a task was made out of another one (0: out of none), by a thread that has just accepted a
 * connection (0: that has not). */
static __noinline __attribute__((unused)) int task_copied(u32 tgid, u64 from, u64 id, u64 conn_key, u64 conn)
{
	struct task_state *old = from ? task_find(tgid, from) : 0;
	struct task_state state = {.conn_key = conn_key, .conn = conn};
	struct conn *c;

	if (!conn_key && old) {
		c = task_conn(old);
		if (c && c->flags & CONN_SERVING) {
			state.request = c->request;
		} else if (c) {
			state.conn_key = old->conn_key;
			state.conn = old->conn;
		} else {
			state.request = old->request;
		}
	}
	if (!conn_key && from && (!old || old->children)) {
		state.parent = from;
		state.made = bpf_ktime_get_ns();
	}
	task_set(tgid, id, &state);
	return 0;
}

/*
 * uvloop runs tasks as asyncio does, but libuv reads and writes for it: a read happens outside of every context, and the loop
 * then calls the protocol back in the context of the transport. Servers' transports have one for all, and a client's is that
 * of whoever has connected: they say nothing. What the protocol does in it, until it returns, is for what was read.
 */

/* context_request is the request on whose behalf the thread runs in a context, or 0. */
static __always_inline u64 context_request(u32 tgid, u64 context, const struct thread *thread)
{
	return called_back(thread) ? thread->request : task_request(tgid, context);
}

/* context_called_back is context_copies for a copy that is made for what was read. What else is copied out of the transport's own
 * context is for nobody knows whom. */
static __always_inline void context_called_back(u32 tgid, u64 from, u64 copy, u64 request)
{
	struct task_state *transport = task_find(tgid, from);
	struct task_state nobody = {.shared = 1};
	struct task_state made = {.request = request};

	if (!transport || !transport->shared)
		task_set(tgid, from, &nobody);
	task_set(tgid, copy, &made);
}

/* context_copies is called when the thread has made a copy out of a context (0: of none that it is in). */
static __always_inline void context_copies(u32 tgid, u64 from, u64 copy, const struct thread *thread)
{
	bool accepts = thread->accepted && thread->accepted_switches == thread->switches;

	if (from && called_back(thread))
		context_called_back(tgid, from, copy, thread->request);
	else
		task_copied(tgid, from, copy, accepts ? thread->accepted_key : 0,
			    accepts ? thread->accepted : 0);
}

/* context_writes is called when a task hands bytes to a transport, which may send them when the task runs no more. */
static __always_inline void context_writes(struct thread *thread, u64 context, u64 conn_key, struct conn *c)
{
	c->noted = context ? context_request(c->tgid, context, thread) : 0;
	c->noted_task = context;
	c->noted_parent = 0;
	c->noted_flags = FLAG_CAUSE_TASK;
	c->flags |= CONN_NOTED;
	if (context && c->flags & CONN_SERVING && thread->own)
		task_answers(c->tgid, context, conn_key, c->id);
}

/* was_written says that what is sent was handed to a transport before, by the task c->noted_task. */
static __always_inline bool was_written(const struct conn *c)
{
	return c->flags & CONN_NOTED && c->noted_flags & FLAG_CAUSE_TASK;
}

/* context_calls is called when the first bytes of a call are sent in a context; it is the request on whose behalf, or 0. */
static __always_inline u64 context_calls(u32 tgid, u64 *context, const struct conn *c,
					 const struct thread *thread)
{
	if (!was_written(c))
		return context_request(tgid, *context, thread);
	*context = c->noted_task;
	return c->noted;
}

/* context_answers is called when the first bytes of a response are sent in a context; it is the one in which they were written. */
static __always_inline u64 context_answers(const struct thread *thread, u64 context, u64 conn_key,
					   struct conn *c)
{
	if (was_written(c))
		return c->noted_task;
	if (thread->own)
		task_answers(c->tgid, context, conn_key, c->id);
	return context;
}

#endif
