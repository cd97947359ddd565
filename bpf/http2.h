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
};

enum {
#ifdef OLD_KERNEL /* whose verifier looks at more */
	FRAMES_SKIPPED = 64,
	FRAMES_A_PIECE = 20,
	FRAME_PIECES = 32,
#else
	FRAMES_SKIPPED = 96, /* large DATA frames passed over at once */
	FRAMES_A_PIECE = 24, /* frames in one event at most */
	FRAME_PIECES = 40,   /* events of one call */
#endif
};

/* What a client begins with: "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n". */
static __always_inline bool http2_preface(u64 word)
{
	return word == WORD('P', 'R', 'I', ' ', '*', ' ', 'H', 'T');
}

#endif
