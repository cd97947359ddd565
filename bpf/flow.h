/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * The one logic behind every attachment: bytes move on a connection of a watched process. An attachment
 * fills a struct io and calls on_bytes or on_end.
 *
 * A request is named here, when its first byte passes: where the direction turns on a connection that
 * speaks HTTP, or where the bytes look like the start of a message. A name that turns out to be given in
 * the middle of one (a body after "100 Continue") is put right by the decoder.
 */
#ifndef FLOW_H
#define FLOW_H

#include "conn_map.h"
#include "database.h"
#include "goroutine_map.h"
#include "http2.h"
#include "job.h"
#include "syscall.h"
#include "task_map.h"
#include "thread_map.h"

const volatile u32 head_limit = 16384; /* bytes of a message's head that are captured at most */

enum {
	BODY_HEAD = 24,	      /* first bytes of a piece of body that are captured: a chunk's size is there */
	BODY_TAIL = 8,	      /* last bytes of it: the last chunk ends with "0\r\n\r\n" */
	BODY_CHUNKS = 8,      /* pieces of a body that are reported before it goes quiet */
	REFRESH = 16,	      /* requests after which what the least recently used loses is written anew */
	QUIET_FROM = 65536,   /* a quiet body is reported again where its length doubles, from here on */
	UNKNOWN_TRIES = 128,  /* runs of an unknown protocol that are shown to user space at most */
	UNKNOWN_CALLS = 1024, /* of each run: who types a request sends each byte for itself */
	UNKNOWN_LIMIT = 1024, /* bytes of each run that are shown */
	HEAD_PIECES = 17, /* events for one call: one of MEDIUM and sixteen of LARGE payload hold 64 KiB */
};

/* io is one call that moved bytes, as its attachment saw it. */
struct io {
	u64 key;   /* address of struct sock */
	u64 inode; /* of the socket */
	u64 begin; /* the first byte was on its way; for ingress equal to end */
	u64 end;
	struct buffer buf;
	u32 tgid;
	u32 tid;
	u32 total; /* bytes that moved, more than 0 */
	u32 seq;   /* TCP: of the first of them */
	u8 tcp;
	u8 uring;
};

static __always_inline void lost(struct conn *c)
{
	count(STAT_RING_FULL);
	c->flags |= CONN_LOST;
}

/* copy_flat copies up to cap bytes, from offset off of the call's bytes. */
static __always_inline u32 copy_flat(const struct io *io, u32 off, u8 *to, const u32 cap)
{
	u32 n = io->total - off;

	if (n > cap)
		n = cap;
	if (bpf_probe_read_user(to, at_most(n, cap), (void *)(io->buf.base + off)))
		return 0;
	return n;
}

/* Of twice GATHER_PAYLOAD, the first half is used: the verifier adds the bounds of offset and length. */
struct gathered_text {
	u8 text[2 * GATHER_PAYLOAD];
};

/* gathering is a walk over the segments of a vectored call. */
struct gathering {
	u64 base;
	u64 from;  /* offset of the first byte that is wanted */
	u64 left;  /* of the call's bytes: those in the segment at base and behind it */
	u32 got;   /* bytes copied */
	u32 limit; /* bytes wanted, at most GATHER_PAYLOAD */
	u32 kind;  /* enum buffer_kind */
	u32 to;	   /* where in the payload of the event */
};

/* telling is a call that is about to be told to user space, and what is known of it by then. */
struct telling {
	struct io io;
	struct goids ids;
	u32 flags; /* enum event_flag */
	u32 off;   /* bytes told so far */
	u32 at;	   /* HTTP/2: of the call's bytes, where io.buf begins */
	u64 sp;	   /* of who makes the call: what struct call_regs says */
	u64 g;
	u64 java;
	u64 word; /* the first of the bytes; 0: not looked at */
	u8 dir;
	u8 turn;   /* the other direction's bytes were the last */
	u8 start;  /* a message begins */
	u8 asks;   /* it is the direction of requests */
	u8 answer; /* it is that of answers, from a database, and they can be read */
	u8 calls;  /* it is that of requests, or may be */
	u8 looks;  /* which task runs is looked at */
};

/* STEP is a function of what is told and its connection that is verified for itself: what comes before it does not multiply what is
 * looked at within, and its stack is free again after it. CALL_STEP is one that is told of the process and the thread as well. */
#ifdef OLD_KERNEL
struct work {
	struct telling t;
	struct gathering g;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct work);
} works SEC(".maps");

static __always_inline struct work *work(void)
{
	u32 zero = 0;

	return bpf_map_lookup_elem(&works, &zero);
}

static __always_inline struct conn *conn_told(struct work *w)
{
	u64 key = w ? w->t.io.key : 0;

	return bpf_map_lookup_elem(&conns, &key);
}

#define STEP(name) __noinline int name(u32 unused)
#define STEP_WORK                                                                                            \
	/* Else the compiler does not set what nobody reads, and the verifier refuses the call. */           \
	asm volatile("" ::"r"(unused));                                                                      \
	struct work *w = work();                                                                             \
	struct conn *c = conn_told(w);                                                                       \
	struct telling *t = w ? &w->t : 0
#define DO_STEP(name, t, c) name(0)
#define CALL_STEP(name) STEP(name)
#define CALL_WORK                                                                                            \
	STEP_WORK;                                                                                           \
	struct target *target = t ? target_of(t->io.tgid) : 0
#define CALL_THREAD struct thread *thread = t ? thread_find(0, t->io.tid) : 0
#define DO_CALL_STEP(name, t, c, target, thread) name(0)
#define GATHER_STEP(name) __noinline int name(u32 unused)
#define GATHER_WORK                                                                                          \
	struct work *w = work();                                                                             \
	struct gathering *g = w ? &w->g : 0;                                                                 \
	struct data_event *e = room(0);                                                                      \
	struct gathered_text *to = e && g ? (void *)((u8 *)(e + 1) + at_most(g->to, BODY_HEAD)) : 0
#define DO_GATHER(name, g, to) name(0)
#define NEW_GATHERING(g)                                                                                     \
	struct work *gathering_work = work();                                                                \
	struct gathering *g = &gathering_work->g;                                                            \
	if (!gathering_work)                                                                                 \
	return 0
#define NEW_TELLING(t, thread)                                                                               \
	struct work *telling_work = work();                                                                  \
	struct telling *t = &telling_work->t;                                                                \
	if (!telling_work)                                                                                   \
		return 0;                                                                                    \
	__builtin_memset(t, 0, sizeof(*t))
#else
#define STEP(name) __noinline int name(struct telling *t, struct conn *c)
#define STEP_WORK
#define DO_STEP(name, t, c) name(t, c)
#define CALL_STEP(name)                                                                                      \
	__noinline int name(struct telling *t, struct conn *c, struct target *target, struct thread *thread)
#define CALL_WORK asm volatile("" ::"r"(target), "r"(thread)) /* as above */
#define CALL_THREAD
#define DO_CALL_STEP(name, t, c, target, thread) name(t, c, target, thread)
#define GATHER_STEP(name) __noinline int name(struct gathering *g, struct gathered_text *to)
#define GATHER_WORK
#define DO_GATHER(name, g, to) name(g, to)
#define NEW_GATHERING(g)                                                                                     \
	struct gathering gathering_memory;                                                                   \
	struct gathering *g = &gathering_memory
#define NEW_TELLING(t, thread)                                                                               \
	struct telling *t = (void *)(thread)->telling;                                                       \
	_Static_assert(sizeof(*t) == sizeof((thread)->telling), "TELLING_WORDS");                            \
	__builtin_memset(t, 0, sizeof(*t))
#endif

/* gather_segment copies what is wanted of one segment, and goes to the next; false at the end. */
GATHER_STEP(gather_segment)
{
	GATHER_WORK;
	struct segment seg;
	u64 got, len;

	if (!g || !to || !g->left || g->got >= g->limit || !read_segment(&seg, g->base, g->kind))
		return 0;
	g->base += sizeof(seg);
	len = seg.len < g->left ? seg.len : g->left;
	g->left -= len;
	if (g->from >= len) {
		g->from -= len;
		return 1;
	}
	len -= g->from;
	if (len > g->limit - g->got)
		len = g->limit - g->got;
	len = at_most(len, GATHER_PAYLOAD);
	got = at_most(g->got, GATHER_PAYLOAD);
	if (g->kind == BUFFER_USER || g->kind == BUFFER_IOVEC) {
		if (bpf_probe_read_user(to->text + got, len, (void *)(seg.base + g->from)))
			return 0;
	} else if (bpf_probe_read_kernel(to->text + got, len, (void *)(seg.base + g->from))) {
		return 0;
	}
	g->from = 0;
	g->got = got + len;
	return 1;
}

/* gather copies up to limit of total bytes that lie in segments, from offset from on, to an offset of the payload. */
static __always_inline u32 gather(const struct buffer *buf, u32 total, u32 from, u32 limit, u8 *payload,
				  const u32 to)
{
	NEW_GATHERING(g);

	*g = (struct gathering){
		.base = buf->base,
		.from = (u64)from + buf->skip,
		.left = (u64)total + buf->skip,
		.limit = limit,
		.kind = buf->kind,
		.to = to,
	};
	for (u32 i = 0; i < SEGMENTS; i++) {
		if (i >= buf->segments ||
		    !DO_GATHER(gather_segment, g, (struct gathered_text *)(payload + to)))
			break;
	}
	return g->got;
}

/* segments_start is first_bytes for a vectored call whose first segments may be short; where is skip of struct
 * buffer in the upper half, and kind. */
__noinline u64 segments_start(u64 base, u32 segments, u32 total, u64 where)
{
	u32 kind = where;
	u64 skip = where >> 32;
	u64 word = 0;
	u32 got = 0;

	for (u32 i = 0; i < sizeof(word); i++) {
		struct segment seg;
		u64 n;

		if (i >= segments || got >= sizeof(word) || got >= total ||
		    !read_segment(&seg, base + i * sizeof(seg), kind))
			break;
		n = seg.len - skip < total - got ? seg.len - skip : total - got;
		/* Byte by byte: at a variable offset of the stack the verifier allows nothing else. */
		for (u32 j = 0; j < sizeof(word); j++) {
			void *from = (void *)(seg.base + skip + j);
			u8 byte = 0;

			if (j >= n || got >= sizeof(word))
				break;
			if (kind == BUFFER_USER || kind == BUFFER_IOVEC)
				bpf_probe_read_user(&byte, 1, from);
			else
				bpf_probe_read_kernel(&byte, 1, from);
			word |= (u64)byte << (8 * got);
			got++;
		}
		skip = 0;
	}
	return word;
}

/* first_bytes is the start of what moved, zero-padded; enough to tell a message's start. */
static __always_inline u64 first_bytes(const struct io *io)
{
	u64 word = 0;
	u64 n = io->total < sizeof(word) ? io->total : sizeof(word);

	if (!io->buf.base)
		return 0;
	if (io->buf.segments)
		return segments_start(io->buf.base, io->buf.segments, io->total,
				      (u64)io->buf.skip << 32 | io->buf.kind);
	if (bpf_probe_read_user(&word, at_most(n, sizeof(word)), (void *)io->buf.base))
		return 0;
	return word;
}

/* word_at reads eight of the bytes that moved, if they lie in the first segment; else 0. */
static __always_inline u64 word_at(const struct io *io, u32 off)
{
	u64 base = io->buf.base;
	u64 word = 0;

	if (io->buf.segments) {
		struct segment seg;

		if (!read_segment(&seg, base, io->buf.kind) ||
		    (u64)off + io->buf.skip + sizeof(word) > seg.len)
			return 0;
		base = seg.base + io->buf.skip;
		if (io->buf.kind != BUFFER_USER && io->buf.kind != BUFFER_IOVEC) {
			bpf_probe_read_kernel(&word, sizeof(word), (void *)(base + off));
			return word;
		}
	} else if (off + sizeof(word) > io->total) {
		return 0;
	}
	bpf_probe_read_user(&word, sizeof(word), (void *)(base + off));
	return word;
}

/* meets finds out what a connection speaks, by bytes that say so: of one that was open before, a whole block of HTTP/2's header
 * fields; of a new one, how those to databases begin. */
static __always_inline void meets(const struct telling *t, struct conn *c, const u32 dir)
{
	u32 block, begins, side, length;

	if (!(c->flags & CONN_ESTABLISHED)) {
		side = c->pos[dir] ? DATABASE_NONE : database_start(t->word);
		if (side == DATABASE_NONE)
			return;
		c->protocol = PROTOCOL_TURNS;
		c->role = (side == DATABASE_ASKS) == (dir == DIR_INGRESS) ? ROLE_SERVER : ROLE_CLIENT;
		c->ends = 1;
		return;
	}
	c->flags &= ~CONN_FRAMES;
	if (usual_frame(t->word))
		c->flags |= CONN_FRAMES;
	block = headers_frame(t->word);
	length = FRAME_HEADER + (bpf_ntohl(t->word) >> 8);
	if (!block || block >= length || length > t->io.total)
		return;
	begins = begins_block(word_at(&t->io, block), length - block);
	if (begins)
		speaks_http2(c,
			     (begins == BLOCK_REQUEST) == (dir == DIR_INGRESS) ? ROLE_SERVER : ROLE_CLIENT);
}

static __always_inline void fill(struct data_event *e, const struct telling *t, struct conn *c)
{
	const struct io *io = &t->io;
	u32 flags = t->flags;

	e->hdr = header(EVENT_DATA, io->tgid, io->end);
	e->begin = io->begin;
	e->conn = c->id;
	e->pos = c->pos[t->dir & 1] + t->off;
	e->request = c->request;
	e->cause = c->cause;
	e->task = t->ids.id;
	e->parent_task = t->ids.parent;
	e->tid = io->tid;
	e->total = io->total - t->off;
	e->seq = io->seq + t->off;
	e->captured = 0;
	e->tail = 0;
	e->dir = t->dir;
	e->pad = 0;
	if (c->flags & (CONN_LOST | CONN_UNTOLD)) {
		flags |= c->flags & CONN_LOST ? FLAG_LOST : FLAG_LOST | FLAG_UNTOLD;
		c->flags &= ~(CONN_LOST | CONN_UNTOLD);
	}
	if (io->tcp)
		flags |= FLAG_HAS_SEQ;
	if (io->uring)
		flags |= FLAG_URING;
	if (c->protocol == PROTOCOL_HTTP2)
		flags |= c->role == ROLE_SERVER ? FLAG_HTTP2_SERVER : FLAG_HTTP2_CLIENT;
	e->flags = flags;
}

static __always_inline void unreadable(struct data_event *e)
{
	count(STAT_UNREADABLE);
	e->flags |= FLAG_UNREADABLE;
}

/* report_segments is report for a vectored call. */
STEP(report_segments)
{
	STEP_WORK;
	const struct buffer *buf;
	struct data_event *e;
	u8 *payload;
	u32 total;

	if (!t || !c)
		return 0;
	e = room(BODY_HEAD + sizeof(struct gathered_text));
	if (!e)
		goto full;
	payload = (u8 *)(e + 1);
	total = t->io.total;
	buf = &t->io.buf;
	fill(e, t, c);
	if (total > BODY_HEAD + BODY_TAIL) {
		e->captured = gather(buf, total, 0, BODY_HEAD, payload, 0);
		if (e->captured == BODY_HEAD)
			e->tail = gather(buf, total, total - BODY_TAIL, BODY_TAIL, payload, BODY_HEAD);
	} else {
		e->captured = gather(buf, total, 0, BODY_HEAD + BODY_TAIL, payload, 0);
	}
	if (!e->captured)
		unreadable(e);
	if (!tell(e, BODY_HEAD + sizeof(struct gathered_text)))
		goto full;
	c->told[t->dir & 1] = c->pos[t->dir & 1] + total;
	return 1;
full:
	lost(c);
	return 0;
}

/* report tells of a call that holds a body, or a part of it, with its first and last bytes. False: there was no
 * room. */
STEP(report)
{
	STEP_WORK;
	struct data_event *e;
	u8 *payload;
	u32 total;

	if (!t || !c)
		return 0;
	e = room(SMALL_PAYLOAD);
	if (!e)
		goto full;
	payload = (u8 *)(e + 1);
	total = t->io.total;
	fill(e, t, c);
	if (t->io.buf.base) {
		if (total > BODY_HEAD + BODY_TAIL) {
			e->captured = copy_flat(&t->io, 0, payload, BODY_HEAD);
			if (e->captured && !bpf_probe_read_user(payload + BODY_HEAD, BODY_TAIL,
								(void *)(t->io.buf.base + total - BODY_TAIL)))
				e->tail = BODY_TAIL;
		} else {
			e->captured = copy_flat(&t->io, 0, payload, BODY_HEAD + BODY_TAIL);
		}
		if (!e->captured)
			unreadable(e);
	}
	if (!tell(e, SMALL_PAYLOAD))
		goto full;
	c->told[t->dir & 1] = c->pos[t->dir & 1] + total;
	return 1;
full:
	lost(c);
	return 0;
}

/* report_answer tells of a piece of a database's answer, with its first and last bytes. False: there was no room. */
STEP(report_answer)
{
	STEP_WORK;
	struct data_event *e;
	u32 total, size;
	u8 *payload;

	if (!t || !c)
		return 0;
	total = t->io.total;
	if (t->io.buf.segments) { /* few read so: the end is not looked for */
		size = sizeof(struct gathered_text);
		e = room(sizeof(struct gathered_text));
		if (!e)
			goto full;
		fill(e, t, c);
		e->captured = gather(&t->io.buf, total, 0, GATHER_PAYLOAD, (u8 *)(e + 1), 0);
	} else {
		size = MEDIUM_PAYLOAD;
		e = room(MEDIUM_PAYLOAD);
		if (!e)
			goto full;
		payload = (u8 *)(e + 1);
		fill(e, t, c);
		e->captured = copy_flat(&t->io, 0, payload, ANSWER_HEAD);
		if (e->captured == ANSWER_HEAD && total > ANSWER_HEAD) {
			u64 rest = total - ANSWER_HEAD;

			rest = at_most(rest, ANSWER_TAIL);
			if (!bpf_probe_read_user(payload + ANSWER_HEAD, rest,
						 (void *)(t->io.buf.base + total - rest)))
				e->tail = rest;
		}
	}
	if (!e->captured)
		unreadable(e);
	if (!tell(e, size))
		goto full;
	c->told[t->dir & 1] = c->pos[t->dir & 1] + total;
	return 1;
full:
	lost(c);
	return 0;
}

/* over says whether a piece of an answer looks like its end. */
static __always_inline bool over(const struct io *io)
{
	struct answer_end end = {};

	if (io->total < ANSWER_END || io->buf.segments)
		return 1;
	return !bpf_probe_read_user(&end, sizeof(end), (void *)(io->buf.base + io->total - ANSWER_END)) &&
	       ends_answer(&end);
}

/* ends_in_blank_line is the cheap case: everything that moved was captured, and is no more than a head. */
static __always_inline bool ends_in_blank_line(const u8 *text, u32 n, const u32 cap)
{
	return n >= 4 && *(const u32 *)(text + at_most(n - 4, cap - 4)) == 0x0a0d0a0d;
}

/* tell_head tells of a part of a message's head, from offset t->off. False: there was no room. */
STEP(tell_head)
{
	STEP_WORK;
	struct data_event *e;
	bool ends;
	u8 *text;
	u32 left;
	u32 size;
	u32 n;

	if (!t || !c)
		return 0;
	left = t->io.total - t->off;
	if (t->io.buf.segments) {
		size = sizeof(struct gathered_text);
		e = room(sizeof(struct gathered_text));
		if (!e)
			goto full;
		text = (u8 *)(e + 1);
		n = gather(&t->io.buf, t->io.total, t->off, GATHER_PAYLOAD, text, 0);
		ends = n == left ? ends_in_blank_line(text, n, GATHER_PAYLOAD)
				 : has_blank_line(text, n, GATHER_PAYLOAD);
	} else if (left <= SMALL_PAYLOAD) {
		size = SMALL_PAYLOAD;
		e = room(SMALL_PAYLOAD);
		if (!e)
			goto full;
		text = (u8 *)(e + 1);
		n = copy_flat(&t->io, t->off, text, SMALL_PAYLOAD);
		ends = ends_in_blank_line(text, n, SMALL_PAYLOAD);
	} else if (left <= MEDIUM_PAYLOAD || (!t->asks && !t->off)) {
		/* An answer's body follows its head: look whether the head is small. */
		size = MEDIUM_PAYLOAD;
		e = room(MEDIUM_PAYLOAD);
		if (!e)
			goto full;
		text = (u8 *)(e + 1);
		n = copy_flat(&t->io, t->off, text, MEDIUM_PAYLOAD);
		ends = n == left ? ends_in_blank_line(text, n, MEDIUM_PAYLOAD)
				 : has_blank_line(text, n, MEDIUM_PAYLOAD);
	} else {
		size = LARGE_PAYLOAD;
		e = room(LARGE_PAYLOAD);
		if (!e)
			goto full;
		text = (u8 *)(e + 1);
		n = copy_flat(&t->io, t->off, text, LARGE_PAYLOAD);
		ends = n == left ? ends_in_blank_line(text, n, LARGE_PAYLOAD)
				 : has_blank_line(text, n, LARGE_PAYLOAD);
	}
	fill(e, t, c);
	e->captured = n;
	if (!n) {
		unreadable(e);
		c->head_left = 0;
	}
	if (c->ends)
		ends = false; /* a statement has blank lines where it likes */
	c->head_left = ends || n >= c->head_left ? 0 : c->head_left - n;
	if (c->head_left)
		e->total = n;
	if (!t->asks && !t->off && n >= 12 && !c->ends && switches_protocol(text)) {
		c->flags |= CONN_SWITCHED;
		c->protocol = PROTOCOL_UNKNOWN;
		c->tries = c->chunks = 0;
		c->head_left = head_limit;
	}
	t->off += e->total;
	t->flags &= ~FLAG_NAMED;
	if (!tell(e, size))
		goto full;
	c->told[t->dir & 1] = c->pos[t->dir & 1] + t->off;
	return 1;
full:
	lost(c);
	return 0;
}

/*
 * tell_message tells of a call that holds a message's head, or a part of it, with all of the head: in as
 * many events as it takes, until the blank line or the limit. False: not even the first had room.
 */
static __always_inline bool tell_message(struct telling *t, struct conn *c)
{
	for (u32 i = 0; i < HEAD_PIECES; i++) {
		if (!DO_STEP(tell_head, t, c))
			break;
		if (t->off >= t->io.total)
			break;
	}
	return t->off > 0;
}

/* frames_lost is called where it is not known any more where frames begin. */
static __always_inline void frames_lost(struct frames *f)
{
	f->lost = 1;
	f->usual = 0;
	count(STAT_FRAMES_LOST);
}

/* continue_header takes what is missing of a frame's header of which the last call had the beginning; false if there is still
 * not all of it. */
static __always_inline bool continue_header(struct frames *f, const u8 *text, u32 n)
{
	u32 have = at_most(f->have, FRAME_HEADER);
	u32 missing = FRAME_HEADER - have;

	for (u32 j = 0; j < FRAME_HEADER; j++) {
		if (j >= missing || j >= n)
			break;
		f->header[at_most(have + j, sizeof(f->header) - 1)] = text[j];
	}
	if (n < missing) {
		f->have = have + n;
		return false;
	}
	f->have = 0;
	f->word = bpf_ntohl(*(u32 *)f->header);
	f->flags = f->header[4];
	f->stream = *(u32 *)(f->header + 5) & bpf_htonl(~(1U << 31));
	f->body = missing;
	return true;
}

/* is_frame says whether it can be the header of a frame: whether it is of a stream or of the connection, and how long it is,
 * follows from its type (RFC 9113, section 6). */
__noinline int is_frame(u32 length, u32 type, u32 stream)
{
	if (length > FRAME_MAX || type >= FRAME_TYPES)
		return false;
	switch (type) {
	case FRAME_DATA:
	case FRAME_HEADERS:
	case FRAME_CONTINUATION:
		return !!stream;
	case FRAME_PRIORITY:
		return stream && length == 5;
	case FRAME_RST_STREAM:
		return stream && length == 4;
	case FRAME_SETTINGS:
	case FRAME_GOAWAY:
		return !stream;
	case FRAME_PING:
		return !stream && length == 8;
	case FRAME_WINDOW_UPDATE:
		return length == 4;
	}
	return true;
}

/* is_usual says whether it is one of those that a connection may well go on with, while it is not sure where frames begin. Most that are
 * no frames are not. */
__noinline int is_usual(u32 length, u32 type, u32 flags, u32 stream)
{
	if (length > FRAME_USUAL || flags & ~usual_flags(type))
		return false;
	/* A client's streams are odd; the last bit comes last on the wire. */
	return type != FRAME_HEADERS || !!(stream & bpf_htonl(1));
}

/* pass goes over the frame; false: the piece ends here. */
static __always_inline bool pass(struct frames *f, u32 n, bool all)
{
	u32 length = f->word >> 8;
	u32 type = f->word & 0xff;
	u32 next = f->body + length;

	if (!is_frame(length, type, f->stream) ||
	    (f->usual < FRAMES_SURE && !is_usual(length, type, f->flags, f->stream))) {
		frames_lost(f);
		f->captured = f->next = f->p;
		return false;
	}
	if (f->usual < FRAMES_SURE)
		f->usual++;
	if (type != FRAME_PRIORITY && type != FRAME_PING && type != FRAME_WINDOW_UPDATE)
		f->worth = 1;
	if (type == FRAME_DATA && next > n) {
		f->captured = f->body + DATA_SHOWN < n ? f->body + DATA_SHOWN : n;
		f->next = next;
		return false;
	}
	if (next > n && !all && f->p) {
		f->captured = f->next = f->p; /* it is told with the next piece */
		return false;
	}
	f->p = next;
	if (next <= n)
		return true;
	f->captured = f->next = n;
	f->left = next - n;
	f->shown = 1;
	return false;
}

/* walk_frames looks at the n bytes of text, in memory of max bytes, from where the frames' state says; all: the call has
 * no more. It leaves the state as it is at the next piece. */
static __always_inline void walk_frames(struct frames *f, const u8 *text, u32 n, bool all, const u32 max)
{
	u32 rest;

	f->worth = f->left || f->have;
	f->p = f->left;
	f->left = 0;
	f->shown = 0;
	if (f->p > n) {
		f->captured = f->next = n;
		f->left = f->p - n;
		f->shown = 1;
		return;
	}
	if (f->have) {
		if (!continue_header(f, text, n)) {
			f->captured = f->next = n;
			return;
		}
		if (!pass(f, n, all))
			return;
	}
	for (u32 i = 0; i < FRAMES_A_PIECE; i++) {
		u32 p = f->p;

		if (p + FRAME_HEADER > n || p > max - 16) /* the latter: it is told with the next piece */
			break;
		p = at_most(p, max - 16);
		f->word = bpf_ntohl(*(const u32 *)(text + p));
		f->flags = text[p + 4];
		f->stream = *(const u32 *)(text + p + 5) & bpf_htonl(~(1U << 31));
		f->body = p + FRAME_HEADER;
		if (!pass(f, n, all))
			return;
	}
	f->captured = f->next = f->p;
	rest = n - f->p;
	if (!all || rest >= FRAME_HEADER || !rest)
		return;
	f->have = rest;
	for (u32 j = 0; j < FRAME_HEADER; j++) {
		if (j >= rest)
			break;
		f->header[j] = text[at_most(f->p + j, max - 1)];
	}
	f->captured = f->next = n;
	f->worth = 1;
}

/* advance has the segments of the call begin with the one in which its next bytes are that are looked at, as far as it sees. */
STEP(advance)
{
	STEP_WORK;
	struct buffer *buf;

	if (!t || !c)
		return 0;
	buf = &t->io.buf;
	for (u32 i = 0; i < SEGMENTS; i++) {
		u32 ahead = t->off - t->at;
		struct segment seg;
		u64 rest;

		if (!ahead || !buf->segments || !read_segment(&seg, buf->base, buf->kind))
			break;
		rest = seg.len - buf->skip;
		if (ahead < rest) {
			buf->skip += ahead;
			t->at = t->off;
			break;
		}
		t->at += rest;
		buf->base += sizeof(seg);
		buf->segments--;
		buf->skip = 0;
	}
	return 1;
}

/* next_frame reads length and type, and flags, of the frame that is next; 0: it cannot be read. */
static __always_inline u64 next_frame(struct telling *t, struct conn *c)
{
	const struct buffer *buf = &t->io.buf;
	u64 word = 0;

	if (!buf->segments) {
		bpf_probe_read_user(&word, sizeof(word), (void *)(buf->base + t->off));
		return word;
	}
	DO_STEP(advance, t, c);
	return t->at == t->off ? segments_start(buf->base, buf->segments, t->io.total - t->off,
						(u64)buf->skip << 32 | buf->kind)
			       : 0;
}

static __always_inline bool is_large_data(u64 word)
{
	u32 head = bpf_ntohl(word);

	return word && (head & 0xff) == FRAME_DATA && head >> 8 > DATA_LARGE;
}

/* begins_large says that a large DATA frame is next, in a call that is not vectored. */
static __always_inline bool begins_large(const struct telling *t)
{
	u64 word = 0;

	bpf_probe_read_user(&word, sizeof(word), (void *)(t->io.buf.base + t->off));
	return is_large_data(word);
}

/* skip_data passes over large DATA frames with which no stream ends: nothing is told of them. */
STEP(skip_data)
{
	STEP_WORK;
	struct frames *f;

	if (!t || !c)
		return 0;
	f = &c->frames[t->dir & 1];
	for (u32 i = 0; i < FRAMES_SKIPPED; i++) {
		u32 left = t->io.total - t->off;
		u64 word;
		u32 next;

		if (left < FRAME_HEADER)
			break;
		word = next_frame(t, c);
		if (!is_large_data(word) || (word >> 32) & FRAME_END_STREAM)
			break;
		next = FRAME_HEADER + (bpf_ntohl(word) >> 8);
		if (next >= left) {
			f->left = next - left;
			t->off = t->io.total;
			break;
		}
		t->off += next;
	}
	return 1;
}

/* tell_frames tells of a piece of a call with frames, from offset t->off, which it moves on. False: there was no room. */
STEP(tell_frames)
{
	STEP_WORK;
	struct data_event *e;
	struct frames *f;
	u32 left, size, n;
	u8 *text;

	if (!t || !c)
		return 0;
	left = t->io.total - t->off;
	f = &c->frames[t->dir & 1];
	if (t->io.buf.segments) {
		size = sizeof(struct gathered_text);
		e = room(sizeof(struct gathered_text));
		if (!e)
			goto full;
		text = (u8 *)(e + 1);
		n = t->at == t->off ? gather(&t->io.buf, left, 0, GATHER_PAYLOAD, text, 0) : 0;
		n = at_most(n, GATHER_PAYLOAD);
		walk_frames(f, text, n, n == left, GATHER_PAYLOAD);
	} else if (left <= MEDIUM_PAYLOAD || (!f->left && !f->have && begins_large(t))) {
		size = MEDIUM_PAYLOAD;
		e = room(MEDIUM_PAYLOAD);
		if (!e)
			goto full;
		text = (u8 *)(e + 1);
		n = copy_flat(&t->io, t->off, text, MEDIUM_PAYLOAD);
		walk_frames(f, text, n, n == left, MEDIUM_PAYLOAD);
	} else {
		size = LARGE_PAYLOAD;
		e = room(LARGE_PAYLOAD);
		if (!e)
			goto full;
		text = (u8 *)(e + 1);
		n = copy_flat(&t->io, t->off, text, LARGE_PAYLOAD);
		walk_frames(f, text, n, n == left, LARGE_PAYLOAD);
	}
	if (!n) {
		frames_lost(f);
		f->worth = 1; /* that it could not be read */
	}
	fill(e, t, c);
	e->captured = e->total = f->captured;
	if (!n)
		unreadable(e);
	t->off += f->next;
	if (f->next > left) {
		f->left = f->next - left;
		t->off = t->io.total;
	}
	if (!f->worth || (!f->captured && n)) {
		f->shown = 0;		  /* nor is what is left of its last frame */
		if (e->flags & FLAG_LOST) /* it is still to be told */
			c->flags |= e->flags & FLAG_UNTOLD ? CONN_UNTOLD : CONN_LOST;
		discard(e);
		return 1;
	}
	if (!tell(e, size))
		goto full;
	c->told[t->dir & 1] = c->pos[t->dir & 1] + t->off;
	return 1;
full:
	f->lost = 1;
	lost(c);
	return 0;
}

/* on_frames tells of a call's frames of HTTP/2. */
STEP(on_frames)
{
	STEP_WORK;
	struct frames *f;

	if (!t || !c)
		return 0;
	f = &c->frames[t->dir & 1];
	if (!t->io.buf.base && !f->lost && !f->have && f->left >= t->io.total) {
		f->left -= t->io.total; /* a body that sendfile moves */
		return 0;
	}
	if (f->lost || !t->io.buf.base) {
		/* The call is taken to begin with a frame. If it does not, that shows most often. */
		f->left = f->have = f->shown = f->lost = 0;
		c->flags |= CONN_UNTOLD;
		if (!t->io.buf.base) {
			frames_lost(f);
			return 0;
		}
	}
	if (f->left && !f->shown) {
		u32 skip = f->left < t->io.total ? f->left : t->io.total;

		f->left -= skip;
		t->off = skip;
	}
	for (u32 i = 0; i < FRAME_PIECES; i++) {
		if (!f->left && !f->have)
			DO_STEP(skip_data, t, c);
		if (t->off >= t->io.total)
			return 0;
		if (t->io.buf.segments)
			DO_STEP(advance, t, c);
		if (!DO_STEP(tell_frames, t, c) || f->lost)
			return 0;
	}
	if (t->off < t->io.total)
		frames_lost(f);
	return 0;
}

/* goroutine_calls finds for whom a goroutine makes a call that it writes itself, and returns the flags of that. A function of its own,
 * for the sake of the stack. */
static __noinline u32 goroutine_calls(u32 tgid, struct conn *c, const struct goids *ids)
{
	u32 flags = 0;

	c->cause = ids->id ? goroutine_request(tgid, *ids, &flags) : 0;
	/* A connection's own writer descends from whoever opened it: that says something of the first call at most. Databases'
	 * drivers have none: who asks writes. */
	if ((flags & FLAG_CAUSE_INHERITED) && c->names > 1 && !c->ends)
		c->cause = 0;
	return flags;
}

/* name_call names a call: who makes it, and on whose behalf. */
static __always_inline u32 name_call(const struct io *io, struct conn *c, struct target *target,
				     struct thread *thread, struct goids *ids, u64 task)
{
	new_request(c);
	if (task && !io->uring) {
		c->cause = target->flags & TARGET_NODE	   ? node_call()
			   : target->flags & TARGET_PYTHON ? context_calls(io->tgid, &task, c, thread)
			   : target->flags & TARGET_TOKIO  ? tokio_call(task, c->request)
							   : task_request(io->tgid, task);
		c->flags &= ~CONN_NOTED;
		if (target->flags & TARGET_NODE && node_doubts())
			return 0; /* user space finds whether it is so */
		ids->id = task;
		return FLAG_CAUSE_TASK;
	}
	if (c->flags & CONN_NOTED) {
		c->flags &= ~CONN_NOTED;
		c->cause = c->noted;
		if (c->noted_task) {
			ids->id = c->noted_task;
			ids->parent = c->noted_parent;
		}
		if (c->cause)
			return c->noted_flags;
		if (c->noted_flags & FLAG_CAUSE_GOROUTINE)
			return c->noted_flags;
	}
	if (io->uring) {
		/* What was read last says nothing: the program asked for it at another time. */
		c->cause = 0;
		return 0;
	}
	if (target->flags & TARGET_GO)
		return goroutine_calls(io->tgid, c, ids);
	c->cause = thread->request;
	return 0;
}

/* catch_up tells how far the other direction came while it was quiet. */
static __always_inline void catch_up(struct conn *c, const u32 dir)
{
	struct progress_event *e;

	if (c->told[dir] >= c->pos[dir] || !(c->flags & CONN_ANNOUNCED))
		return;
	e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
	if (!e) {
		lost(c);
		return;
	}
	e->hdr = header(EVENT_PROGRESS, c->tgid, c->last[dir]);
	e->conn = c->id;
	e->pos = c->pos[dir];
	e->dir = dir;
	e->pad = 0;
	c->told[dir] = c->pos[dir];
	submit(e);
}

/* follow_sequence finds bytes that moved unseen (splice, io_uring): they show in TCP's own count. A FIN counts as one. */
static __always_inline void follow_sequence(const struct io *io, struct conn *c, const u32 dir)
{
	u32 skipped = io->seq - c->seq[dir];

	if (c->last[dir] && skipped > 1 && skipped < 1U << 31) {
		struct frames *f = &c->frames[dir];

		c->pos[dir] += skipped;
		if (f->left >= skipped && !f->shown)
			f->left -= skipped;
		else if (c->protocol == PROTOCOL_HTTP2)
			frames_lost(f);
	}
	c->seq[dir] = io->seq + io->total;
}

/* is_decided has the connection speak what user space has found that it does. */
static __always_inline void is_decided(struct conn *c, u32 verdict)
{
	u32 role = verdict == VERDICT_HTTP_SERVER || verdict == VERDICT_HTTP2_SERVER ||
				   verdict == VERDICT_DATABASE_SERVER
			   ? ROLE_SERVER
			   : ROLE_CLIENT;

	if (c->head_left)
		c->head_left = head_limit;
	if (verdict == VERDICT_HTTP2_SERVER || verdict == VERDICT_HTTP2_CLIENT) {
		speaks_http2(c, role);
		return;
	}
	c->protocol = PROTOCOL_TURNS;
	c->role = role;
	c->ends = verdict > VERDICT_OPAQUE;
	if (c->ends)
		untold(c);
}

/* recognise finds out what the bytes are: of which protocol, and whether a message begins with them. False: nothing is told of
 * them. */
CALL_STEP(recognise)
{
	CALL_WORK;
	u32 answers, verdict, dir;
	bool request, response;

	if (!t || !c || !target)
		return 0;
	dir = t->dir & 1;
	if (t->io.tcp)
		follow_sequence(&t->io, c, dir);
	t->turn = !(c->flags & CONN_STARTED) || c->dir != dir;
	c->flags |= CONN_STARTED;
	c->dir = dir;
	c->last[dir] = t->io.total > QUIET_FROM ? t->io.end : t->io.begin;

	verdict = verdict_of(c->id);
	if (verdict == VERDICT_MUTE || verdict == VERDICT_OPAQUE) {
		count(STAT_MUTED);
		if (verdict == VERDICT_MUTE && t->turn && dir == DIR_INGRESS)
			__sync_fetch_and_add(&target->muted, 1);
		return 0;
	}
	/* One that goes on as HTTP/2 after HTTP/1 begins with the preface: nothing that is decided is as exact. */
	if (c->protocol == PROTOCOL_UNKNOWN && verdict != VERDICT_NONE && !(c->flags & CONN_SWITCHED))
		is_decided(c, verdict);
	if (c->protocol == PROTOCOL_UNKNOWN) {
		t->word = first_bytes(&t->io);
		if (http2_preface(t->word) || (c->flags & CONN_SWITCHED &&
					       c->role == (dir == DIR_INGRESS ? ROLE_SERVER : ROLE_CLIENT) &&
					       begins_preface(t->word, t->io.total))) {
			speaks_http2(c, dir == DIR_INGRESS ? ROLE_SERVER : ROLE_CLIENT);
			c->frames[dir].left = PREFACE_SIZE;
			c->frames[dir].shown = 1;
			c->frames[0].usual = c->frames[1].usual = FRAMES_SURE;
		} else {
			meets(t, c, dir);
		}
	}
	t->start = t->turn;
	if (c->protocol != PROTOCOL_HTTP2 && !c->ends && (!t->turn || c->protocol == PROTOCOL_UNKNOWN)) {
		answers = dir == DIR_INGRESS ? ROLE_CLIENT : ROLE_SERVER;
		if (!t->word)
			t->word = first_bytes(&t->io);
		request = is_request(t->word);
		/* A request's line ends with what a response's begins with, and may come in pieces. */
		response = (t->turn || c->role == answers) && http1_response(t->word);
		if (c->protocol == PROTOCOL_UNKNOWN && (request || response)) {
			c->protocol = PROTOCOL_TURNS;
			c->role = request == (dir == DIR_INGRESS) ? ROLE_SERVER : ROLE_CLIENT;
			t->start = true;
		} else {
			t->start = t->start || request || response;
		}
	}
	t->asks = c->role == (dir == DIR_INGRESS ? ROLE_SERVER : ROLE_CLIENT);
	t->answer = c->ends && !t->asks && t->io.buf.base;
	/* Nothing is said to a command that closes a statement: what comes next begins something. */
	if (c->ends && t->asks && t->io.total == CLOSE_SIZE && closes_statement(first_bytes(&t->io)))
		c->dir = !dir;
	return 1;
}

/* attribute names the message that begins, and finds for whom who moves the bytes works. */
CALL_STEP(attribute)
{
	CALL_WORK;
	CALL_THREAD;
	u64 task = 0;
	u32 dir;

	if (!t || !c || !target || !thread)
		return 0;
	dir = t->dir & 1;
	/* What is sent over a connection that was open before, of which nothing is known yet, may be a call: once it is known, it is too
	 * late to see who makes it. */
	t->calls = t->asks || (c->protocol == PROTOCOL_UNKNOWN && c->flags & CONN_ESTABLISHED && t->turn &&
			       dir == DIR_EGRESS);
	if (target->flags & TARGET_GO && t->calls)
		t->ids = read_goids(target, t->g, t->sp, c->task);
	t->looks = target->flags & TARGET_TASKS && (t->calls || c->protocol == PROTOCOL_TURNS) &&
		   (t->start || target->flags & (TARGET_NODE | TARGET_TOKIO) ||
		    (dir == DIR_INGRESS && thread->read_switches));
	if (t->looks)
		task = current_task_id(target, t->sp, t->java);
	if (t->start && t->calls) {
		t->flags |= FLAG_NAMED;
		if (dir == DIR_EGRESS) {
			if (t->ids.id) {
				t->ids.parent = read_parent_goid(target, t->g);
				c->task = t->ids.id;
			}
			t->flags |= name_call(&t->io, c, target, thread, &t->ids, task);
		} else {
			new_request(c);
			c->cause = 0;
			c->flags |= CONN_SERVING;
			if (task && !(target->flags & TARGET_NODE)) {
				t->flags |= FLAG_CAUSE_TASK;
				t->ids.id = task;
			}
		}
	} else if (t->start && dir == DIR_EGRESS) {
		c->flags &= ~CONN_SERVING;
		if (task && !(target->flags & TARGET_NODE)) {
			t->flags |= FLAG_CAUSE_TASK;
			t->ids.id = target->flags & TARGET_PYTHON
					    ? context_answers(thread, task, t->io.key, c)
					    : task;
		}
	}
	if (target->flags & TARGET_PYTHON && dir == DIR_EGRESS)
		c->flags &= ~CONN_NOTED;

	if (c->protocol != PROTOCOL_TURNS)
		return 0;
	if (t->start && !t->io.uring && !(target->flags & (TARGET_GO | TARGET_TOKIO)))
		job_step(thread, c, t->io.key, t->asks, dir);

	/* Who reads a request works for it; who reads an answer goes on with what the call was made for. */
	if (dir == DIR_INGRESS) {
		if (t->io.uring) {
			thread->request = 0;
		} else if (task && target->flags & TARGET_NODE) {
			node_has_read(c->role == ROLE_SERVER ? c->request : c->cause);
		} else if (task && target->flags & TARGET_TOKIO) {
			tokio_has_read(task, t->io.key, c->role == ROLE_SERVER ? c->request : 0);
		} else if (task) {
			task_works(t->io.tgid, task, c->role == ROLE_SERVER ? c->request : c->cause);
		} else if (!(target->flags & TARGET_GO)) {
			thread->request = c->role == ROLE_SERVER ? c->request : c->cause;
			if (t->looks)
				thread->read_switches = thread->switches;
		} else if (t->asks && t->ids.id && (c->task != t->ids.id || c->names % REFRESH == 0)) {
			goroutine_serves(t->ids.id, t->io.key, c);
		}
	}
	if (t->turn)
		catch_up(c, !dir);
	return 0;
}

/* tell_unknown shows user space the beginning of a run, for it to find out what it is. */
static __always_inline void tell_unknown(struct telling *t, struct conn *c, struct target *target)
{
	if (!t->io.buf.base) {
		/* Nothing shows what it is. */
		if (t->turn && !t->dir)
			__sync_fetch_and_add(&target->muted, 1);
		return;
	}
	if (t->turn) {
		c->tries++;
		/* Enough for a protocol to show itself, and for the head of a message of HTTP whose method is
		 * not one of the usual. Of what may be HTTP/2 nothing is to be missed. */
		c->head_left = c->flags & (CONN_FRAMES | CONN_SWITCHED) ? head_limit : UNKNOWN_LIMIT;
	}
	if (c->tries <= UNKNOWN_TRIES && c->chunks < UNKNOWN_CALLS && c->head_left &&
	    conn_announce(c, t->io.key, t->io.end)) {
		c->chunks++;
		tell_message(t, c);
	}
}

/* tell_body tells of a piece of a body, or of an answer, if it says something. False: there was no room. */
static __always_inline bool tell_body(struct telling *t, struct conn *c)
{
	const struct io *io = &t->io;
	u64 end = c->pos[t->dir & 1] + io->total;
	bool worth = c->chunks < BODY_CHUNKS || end >= c->quiet_until || t->flags & FLAG_NAMED;

	if (!worth && io->buf.base && !io->buf.segments && io->total >= 5) {
		/* A chunked body ends with "0\r\n\r\n". */
		u32 last = 0;

		bpf_probe_read_user(&last, sizeof(last), (void *)(io->buf.base + io->total - 4));
		worth = last == 0x0a0d0a0d;
	}
	if (!worth && t->answer)
		worth = over(io);
	if (!worth)
		return true;
	if (c->chunks < BODY_CHUNKS)
		c->chunks++;
	if (end >= c->quiet_until) {
		c->quiet_until = end + c->quiet_step;
		c->quiet_step *= 2;
	}
	if (t->answer)
		return DO_STEP(report_answer, t, c);
	return io->buf.segments ? DO_STEP(report_segments, t, c) : DO_STEP(report, t, c);
}

/* tell_bytes tells of a call's bytes. */
CALL_STEP(tell_bytes)
{
	CALL_WORK;
	bool kept;

	if (!t || !c || !target)
		return 0;
	if (t->start) {
		c->head_left = head_limit;
		c->chunks = 0;
		c->quiet_until = c->pos[t->dir & 1] + QUIET_FROM;
		c->quiet_step = QUIET_FROM;
	}
	if (c->protocol == PROTOCOL_UNKNOWN) {
		tell_unknown(t, c, target);
		return 0;
	}
	if (!conn_announce(c, t->io.key, t->io.end)) {
		c->flags |= CONN_LOST;
		kept = false;
	} else if (c->head_left && t->io.buf.base && !t->answer) {
		kept = tell_message(t, c);
	} else {
		kept = tell_body(t, c);
	}
	if (!kept && t->flags & FLAG_NAMED)
		__sync_fetch_and_add(&target->ring_full, 1);
	return 0;
}

/* on_bytes is called once for each call that moved bytes; t->io is set. */
static __always_inline void on_bytes(struct telling *t, struct conn *c, struct target *target,
				     struct thread *thread, const struct call_regs *regs, const u32 dir)
{
	t->dir = dir;
	t->sp = regs->sp;
	t->g = regs->g;
	t->java = regs->java;
	if (!DO_CALL_STEP(recognise, t, c, target, thread)) {
		/* nothing is told */
	} else if (c->protocol != PROTOCOL_HTTP2) {
		DO_CALL_STEP(attribute, t, c, target, thread);
		DO_CALL_STEP(tell_bytes, t, c, target, thread);
	} else if (conn_announce(c, t->io.key, t->io.end)) {
		DO_STEP(on_frames, t, c);
	} else {
		c->flags |= CONN_LOST;
		c->frames[dir].lost = 1;
	}
	c->pos[dir] += t->io.total;
}

/* on_end tells that a direction, or the connection, has ended; each is told once. */
static __always_inline void on_end(struct conn *c, u32 how, u64 now)
{
	struct end_event *e;

	if (!(c->flags & CONN_ANNOUNCED))
		return; /* user space does not know it */
	if (how == END_PEER) {
		if (c->flags & CONN_PEER_END)
			return;
		c->flags |= CONN_PEER_END;
	}
	if (how == END_LOCAL) {
		if (c->flags & CONN_LOCAL_END)
			return;
		c->flags |= CONN_LOCAL_END;
	}
	e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
	if (!e) {
		lost(c);
		return;
	}
	e->hdr = header(EVENT_END, c->tgid, now);
	e->conn = c->id;
	e->pos[0] = c->pos[0];
	e->pos[1] = c->pos[1];
	e->last[0] = c->last[0];
	e->last[1] = c->last[1];
	e->how = how;
	e->flags = c->flags & CONN_LOST ? FLAG_LOST : c->flags & CONN_UNTOLD ? FLAG_LOST | FLAG_UNTOLD : 0;
	submit(e);
}

#endif
