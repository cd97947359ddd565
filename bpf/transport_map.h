/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/* The connections of a library's HTTP/2 transports. */
#ifndef TRANSPORT_MAP_H
#define TRANSPORT_MAP_H

struct transport {
	u32 tgid;
	u32 pad;
	u64 address;
};

struct transport_conn {
	u64 key; /* in conns */
	u64 id;
};

/* What a look through the kernel's tables of files has found. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct transport);
	__type(value, struct transport_conn);
} transports SEC(".maps");

#endif
