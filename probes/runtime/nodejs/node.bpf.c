//go:build ignore

// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
/* What the socket hooks cannot know of Node.js: what its event loop calls back, and what goes on because of a promise. */
#include "vmlinux.h"

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>

#include "event.h"
#include "node_map.h"
#include "preempt.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#if defined(__TARGET_ARCH_x86)
#define ARG1(r) ((r)->si)
#define ARG3(r) ((r)->cx)
#define ARG4(r) ((r)->r8)
#elif defined(__TARGET_ARCH_arm64)
#define ARG1(r) ((r)->user_regs.regs[1])
#define ARG3(r) ((r)->user_regs.regs[3])
#define ARG4(r) ((r)->user_regs.regs[4])
#endif

/* running is the loop that the current thread runs, and the process, or 0. */
static __always_inline struct node_loop *running(struct target **target)
{
	u64 id = bpf_get_current_pid_tgid();

	*target = target_of(id >> 32);
	return *target && (*target)->flags & TARGET_NODE ? node_loop_of(id) : 0;
}

static __always_inline u32 current_tgid(void)
{
	return bpf_get_current_pid_tgid() >> 32;
}

/* calls_back is called with the address of the id, a double. */
static __always_inline void calls_back(struct node_loop *loop, u64 at)
{
	u64 id;

	if (!bpf_probe_read_user(&id, sizeof(id), (void *)at))
		node_calls_back(loop, current_tgid(), whole(id));
}

static __always_inline void scope(struct pt_regs *ctx)
{
	struct target *target;
	struct node_loop *loop = running(&target);
	u64 third = ARG3(ctx), fourth = ARG4(ctx);

	if (!loop)
		return;
	barrier_var(
		third); /* else the register is chosen first, and then read: the verifier wants it to be known */
	barrier_var(fourth);
	if (!loop->ids &&
	    bpf_probe_read_user(&loop->ids, sizeof(loop->ids), (void *)(ARG1(ctx) + target->async_ids)))
		loop->ids = 0;
	calls_back(loop, target->async_context == 3 ? third : fourth);
}

/* node::InternalCallbackScope's constructor, for an environment and ids. It begins with an instruction that the kernel emulates,
 * as the others do. */
SEC("uprobe")
int callback_scope(struct pt_regs *ctx)
{
	uprobe_begins();
	scope(ctx);
	uprobe_ends();
	return 0;
}

static __always_inline void wrap_scope(struct pt_regs *ctx)
{
	struct target *target;
	struct node_loop *loop = running(&target);

	if (loop)
		calls_back(loop, ARG1(ctx) + target->async_wrap_id);
}

/* The same for an object that has ids. */
SEC("uprobe")
int callback_scope_of_wrap(struct pt_regs *ctx)
{
	uprobe_begins();
	wrap_scope(ctx);
	uprobe_ends();
	return 0;
}

/* The function with which promises are resolved that JavaScript makes: new Promise(resolve => ...). */
SEC("uprobe")
int promise_resolved(struct pt_regs *ctx)
{
	struct target *target;
	struct node_loop *loop;

	uprobe_begins();
	loop = running(&target);
	if (loop)
		node_resolves(loop, current_tgid());
	uprobe_ends();
	return 0;
}

/* v8::internal::MicrotaskQueue::OnCompleted. */
SEC("uprobe")
int microtasks_run(struct pt_regs *ctx)
{
	struct target *target;
	struct node_loop *loop;

	uprobe_begins();
	loop = running(&target);
	if (loop)
		node_drained(loop);
	uprobe_ends();
	return 0;
}

/* libuv turns to a stream, or to what its threads have done: uv__stream_io, uv__server_io, uv__async_io. */
SEC("uprobe")
int event_ready(struct pt_regs *ctx)
{
	struct target *target;
	struct node_loop *loop;

	uprobe_begins();
	loop = running(&target);
	if (loop)
		node_event(loop);
	uprobe_ends();
	return 0;
}
