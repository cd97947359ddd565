/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * Just enough of HTTP/2 to pass over the bodies: the frames' headers are walked, and everything but the payload of large DATA
 * frames is told. RFC 9113, sections 3.4 and 4.1.
 */
#ifndef HTTP2_H
#define HTTP2_H

#include "http1.h"

enum {
	PREFACE_SIZE = 24,
	FRAME_HEADER = 9,
	FRAME_DATA = 0,
	FRAME_HEADERS = 1,
	FRAME_PRIORITY = 2,
	FRAME_RST_STREAM = 3,
	FRAME_SETTINGS = 4,
	FRAME_PING = 6,
	FRAME_GOAWAY = 7,
	FRAME_WINDOW_UPDATE = 8,
	FRAME_CONTINUATION = 9,
	FRAME_TYPES = 0x20, /* types beyond are nobody's: it is not the header of a frame */
	FRAME_MAX =
		1 << 23, /* as is a length beyond; most endpoints allow 16 KiB, the C core of gRPC 4 MiB */
	DATA_SHOWN = 5,	 /* bytes of a DATA frame that is not told as a whole: the prefix of a gRPC message */
	DATA_LARGE =
		2048, /* one that begins an event leaves no room for others: the event need not be large */
	FRAME_END_STREAM = 1,
	FRAME_ACK = 1,
	FRAME_END_HEADERS = 4,
	FRAME_PADDED = 8,
	FRAME_HAS_PRIORITY = 0x20,
	PRIORITY_SIZE = 5,
	FRAME_USUAL = 1 << 14,
	FRAMES_SURE = 4,  /* usual frames in a row after which it is known where frames begin */
	BLOCK_FIELDS = 6, /* of a header block that are looked at */
};

enum {
#ifdef OLD_KERNEL /* whose verifier looks at more */
	FRAMES_SKIPPED = 64,
	FRAMES_A_PIECE = 20,
	FRAME_PIECES = 32,
#else
	FRAMES_SKIPPED = 64, /* large DATA frames passed over at once */
	FRAMES_A_PIECE = 14, /* frames in one event at most */
	FRAME_PIECES = 60,   /* events of one call */
#endif
};

/* What a client begins with: "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n". */
static __always_inline bool http2_preface(u64 word)
{
	return word == WORD('P', 'R', 'I', ' ', '*', ' ', 'H', 'T');
}

/* begins_preface is http2_preface for n bytes, where nothing else is likely: a server of HTTP/1 may have read the first one already when
 * it says that it switches. */
static __always_inline bool begins_preface(u64 word, u32 n)
{
	u64 mask = n < sizeof(word) ? (1ULL << 8 * n) - 1 : ~0ULL;

	return !((word ^ WORD('P', 'R', 'I', ' ', '*', ' ', 'H', 'T')) & mask);
}

/* usual_frame says whether it may be the header of a frame of the usual size, by its first eight bytes. */
static __always_inline bool usual_frame(u64 word)
{
	u32 length = bpf_ntohl((u32)word) >> 8;
	u8 type = word >> 24, flags = word >> 32, stream = word >> 40;

	return length <= FRAME_USUAL && type <= FRAME_CONTINUATION && !(stream & 0x80) &&
	       !(flags & ~(FRAME_END_STREAM | FRAME_END_HEADERS | FRAME_PADDED | FRAME_HAS_PRIORITY));
}

/* headers_frame says whether it may be the header of a HEADERS frame that is a whole header block, by its first eight bytes: where
 * the block begins, or 0. */
static __always_inline u32 headers_frame(u64 word)
{
	u8 type = word >> 24, flags = word >> 32;

	if (!usual_frame(word) || type != FRAME_HEADERS || !(flags & FRAME_END_HEADERS))
		return 0;
	return FRAME_HEADER + !!(flags & FRAME_PADDED) + (flags & FRAME_HAS_PRIORITY ? PRIORITY_SIZE : 0);
}

/* usual_flags are the flags that a frame of a type may have that is usual in the middle of a connection. */
static __always_inline u32 usual_flags(u32 type)
{
	switch (type) {
	case FRAME_DATA:
		return FRAME_END_STREAM | FRAME_PADDED;
	case FRAME_HEADERS:
		return FRAME_END_STREAM | FRAME_END_HEADERS | FRAME_PADDED | FRAME_HAS_PRIORITY;
	case FRAME_SETTINGS:
	case FRAME_PING:
		return FRAME_ACK;
	case FRAME_CONTINUATION:
		return FRAME_END_HEADERS;
	}
	return 0;
}

enum block_start {
	BLOCK_UNKNOWN,
	BLOCK_REQUEST,
	BLOCK_RESPONSE,
};

/* begins_block says whose pseudo-fields, which come first (RFC 9113, section 8.3), a header block of n bytes begins with, by the first
 * eight of them; what it takes from the dynamic table is passed over (RFC 7541, section 6 and appendix A). */
__noinline u32 begins_block(u64 word, u32 n)
{
	for (u32 i = 0; i < BLOCK_FIELDS; i++) {
		u8 byte = word, next = word >> 8;
		u32 index;

		if (!n)
			return BLOCK_UNKNOWN;
		if (byte >= 0xbe && byte < 0xff) { /* a field of the dynamic table */
			word >>= 8;
			n--;
			continue;
		}
		if (byte == 0xff && next < 0x80) { /* its index takes two bytes */
			if (n < 2)
				return BLOCK_UNKNOWN;
			word >>= 16;
			n -= 2;
			continue;
		}
		if (byte >= 0xc0)
			return BLOCK_UNKNOWN;
		if (byte >= 0x80) {
			index = byte & 0x7f;
		} else if ((byte & 0xe0) == 0x20) { /* a change of the table's size */
			return BLOCK_UNKNOWN;
		} else {
			index = byte & (byte & 0x40 ? 0x3f : 0x0f);
			if (!index) { /* a name as text, as gRPC's C core writes them: its length, then the name */
				u8 first = word >> 16, second = word >> 24;

				if (first == ':')
					return second == 's' ? BLOCK_RESPONSE : BLOCK_REQUEST;
				return BLOCK_UNKNOWN;
			}
		}
		if (index >= 1 && index <= 7)
			return BLOCK_REQUEST;
		return index >= 8 && index <= 14 ? BLOCK_RESPONSE : BLOCK_UNKNOWN;
	}
	return BLOCK_UNKNOWN;
}

#endif
