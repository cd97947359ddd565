//go:build ignore

// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
/*
 * What the socket hooks cannot know of a Go program: on whose behalf the goroutine that owns a pooled
 * connection writes a request.
 */
#include "vmlinux.h"

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>

#include "event.h"
#include "fd.h"
#include "conn_map.h"
#include "goroutine_map.h"
#include "preempt.h"
#include "transport_map.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

enum {
	IFACE_DATA = 8,	       /* an interface's data word follows its type */
	MAX_FD = 1 << 20,      /* fs.nr_open */
	MAX_CONN_OFFSET = 144, /* of a net.Conn in a transport of grpc-go of any version */
	MAX_CONN_DEPTH = 3,    /* net.Conns wrapped in one another that are followed to the socket */
};

#if defined(__TARGET_ARCH_x86)
#define ARG0(r) ((r)->ax)
#define ARG1(r) ((r)->bx)
#define ARG2(r) ((r)->cx)
#define ARG3(r) ((r)->di)
#define GO_G(r) ((r)->r14)
#define GO_SP(r) ((r)->sp)
#elif defined(__TARGET_ARCH_arm64)
#define ARG0(r) ((r)->user_regs.regs[0])
#define ARG1(r) ((r)->user_regs.regs[1])
#define ARG2(r) ((r)->user_regs.regs[2])
#define ARG3(r) ((r)->user_regs.regs[3])
#define GO_G(r) ((r)->user_regs.regs[28])
#define GO_SP(r) ((r)->user_regs.sp)
#endif

/* fd_of returns the descriptor behind a net.Conn's data word, or -1: what is there must look like one. */
static __always_inline s32 fd_of(const struct target *target, u64 conn)
{
	for (int i = 0; i < MAX_CONN_DEPTH; i++) {
		s32 fd, family, sotype;
		u64 netfd;

		/* *net.TCPConn and *net.UnixConn begin with a *net.netFD. */
		if (bpf_probe_read_user(&netfd, sizeof(netfd), (void *)conn))
			return -1;
		if (!bpf_probe_read_user(&family, sizeof(family), (void *)(netfd + target->family)) &&
		    !bpf_probe_read_user(&sotype, sizeof(sotype), (void *)(netfd + target->sotype)) &&
		    !bpf_probe_read_user(&fd, sizeof(fd), (void *)(netfd + target->sysfd)) &&
		    (family == AF_UNIX || family == AF_INET || family == AF_INET6) && sotype == SOCK_STREAM &&
		    fd >= 0 && fd < MAX_FD)
			return fd;
		/* *tls.Conn, and most wrappers, begin with the net.Conn that they wrap. */
		if (bpf_probe_read_user(&conn, sizeof(conn), (void *)(conn + IFACE_DATA)))
			return -1;
	}
	return -1;
}

/* note_call notes on a pooled connection for whom its next request is. */
static __always_inline void note_call(struct pt_regs *ctx)
{
	u64 id = bpf_get_current_pid_tgid();
	struct target *target = target_of(id >> 32);
	struct fd_socket s;
	struct goids ids;
	struct conn *c;
	u32 flags = 0;
	u64 conn;
	s32 fd;

	if (!target || !(target->flags & TARGET_GO))
		return;
	ids = read_goids(target, GO_G(ctx), GO_SP(ctx), 0);
	if (!ids.id)
		return;
	if (bpf_probe_read_user(&conn, sizeof(conn), (void *)(ARG0(ctx) + target->persist_conn + IFACE_DATA)))
		return;
	fd = fd_of(target, conn);
	if (fd < 0)
		return;
	s = fd_socket((struct task_struct *)bpf_get_current_task(), fd);
	if (!s.sk)
		return;
	c = conn_meet(s.sk, s.inode, s.family, id >> 32);
	if (!c)
		return;
	ids.parent = read_parent_goid(target, GO_G(ctx));
	c->noted = goroutine_request(id >> 32, ids, &flags);
	c->noted_task = ids.id;
	c->noted_parent = ids.parent;
	c->noted_flags = flags;
	c->flags |= CONN_NOTED;
}

/*
 * net/http.(*persistConn).roundTrip, on the goroutine that wants the answer; the request is then written by
 * the connection's own goroutine. One hit a call, some 0.5 us: it sits on an instruction that the kernel
 * emulates. Nothing cheaper tells it: between the two goroutines lie channels only.
 */
SEC("uprobe")
int persist_conn_round_trip(struct pt_regs *ctx)
{
	uprobe_begins();
	note_call(ctx);
	uprobe_ends();
	return 0;
}

/* hand_over is called when the running goroutine gives to the one of a runtime.sudog what that waits for; where is its address,
 * or that of a pointer to it: the first of those who wait at a channel. */
static __always_inline void hand_over(struct pt_regs *ctx, u64 where, const bool closes)
{
	u32 tgid = bpf_get_current_pid_tgid() >> 32;
	struct target *target = target_of(tgid);
	struct goids ids;
	u64 to;

	if (!target || !(target->flags & TARGET_GO))
		return;
	ids = read_goids(target, GO_G(ctx), GO_SP(ctx), 0);
	if (!ids.id)
		return;
	if (closes &&
	    (bpf_probe_read_user(&where, sizeof(where), (void *)(where + target->receivers)) || !where))
		return;
	/* A sudog begins with its g. */
	if (bpf_probe_read_user(&to, sizeof(to), (void *)where) ||
	    bpf_probe_read_user(&to, sizeof(to), (void *)(to + target->goid)))
		return;
	goroutine_hands_over(tgid, ids.id, to);
}

/* runtime.send: something is sent over a channel at which a receiver waits. Attached to programs that show calls for whom
 * nobody knows. */
SEC("uprobe")
int chan_send(struct pt_regs *ctx)
{
	uprobe_begins();
	hand_over(ctx, ARG1(ctx), false);
	uprobe_ends();
	return 0;
}

/* runtime.closechan, attached with it. */
SEC("uprobe")
int chan_close(struct pt_regs *ctx)
{
	uprobe_begins();
	hand_over(ctx, ARG0(ctx), true);
	uprobe_ends();
	return 0;
}

/* A function of its own: verified once. */
static __noinline s32 transport_fd(const struct target *target, u64 at)
{
	u64 conn;

	if (bpf_probe_read_user(&conn, sizeof(conn), (void *)(at + IFACE_DATA)))
		return -1;
	return fd_of(target, conn);
}

/* conn_of is the connection of an HTTP/2 transport that has its net.Conn at an offset. */
static __noinline struct conn *find_conn(const struct target *target, u32 tgid, u64 transport, u32 offset)
{
	struct transport key = {.tgid = tgid, .address = transport};
	struct transport_conn found = {};
	struct fd_socket s;
	struct conn *c;
	s32 fd = -1;

	if (offset) {
		fd = transport_fd(target, transport + offset);
	} else { /* not known: the first that is one */
		for (u32 at = 8; at <= MAX_CONN_OFFSET && fd < 0; at += 8)
			fd = transport_fd(target, transport + at);
	}
	if (fd < 0)
		return 0;
	s = fd_socket((struct task_struct *)bpf_get_current_task(), fd);
	if (!s.sk)
		return 0;
	c = conn_meet(s.sk, s.inode, s.family, tgid);
	if (!c)
		return 0;
	found.key = (u64)s.sk;
	found.id = c->id;
	bpf_map_update_elem(&transports, &key, &found, BPF_ANY);
	return c;
}

static __always_inline struct conn *conn_of(const struct target *target, u32 tgid, u64 transport, u32 offset,
					    u32 role)
{
	struct transport key = {.tgid = tgid, .address = transport};
	struct transport_conn *found = bpf_map_lookup_elem(&transports, &key);
	struct conn *c = 0;

	if (found) {
		u64 at = found->key;

		c = bpf_map_lookup_elem(&conns, &at);
		if (c && c->id != found->id)
			c = 0;
	}
	if (!c)
		c = find_conn(target, tgid, transport, offset);
	if (!c)
		return 0;
	/* One that is upgraded begins with the preface. */
	if (c->protocol == PROTOCOL_UNKNOWN && !(c->flags & CONN_SWITCHED))
		speaks_http2(c, role);
	return c->protocol == PROTOCOL_HTTP2 ? c : 0;
}

/* A stream as the library's memory has it. */
struct found_stream {
	u64 object; /* what has its method */
	u32 number; /* 0: none was found */
	u32 method; /* offset of that; 0: not known */
};

/* is_number says whether it can be a stream's that a client has opened (RFC 9113, section 5.1.1). */
static __always_inline bool is_number(u64 word)
{
	return word & 1 && word < 1U << 31;
}

static __always_inline u32 read_number(u64 at)
{
	u32 number;

	return !bpf_probe_read_user(&number, sizeof(number), (void *)at) && is_number(number) ? number : 0;
}

/* guess_stream finds a stream of grpc-go of a version that is not known. Its number came first up to 1.76, in what a stream points to
 * since 1.69, and comes last since; where it is not there are addresses, which are even. */
static __always_inline void guess_stream(struct found_stream *s)
{
	u64 word;

	if (bpf_probe_read_user(&word, sizeof(word), (void *)s->object))
		return;
	if (is_number(word)) {
		u64 text;
		u8 first = 0;

		s->number = word;
		s->method = 80;
		if (!bpf_probe_read_user(&text, sizeof(text), (void *)(s->object + 80)))
			bpf_probe_read_user(&first, 1, (void *)text);
		if (first != '/')
			s->method = 88; /* since 1.66 */
		return;
	}
	s->number = read_number(word);
	if (s->number) {
		s->object = word;
		s->method = 24;
		return;
	}
	s->number = read_number(s->object + 108);
	s->method = 16;
}

static __always_inline struct found_stream find_stream(const struct stream_layout *layout, u64 object,
						       u32 offset, u32 method)
{
	struct found_stream s = {.object = object, .method = method};

	if (layout->guess)
		guess_stream(&s);
	else if (!layout->indirect || !bpf_probe_read_user(&s.object, sizeof(s.object), (void *)s.object))
		s.number = read_number(s.object + offset);
	return s;
}

/* tell_method tells the method of a stream, where it may have been told to the process before it was watched what its name in the
 * stream's header block means. */
static __always_inline void tell_method(const struct conn *c, const struct found_stream *s)
{
	struct method_event *e;
	u64 text[2]; /* a string: where it is, and its length */

	if (!(c->flags & CONN_ESTABLISHED) || !s->method ||
	    bpf_probe_read_user(text, sizeof(text), (void *)(s->object + s->method)) || !text[1] ||
	    text[1] > METHOD_LEN)
		return;
	e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
	if (!e) {
		count(STAT_RING_FULL);
		return;
	}
	e->hdr = header(EVENT_METHOD, c->tgid, bpf_ktime_get_ns());
	e->conn = c->id;
	e->stream = s->number;
	e->len = text[1];
	if (bpf_probe_read_user(e->method, at_most(text[1], METHOD_LEN), (void *)text[0]))
		e->len = 0;
	submit(e);
}

/* calls tells for whom the running goroutine opens a stream. */
static __always_inline void calls(struct conn *c, const struct target *target, struct goids ids, u64 g,
				  u32 stream)
{
	struct caller_event *e;

	if (caller_told(c, stream))
		return;
	e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
	if (!e) {
		count(STAT_RING_FULL); /* the call has no parent */
		return;
	}
	ids.parent = read_parent_goid(target, g);
	e->hdr = header(EVENT_CALLER, c->tgid, bpf_ktime_get_ns());
	e->call = stream_request(c, stream);
	e->flags = 0;
	e->cause = goroutine_request(c->tgid, ids, &e->flags);
	e->task = ids.id;
	e->parent_task = ids.parent;
	e->pad = 0;
	submit(e);
}

/* here is the process that runs, if it is a Go program that is watched, and its goroutine. */
static __always_inline struct target *here(struct pt_regs *ctx, struct goids *ids)
{
	struct target *target = target_of(bpf_get_current_pid_tgid() >> 32);

	if (!target || !(target->flags & TARGET_GO))
		return 0;
	*ids = read_goids(target, GO_G(ctx), GO_SP(ctx), 0);
	return ids->id ? target : 0;
}

static __always_inline void grpc_serves(struct pt_regs *ctx)
{
	struct goids ids;
	struct target *target = here(ctx, &ids);
	struct found_stream s;
	struct conn *c;

	if (!target)
		return;
	c = conn_of(target, bpf_get_current_pid_tgid() >> 32, ARG2(ctx), target->grpc.server_conn,
		    ROLE_SERVER);
	if (!c)
		return;
	s = find_stream(&target->grpc, ARG3(ctx), target->grpc.server_stream, target->grpc.server_method);
	if (!s.number)
		return;
	goroutine_serves_one(c->tgid, ids.id, stream_request(c, s.number));
	tell_method(c, &s);
}

/*
 * google.golang.org/grpc.(*Server).handleStream(transport, stream), on the goroutine that runs the handler: between it and the
 * one that reads the connection lies a channel, or a go statement. One hit a call, on an instruction that the kernel emulates, as
 * all of the following.
 */
SEC("uprobe")
int grpc_server_stream(struct pt_regs *ctx)
{
	uprobe_begins();
	grpc_serves(ctx);
	uprobe_ends();
	return 0;
}

static __always_inline void grpc_calls(struct pt_regs *ctx)
{
	struct goids ids;
	struct target *target = here(ctx, &ids);
	struct found_stream s;
	struct conn *c;

	if (!target)
		return;
	c = conn_of(target, bpf_get_current_pid_tgid() >> 32, ARG0(ctx), target->grpc.client_conn,
		    ROLE_CLIENT);
	if (!c)
		return;
	s = find_stream(&target->grpc, ARG1(ctx), target->grpc.client_stream, target->grpc.client_method);
	if (!s.number)
		return;
	calls(c, target, ids, GO_G(ctx), s.number);
	tell_method(c, &s);
}

/*
 * google.golang.org/grpc/internal/transport.(*http2Client).write(stream, …), on the goroutine that makes the call, for each of its
 * messages and its end: its stream has a number by then. A goroutine of the connection's own writes it.
 */
SEC("uprobe")
int grpc_client_stream(struct pt_regs *ctx)
{
	uprobe_begins();
	grpc_calls(ctx);
	uprobe_ends();
	return 0;
}

static __always_inline void http2_serves(struct pt_regs *ctx)
{
	struct goids ids;
	struct target *target = here(ctx, &ids);
	u64 object, owner;
	struct conn *c;
	u32 stream;

	/* A responseWriter begins with the address of its state, that with the address of its stream, that with its serverConn's. */
	if (!target || bpf_probe_read_user(&object, sizeof(object), (void *)ARG1(ctx)) ||
	    bpf_probe_read_user(&object, sizeof(object), (void *)object) ||
	    bpf_probe_read_user(&owner, sizeof(owner), (void *)object) || owner != ARG0(ctx))
		return;
	c = conn_of(target, bpf_get_current_pid_tgid() >> 32, owner, target->http2.server_conn, ROLE_SERVER);
	stream = c ? read_number(object + target->http2.server_stream) : 0;
	if (stream)
		goroutine_serves_one(c->tgid, ids.id, stream_request(c, stream));
}

/* (*serverConn).runHandler(writer, request, handler) of net/http's HTTP/2 and of golang.org/x/net/http2, on the goroutine that
 * runs the handler. */
SEC("uprobe")
int http2_server_stream(struct pt_regs *ctx)
{
	uprobe_begins();
	http2_serves(ctx);
	uprobe_ends();
	return 0;
}

static __always_inline void http2_calls(struct pt_regs *ctx)
{
	struct goids ids;
	struct target *target = here(ctx, &ids);
	u32 stream = ARG1(ctx);
	struct conn *c;

	if (!target || !(stream & 1))
		return;
	c = conn_of(target, bpf_get_current_pid_tgid() >> 32, ARG0(ctx), target->http2.client_conn,
		    ROLE_CLIENT);
	if (c)
		calls(c, target, ids, GO_G(ctx), stream);
}

/* (*ClientConn).writeHeaders(stream, …) of the same, on a goroutine that was started for the call by the one that makes it. */
SEC("uprobe")
int http2_client_stream(struct pt_regs *ctx)
{
	uprobe_begins();
	http2_calls(ctx);
	uprobe_ends();
	return 0;
}

static __always_inline void http2_requests(struct pt_regs *ctx)
{
	struct goids ids;
	struct target *target = here(ctx, &ids);
	u32 flags = 0;

	if (!target)
		return;
	ids.parent = read_parent_goid(target, GO_G(ctx));
	goroutine_request(bpf_get_current_pid_tgid() >> 32, ids, &flags);
}

/* (*ClientConn).roundTrip of the same, on the goroutine that makes the call: for whom it runs is noted before it starts another
 * one, which knows of nobody but this one. */
SEC("uprobe")
int http2_requester(struct pt_regs *ctx)
{
	uprobe_begins();
	http2_requests(ctx);
	uprobe_ends();
	return 0;
}
