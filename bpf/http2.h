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
	FRAME_END_HEADERS = 4,
	FRAME_PADDED = 8,
	FRAME_HAS_PRIORITY = 0x20,
	PRIORITY_SIZE = 5,
	FRAME_USUAL = 1 << 14,
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

/* begins_block says whether a header block's first byte stands for a whole pseudo-field of HPACK's static table: 1 for a
 * request's, 2 for a response's, which come first (RFC 7541, section 6.1 and appendix A; RFC 9113, section 8.3). */
static __always_inline u32 begins_block(u8 byte)
{
	if (byte >= 0x82 && byte <= 0x87)
		return 1;
	return byte >= 0x88 && byte <= 0x8e ? 2 : 0;
}

#endif
