//go:build ignore

// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
/* What the socket hooks cannot know of a program on tokio: which task spawns which, and which asks something of another. */
#include "vmlinux.h"

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>

#include "event.h"
#include "tokio_map.h"
#include "preempt.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Arguments, the first is 0. Rust's own calls pass words as those of C. */
#if defined(__TARGET_ARCH_x86)
#define ARG_0(r) ((r)->di)
#define ARG_1(r) ((r)->si)
#elif defined(__TARGET_ARCH_arm64)
#define ARG_0(r) ((r)->user_regs.regs[0])
#define ARG_1(r) ((r)->user_regs.regs[1])
#endif

static __always_inline struct target *current_target(u32 *tgid)
{
	struct target *target;

	*tgid = bpf_get_current_pid_tgid() >> 32;
	target = target_of(*tgid);
	return target && target->flags & TARGET_TOKIO ? target : 0;
}

static __always_inline void note_spawn(u64 id)
{
	u32 tgid;
	struct target *target = current_target(&tgid);

	if (target)
		tokio_spawns(tgid, tokio_current(target), id);
}

/* tokio::runtime::task_hooks::TaskHooks::spawn(&self, &TaskMeta), which every spawn calls; the second begins with the id. */
SEC("uprobe")
int task_spawned(struct pt_regs *ctx)
{
	u64 id = 0;

	uprobe_begins();
	bpf_probe_read_user(&id, sizeof(id), (void *)ARG_1(ctx));
	note_spawn(id);
	uprobe_ends();
	return 0;
}

/*
 * tokio::runtime::task::list::OwnedTasks::bind_inner(&self, Task, Notified), which spawns call that have no hooks, and
 * tokio::runtime::blocking::pool::Spawner::spawn_task(&self, Task, &Handle).
 */
SEC("uprobe")
int task_made(struct pt_regs *ctx)
{
	u64 state;

	uprobe_begins();
	note_spawn(tokio_id(ARG_1(ctx), &state));
	uprobe_ends();
	return 0;
}

enum { WAKER_STATES = 3 }; /* the highest state of an AtomicWaker: WAKING and REGISTERING */

/* note_ask reads an AtomicWaker: its state, and a task and its functions, in any order. */
static __always_inline void note_ask(u64 waker)
{
	u32 tgid;
	struct target *target = current_target(&tgid);
	u64 words[3];
	u64 id, state, task = 0;
	bool registered = false;

	if (!target || bpf_probe_read_user(words, sizeof(words), (void *)waker))
		return;
	for (u32 i = 0; i < 3; i++) {
		if (words[i] == target->waker_vtable)
			registered = true;
		else if (words[i] > WAKER_STATES)
			task = words[i];
	}
	if (!registered)
		return; /* nobody waits, or who does is no task */
	id = tokio_id(task, &state);
	if (id)
		tokio_asks(tgid, tokio_current(target), id, state & TOKIO_NOTIFIED);
}

/* tokio::sync::task::AtomicWaker::wake(&self), which whoever sends over a channel of one receiver calls, and few others. */
SEC("uprobe")
int receiver_woken(struct pt_regs *ctx)
{
	uprobe_begins();
	note_ask(ARG_0(ctx));
	uprobe_ends();
	return 0;
}
