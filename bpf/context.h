/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * In which context (PEP 567) a thread runs Python code: read from CPython's own memory. Beside it CPython counts how often the
 * thread went into a context or out of one: while the count stands still, the same callback runs.
 */
#ifndef CONTEXT_H
#define CONTEXT_H

#include "target_map.h"
#include "thread_map.h"

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

/* Of PyThreadState, of the same versions (Include/cpython/pystate.h): context and context_ver, at target->context. */
struct py_current {
	u64 context;
	u64 switches;
};

enum {
	GLIBC_TSD =
		0x310, /* of the first block of thread-specific data in struct pthread, glibc on x86-64 (seen: 2.36) */
	GLIBC_TSD_KEYS = 32 /* that it has */
};

/* is_entered reads a context: is it one, and does a thread run in it? */
static __always_inline bool is_entered(const struct target *target, u64 at, struct py_context *context)
{
	return at && !bpf_probe_read_user(context, sizeof(*context), (void *)at) &&
	       context->type == target->context_type && context->entered == 1;
}

/* called_back says that the thread is in the context that it went into first since it has read outside of one: what is to know of
 * the bytes is called back. */
static __always_inline bool called_back(const struct thread *thread)
{
	return thread->read_switches && thread->switches == thread->read_switches + 1;
}

/*
 * read_context is the context in which the current thread runs Python code, or 0; it sets what the thread's state says of it. The
 * thread's PyThreadState is the value of a thread-specific key, which is there while the interpreter's lock is given up for a
 * system call as well. What is read is believed only if it is an object of the type PyContext, and entered: an idle thread's own
 * context says nothing.
 */
static __noinline __attribute__((unused)) u64 read_context(struct target *target, struct thread *thread)
{
	thread->switches = 0;
#if defined(__TARGET_ARCH_x86)
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	u64 fs = BPF_CORE_READ(task, thread.fsbase);
	/* In turn, for the stack is short: */
	union {
		struct {
			u32 made;
			u32 key;
		} tss;
		u64 state;
		struct py_current now;
		struct py_context context;
	} seen;
	u64 context;

	if (!target->tss_key) {
		if (bpf_probe_read_user(&seen.tss, sizeof(seen.tss), (void *)target->auto_tss_key) ||
		    seen.tss.made != 1)
			return 0;
		target->tss_key = seen.tss.key + 1;
	}
	if (!fs || target->tss_key > GLIBC_TSD_KEYS)
		return 0;
	if (bpf_probe_read_user(&seen.state, sizeof(seen.state),
				(void *)(fs + GLIBC_TSD + (target->tss_key - 1) * 16 + 8)) ||
	    !seen.state)
		return 0;
	if (bpf_probe_read_user(&seen.now, sizeof(seen.now), (void *)(seen.state + target->context)))
		return 0;
	thread->switches = seen.now.switches;
	context = seen.now.context;
	if (!is_entered(target, context, &seen.context))
		return 0;
	thread->own = !thread->read_switches ||
		      (!called_back(thread) && is_entered(target, seen.context.previous, &seen.context));
	return context;
#else
	return 0;
#endif
}

/* python_context is read_context of the current process and thread, which has done I/O before; global, so that it is verified once.
 * A uprobe, which may not be preempted, may not call it on every kernel. */
__noinline u64 python_context(void)
{
	u64 id = bpf_get_current_pid_tgid();
	struct target *target = target_of(id >> 32);
	struct thread *thread = thread_find(current_task(), id);

	return target && thread ? read_context(target, thread) : 0;
}

#endif
