/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
#ifndef EVENTS_MAP_H
#define EVENTS_MAP_H

#include "stats_map.h"

/* n, but no more than max: said in a way that the verifier follows, whatever the compiler has proved. */
static __always_inline u64 at_most(u64 n, const u32 max)
{
	asm volatile("if %0 <= %1 goto +1\n\t%0 = %1" : "+r"(n) : "i"(max));
	return n;
}

/* What happened on connections, in order. Its size is set at load. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 23);
} events SEC(".maps");

/* How the reader of events waits, set by user space through the mapped page. */
enum reader_state {
	READER_AWAKE, /* it will look again by itself, soon */
	READER_IDLE,  /* it sleeps until it is woken: the next event must do so */
};

struct reader {
	u32 state;   /* enum reader_state */
	u32 wake_at; /* bytes in the ring at which a reader that is awake is to be woken early */
	u32 needs;   /* enum need; set by programs */
	u32 pad;
};

/* What is attached when it is needed, because it costs programs that are not traced. */
enum need {
	NEED_SYSCALLS = 1, /* sys_enter, for what the socket tracepoints do not tell */
	NEED_ENTRY =
		2, /* the entry of tcp_recvmsg, which alone knows where the bytes of io_uring and recvmmsg go */
};

/* One element. A wake-up costs some 18 us on the side of the program that is traced, so it is done once
 * for each time that the reader went to sleep, and not for each event. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, u32);
	__type(value, struct reader);
} readers SEC(".maps");

enum {
	QUERY_EVERY = 32, /* events of a processor, after which it looks how full the ring is */
};

/* made is how many events this processor has made. */
static __always_inline u64 wake_flags(u64 made)
{
	u32 zero = 0;
	struct reader *reader = bpf_map_lookup_elem(&readers, &zero);

	if (!reader)
		return BPF_RB_FORCE_WAKEUP;
	if (reader->state == READER_IDLE) {
		reader->state = READER_AWAKE;
		return BPF_RB_FORCE_WAKEUP;
	}
	if (made % QUERY_EVERY == 0 && reader->wake_at &&
	    bpf_ringbuf_query(&events, BPF_RB_AVAIL_DATA) > reader->wake_at) {
		reader->wake_at = 0; /* user space sets it again when it has emptied the ring */
		return BPF_RB_FORCE_WAKEUP;
	}
	return BPF_RB_NO_WAKEUP;
}

static __always_inline void submit(void *event)
{
	bpf_ringbuf_submit(event, wake_flags(count(STAT_EVENTS)));
}

/* needed asks user space to attach what is needed. */
static __always_inline void needed(enum need need)
{
	u32 zero = 0;
	struct reader *reader = bpf_map_lookup_elem(&readers, &zero);

	if (reader && !(reader->needs & need))
		reader->needs |= need;
}

#endif
