/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * Where a data_event is made before it is told, with the bytes that it carries. It is in the ring itself, but for
 * kernels before 5.12: there a function that is verified for itself takes numbers only, so what such functions share
 * is found by them in memory of the processor's own. While a program runs, its processor runs no other there: these
 * kernels, as distributions build them, do not preempt themselves.
 */
#ifndef ROOM_H
#define ROOM_H

#include "events_map.h"

#ifdef OLD_KERNEL
enum { ROOM_PAYLOAD = 4096 };

struct room {
	struct data_event e;
	u8 payload[ROOM_PAYLOAD];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct room);
} rooms SEC(".maps");

static __always_inline struct data_event *room(u32 payload)
{
	u32 zero = 0;
	struct room *r = bpf_map_lookup_elem(&rooms, &zero);

	return r ? &r->e : 0;
}

/* tell gives the event with room for payload bytes to user space; false if there was no room for it. */
static __always_inline bool tell(struct data_event *e, u32 payload)
{
	return !bpf_ringbuf_output(&events, e, sizeof(*e) + payload, wake_flags(count(STAT_EVENTS)));
}
/* discard gives up the event. */
static __always_inline void discard(struct data_event *e)
{
}
#else
static __always_inline struct data_event *room(const u32 payload)
{
	return bpf_ringbuf_reserve(&events, sizeof(struct data_event) + payload, 0);
}

static __always_inline void discard(struct data_event *e)
{
	bpf_ringbuf_discard(e, BPF_RB_NO_WAKEUP);
}

static __always_inline bool tell(struct data_event *e, u32 payload)
{
	submit(e);
	return true;
}
#endif

#endif
