/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * From 6.13 on (commit a76ab5731e32) programs of the kprobe type have their stack in memory of the processor, as if they
 * were never preempted. Uprobes are, since 6.0 (commit 8c7dcb84e3b7): another one on the same processor would write over
 * the stack of the first. So each of them begins with uprobe_begins and ends with uprobe_ends; nothing is on the stack
 * outside. Before 6.10 the kernel has neither these functions nor such stacks.
 */
#ifndef PREEMPT_H
#define PREEMPT_H

#include <bpf/bpf_helpers.h>

extern void bpf_preempt_disable(void) __ksym __weak;
extern void bpf_preempt_enable(void) __ksym __weak;

static __always_inline void uprobe_begins(void)
{
	if (bpf_preempt_disable)
		bpf_preempt_disable();
}

static __always_inline void uprobe_ends(void)
{
	if (bpf_preempt_enable)
		bpf_preempt_enable();
}

#endif
