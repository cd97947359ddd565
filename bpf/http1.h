/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/* Just enough of HTTP/1 to know where a message starts and where its head ends. RFC 9112, section 2.1. */
#ifndef HTTP1_H
#define HTTP1_H

#include "room.h"

#define WORD(a, b, c, d, e, f, g, h)                                                                         \
	((u64)(a) | (u64)(b) << 8 | (u64)(c) << 16 | (u64)(d) << 24 | (u64)(e) << 32 | (u64)(f) << 40 |      \
	 (u64)(g) << 48 | (u64)(h) << 56)

#define FIRST(word, n) ((word) & (~0ULL >> (64 - 8 * (n))))

/* word is the first eight bytes of what moved, zero where there were fewer. Other methods than these are
 * found in user space, which then says that the connection is HTTP. */
static __always_inline bool http1_request(u64 word)
{
	return FIRST(word, 4) == WORD('G', 'E', 'T', ' ', 0, 0, 0, 0) ||
	       FIRST(word, 5) == WORD('P', 'O', 'S', 'T', ' ', 0, 0, 0) ||
	       FIRST(word, 4) == WORD('P', 'U', 'T', ' ', 0, 0, 0, 0) ||
	       FIRST(word, 5) == WORD('H', 'E', 'A', 'D', ' ', 0, 0, 0) ||
	       FIRST(word, 7) == WORD('D', 'E', 'L', 'E', 'T', 'E', ' ', 0) ||
	       FIRST(word, 6) == WORD('P', 'A', 'T', 'C', 'H', ' ', 0, 0) ||
	       word == WORD('O', 'P', 'T', 'I', 'O', 'N', 'S', ' ') ||
	       word == WORD('C', 'O', 'N', 'N', 'E', 'C', 'T', ' ') ||
	       FIRST(word, 6) == WORD('T', 'R', 'A', 'C', 'E', ' ', 0, 0);
}

static __always_inline bool http1_response(u64 word)
{
	return FIRST(word, 7) == WORD('H', 'T', 'T', 'P', '/', '1', '.', 0);
}

/* switches_protocol says whether a response, of which there are twelve bytes at least, says that the connection goes on as something else
 * (RFC 9110, section 15.2.2). */
static __always_inline bool switches_protocol(const u8 *text)
{
	return text[0] == 'H' && text[9] == '1' && text[10] == '0' && text[11] == '1';
}

/* FastCGI 1.0, section 8: version 1, the beginning of a request (1), any id, a body of 8 bytes, no padding. It carries HTTP, and
 * takes turns as HTTP does: to the kernel side it is the same. */
static __always_inline bool fastcgi_request(u64 word)
{
	return (word & ~WORD(0, 0, 0xff, 0xff, 0, 0, 0, 0)) == WORD(1, 1, 0, 0, 0, 8, 0, 0);
}

static __always_inline bool is_request(u64 word)
{
	return http1_request(word) || fastcgi_request(word);
}

/* A stretch of text that is searched at once. */
struct stretch {
	u8 text[128];
};

/*
 * Whether the first n bytes of the stretch hold "\r\n\r\n". Global functions are verified once, and not once
 * for each place and state from which they are called.
 */
#ifdef OLD_KERNEL
__noinline int stretch_has_blank_line(u32 at, u32 n)
{
	struct data_event *e = room(0);
	struct stretch *s;
	const u8 *text;

	if (!e)
		return 0;
	s = (struct stretch *)((u8 *)(e + 1) + at_most(at, ROOM_PAYLOAD - sizeof(*s)));
#else
__noinline int stretch_has_blank_line(struct stretch *s, u32 n)
{
	const u8 *text;

	if (!s)
		return 0;
#endif
	text = s->text;
	for (u32 i = 0; i + 4 <= sizeof(s->text); i += 2) {
		u16 two = *(const u16 *)(text + i);

		if (i + 3 > n)
			break;
		if (two == 0x0a0d) { /* "\r\n": the blank line may start here */
			if (i + 4 <= n && *(const u16 *)(text + i + 2) == 0x0a0d)
				return 1;
		} else if (two == 0x0d0a && i) { /* "\n\r": or have started a byte before */
			if (text[i - 1] == '\r' && text[i + 2] == '\n')
				return 1;
		}
	}
	return 0;
}

/* Whether the n bytes hold the blank line that ends a head; the memory holds max bytes. */
static __always_inline bool has_blank_line(u8 *text, u32 n, const u32 max)
{
	const u32 step = sizeof(struct stretch) - 4; /* even, and the stretches overlap */

	for (u32 off = 0; off < max; off += step) {
		u64 at = at_most(off, max - sizeof(struct stretch));

		if (off + 4 > n)
			break;
#ifdef OLD_KERNEL
		if (stretch_has_blank_line(at, n - at))
			return true;
#else
		if (stretch_has_blank_line((struct stretch *)(text + at), n - at))
			return true;
#endif
	}
	return false;
}

#endif
