/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * The current request of each task, where a runtime runs many of them on one thread and its memory tells which one runs.
 *
 * CPython: every callback of an event loop runs in a context (PEP 567), and each asyncio task has one of its own for life,
 * which was copied from that of whoever made the task. So the context is the task, and where it was copied from is what the
 * task works for. Copies are told by a probe of the runtime's own; the context is read at the socket hooks.
 *
 * HotSpot: a virtual thread has an id of its own, and works for the request that it has read.
 */
#ifndef TASK_MAP_H
#define TASK_MAP_H

#include "conn_map.h"
#include "node_map.h"
#include "syscall.h"
#include "thread_map.h"

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
	u32 shared;   /* it answers requests of several connections: it works for none */
	u32 pad;
};

/* The least recently used goes. A task that fell out has no request: calls lose a parent, none gets a wrong one. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct task_key);
	__type(value, struct task_state);
} tasks SEC(".maps");

/* PyContext of CPython 3.10 to 3.13 (Include/internal/pycore_context.h). */
struct py_context {
	u64 refcount;
	u64 type;
	u64 previous;
	u64 vars;
	u64 weakrefs;
	u32 entered;
	u32 pad;
};

enum {
	GLIBC_TSD =
		0x310, /* of the first block of thread-specific data in struct pthread, glibc on x86-64 (seen: 2.36) */
	GLIBC_TSD_KEYS = 32 /* that it has */
};

/*
 * read_context is the context in which the current thread runs Python code, or 0. The thread's PyThreadState is the value of
 * a thread-specific key, which is there while the interpreter's lock is given up for a system call as well. What is read
 * is believed only if it is an object of the type PyContext, and entered: an idle thread's own context says nothing.
 */
static __noinline __attribute__((unused)) u64 read_context(struct target *target)
{
#if defined(__TARGET_ARCH_x86)
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	u64 fs = BPF_CORE_READ(task, thread.fsbase);
	struct py_context context;
	u64 state, at;

	if (!target->tss_key) {
		struct {
			u32 made;
			u32 key;
		} tss;

		if (bpf_probe_read_user(&tss, sizeof(tss), (void *)target->auto_tss_key) || tss.made != 1)
			return 0;
		target->tss_key = tss.key + 1;
	}
	if (!fs || target->tss_key > GLIBC_TSD_KEYS)
		return 0;
	if (bpf_probe_read_user(&state, sizeof(state),
				(void *)(fs + GLIBC_TSD + (target->tss_key - 1) * 16 + 8)) ||
	    !state)
		return 0;
	if (bpf_probe_read_user(&at, sizeof(at), (void *)(state + target->context)) || !at)
		return 0;
	if (bpf_probe_read_user(&context, sizeof(context), (void *)at) ||
	    context.type != target->context_type || context.entered != 1)
		return 0;
	return at;
#else
	return 0;
#endif
}

/* python_context is read_context of the current process; global, so that it is verified once. A uprobe, which may not be preempted,
 * may not call it on every kernel. */
__noinline u64 python_context(void)
{
	struct target *target = target_of(bpf_get_current_pid_tgid() >> 32);

	return target ? read_context(target) : 0;
}

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
	return target->flags & TARGET_PYTHON ? python_context()
	       : target->flags & TARGET_JAVA ? virtual_thread(sp, java)
	       : target->flags & TARGET_NODE ? node_task()
					     : 0;
}

static __always_inline struct task_state *task_find(u32 tgid, u64 id)
{
	struct task_key key = {.tgid = tgid, .id = id};

	return bpf_map_lookup_elem(&tasks, &key);
}

static __always_inline void task_set(u32 tgid, u64 id, const struct task_state *state)
{
	struct task_key key = {.tgid = tgid, .id = id};

	if (bpf_map_update_elem(&tasks, &key, state, BPF_ANY))
		count(STAT_TASKS_FULL);
}

/* task_conn is the connection that the task works for, or 0. */
static __always_inline struct conn *task_conn(const struct task_state *state)
{
	u64 key = state->conn_key;
	struct conn *c;

	if (!key)
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
	struct task_state *state = task_find(tgid, id);
	struct task_state fresh = {.request = request};

	if (id == UNKNOWN_TASK)
		return;
	if (state)
		state->request = request;
	else
		task_set(tgid, id, &fresh);
}

/* task_bind has the task work for what comes over a connection. */
static __always_inline void task_bind(struct task_state *state, u64 conn_key, u64 conn)
{
	if (state->shared || state->conn == conn)
		return;
	if (task_conn(state)) {
		state->shared = 1;
		state->conn_key = 0;
		return;
	}
	state->conn_key = conn_key;
	state->conn = conn;
}

/* task_answers is called when a task writes the first of a response: it works for the connection's requests. This finds what
 * belongs to connections that were accepted unseen. */
static __noinline __attribute__((unused)) int task_answers(u32 tgid, u64 id, u64 conn_key, u64 conn)
{
	struct task_state *state = task_find(tgid, id);
	struct task_state fresh = {.conn_key = conn_key, .conn = conn};

	if (state)
		task_bind(state, conn_key, conn);
	else
		task_set(tgid, id, &fresh);
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
	task_set(tgid, id, &state);
	return 0;
}

#endif
