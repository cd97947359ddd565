/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * Where the bytes of a finished call lie, from its struct iov_iter: the iterator stands behind them, so one hook at
 * the end of the call is enough. It works whoever made the call: a system call, io_uring, the kernel itself.
 */
#ifndef ITER_H
#define ITER_H

#include <bpf/bpf_core_read.h>

/* How the bytes of a call, and the array of their segments, are read. */
enum buffer_kind {
	BUFFER_USER,  /* memory of the process; so is the array */
	BUFFER_IOVEC, /* memory of the process; the array is the kernel's */
	BUFFER_KVEC,  /* memory of the kernel */
	BUFFER_BVEC,  /* pages, by struct bio_vec */
};

/* Where the bytes of a call lie. */
struct buffer {
	u64 base;     /* of the bytes, or of an array of segments; 0: they cannot be read */
	u32 segments; /* length of the array; 0: there is none */
	u32 skip;     /* bytes of the first segment that are not the call's */
	u32 kind;     /* enum buffer_kind */
	u32 pad;
};

enum {
	SEGMENTS = 64, /* of a vectored call that are read */
	PAGE_BITS = 12,
};

/* A segment, whatever its kind: iovec, kvec and bio_vec are of one size. */
struct segment {
	u64 base; /* bio_vec: struct page */
	u64 len;  /* bio_vec: the lower half, and the offset in the page in the upper */
};

/* Where the kernel's variables are that say where all struct page begin, and where all memory does; 0: not known. */
const volatile u64 vmemmap_base_at;
const volatile u64 page_offset_base_at;

#if defined(__TARGET_ARCH_x86)
static __always_inline u64 page_address(u64 page)
{
	u64 pages, memory;

	if (!vmemmap_base_at || !page_offset_base_at ||
	    bpf_probe_read_kernel(&pages, sizeof(pages), (void *)vmemmap_base_at) ||
	    bpf_probe_read_kernel(&memory, sizeof(memory), (void *)page_offset_base_at) || page < pages)
		return 0;
	return memory + ((page - pages) / bpf_core_type_size(struct page) << PAGE_BITS);
}
#else
static __always_inline u64 page_address(u64 page)
{
	return 0;
}
#endif

/* read_segment reads the segment at an address; its base is then that of its bytes. False: it cannot be read. */
static __always_inline bool read_segment(struct segment *s, u64 at, u32 kind)
{
	if (kind == BUFFER_USER)
		return !bpf_probe_read_user(s, sizeof(*s), (void *)at);
	if (bpf_probe_read_kernel(s, sizeof(*s), (void *)at))
		return false;
	if (kind == BUFFER_BVEC) {
		u64 memory = page_address(s->base);

		s->base = memory ? memory + (s->len >> 32) : 0;
		s->len = (u32)s->len;
		return memory;
	}
	return true;
}

/* segment_len is the length of the segment at an address of the kernel's. */
static __always_inline u64 segment_len(u64 at, u32 kind)
{
	struct segment s;

	if (bpf_probe_read_kernel(&s, sizeof(s), (void *)at))
		return 0;
	return kind == BUFFER_BVEC ? (u32)s.len : s.len;
}

enum {
	BACK_BITS = 32,
	TOO_FAR = 1 << 30,
};

/*
 * segments_back goes back by n bytes from an offset in the segment at an address: by how many segments, in the upper
 * half of what it returns, and to which offset in that one; TOO_FAR if it is further than SEGMENTS.
 */
__noinline u64 segments_back(u64 at, u64 offset, u32 n, u32 kind)
{
	for (u32 i = 0; i < SEGMENTS; i++) {
		if (n <= offset)
			return (u64)i << BACK_BITS | (u32)(offset - n);
		n -= offset;
		at -= sizeof(struct segment);
		offset = segment_len(at, kind);
	}
	return (u64)TOO_FAR << BACK_BITS;
}

/* iter_buffer finds the n bytes that have gone through the message's iterator. trusted: the verifier knows what msg
 * is. */
static __always_inline struct buffer iter_buffer(struct msghdr *msg, u32 n, const bool trusted)
{
	struct iov_iter___5_13 *old = (void *)&msg->msg_iter;
	struct iov_iter___6_3 *iov = (void *)&msg->msg_iter;
	struct buffer buf = {};
	u64 at, offset, back;
	struct segment s;
	u32 type;

	/* A pointer that the verifier knows for one may not be moved: it is read as a number. */
#define POINTER(field) ((u64)BPF_CORE_READ(msg, msg_iter.field))
#define ITER(field) (trusted ? (u64)msg->msg_iter.field : (u64)BPF_CORE_READ(msg, msg_iter.field))
	if (bpf_core_field_exists(msg->msg_iter.iter_type))
		type = ITER(iter_type);
	else
		type = (trusted ? old->type : BPF_CORE_READ(old, type)) & ~1; /* the direction */
	offset = ITER(iov_offset);
	if (bpf_core_enum_value_exists(enum iter_type, ITER_UBUF) &&
	    type == bpf_core_enum_value(enum iter_type, ITER_UBUF)) {
		buf.base = POINTER(ubuf) + offset - n;
		return buf;
	}
	if (type == bpf_core_enum_value(enum iter_type, ITER_IOVEC)) {
		buf.kind = BUFFER_IOVEC;
		if (bpf_core_field_exists(msg->msg_iter.__iov))
			at = POINTER(__iov);
		else
			at = (u64)BPF_CORE_READ(iov, iov);
	} else if (type == bpf_core_enum_value(enum iter_type, ITER_KVEC)) {
		buf.kind = BUFFER_KVEC;
		at = POINTER(kvec);
	} else if (type == bpf_core_enum_value(enum iter_type, ITER_BVEC)) {
		buf.kind = BUFFER_BVEC;
		at = POINTER(bvec);
	} else {
		return buf;
	}
#undef ITER
#undef POINTER
	back = segments_back(at, offset, n, buf.kind);
	if (back >> BACK_BITS >= SEGMENTS) {
		count(STAT_UNREADABLE);
		return buf;
	}
	at -= (back >> BACK_BITS) * sizeof(s);
	/* Most calls have one segment of the process's memory. */
	if (buf.kind == BUFFER_IOVEC && read_segment(&s, at, BUFFER_IOVEC) && s.len >= (u32)back + (u64)n) {
		buf.kind = BUFFER_USER;
		buf.base = s.base + (u32)back;
		return buf;
	}
	buf.base = at;
	buf.segments = (back >> BACK_BITS) + 1;
	buf.skip = back;
	return buf;
}

#endif
