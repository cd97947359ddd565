/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * The connections of watched processes: TCP and Unix stream sockets. They are found at the bytes that
 * pass, so one that was open before is as good as a new one.
 */
#ifndef CONN_MAP_H
#define CONN_MAP_H

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>

#include "events_map.h"
#include "target_map.h"

enum conn_protocol {
	PROTOCOL_UNKNOWN, /* the first bytes of each run go to user space, which decides */
	PROTOCOL_TURNS,	  /* HTTP/1, and others in which a request and its answer take turns */
	PROTOCOL_HTTP2,
};

enum conn_role {
	ROLE_UNKNOWN,
	ROLE_SERVER, /* requests are ingress */
	ROLE_CLIENT,
};

enum conn_flag {
	CONN_ANNOUNCED = 1, /* user space has its conn_event */
	CONN_LOST = 2,	    /* an event was lost; the next one says so */
	CONN_SERVING = 4,   /* a request was read, and the response has not begun */
	CONN_STARTED = 8,   /* dir is set */
	CONN_NOTED = 16,    /* noted_* hold the cause of the next call */
	CONN_PEER_END = 32, /* END_PEER was sent */
	CONN_LOCAL_END = 64,
	CONN_ESTABLISHED = 128, /* open before it was seen */
	CONN_FRAMES = 256,	/* what moved last may be of HTTP/2 */
	CONN_SWITCHED = 512,	/* it spoke HTTP/1, and goes on as something else */
	CONN_UNTOLD = 1024,   /* bytes were not told that may have been a message's; the next event says so */
	CONN_ACCEPTED = 2048, /* by a loop that has not called back yet */
};

/* Where the frames of HTTP/2 are in one direction. */
struct frames {
	u32 left; /* bytes to the next frame's header */
	u8 have;  /* bytes of it that have passed */
	u8 lost;  /* nothing is known of where the next one is */
	u8 shown; /* what is left is told */
	u8 worth; /* there is something in the piece that user space wants to know */
	u8 usual; /* frames in a row, up to FRAMES_SURE: it is known where frames begin */
	u8 flags; /* of the frame where a walk is */
	u8 pad[2];
	u8 header[16];
	/* Of a walk over a piece of a call; here, for the stack is short. */
	u32 captured; /* bytes of the piece to be told */
	u32 next;     /* where the next piece begins, from the beginning of this one */
	u32 p;	      /* where the walk is */
	u32 word;     /* length and type of the frame there */
	u32 stream;   /* of it */
	u32 body;     /* where its payload begins */
};

struct conn {
	u64 id;
	u64 inode;   /* of the socket: tells a socket from a later one at the same address */
	u64 request; /* under way on it */
	u64 cause;   /* of the call that is under way */
	u64 noted;   /* cause of the next call, learnt before its bytes: at connect or by a runtime's probe */
	u64 noted_task;
	u64 noted_parent;
	u64 pos[2];	 /* bytes so far, by direction */
	u64 told[2];	 /* how far user space knows, by direction */
	u64 last[2];	 /* when the last bytes moved; a send that was not long: when it was entered */
	u64 quiet_until; /* position of the current direction at which it is reported again */
	u32 seq[2];	 /* TCP sequence number of the next byte */
	u32 tgid;
	u32 flags;	 /* enum conn_flag */
	u64 task;	 /* goroutine that serves it */
	u32 head_left;	 /* bytes of the message's head that may still be captured; 0: in its body */
	u32 noted_flags; /* FLAG_CAUSE_* */
	u32 names;	 /* requests named so far */
	u32 quiet_step;	 /* by how many bytes quiet_until moves next */
	u16 chunks;	 /* reported since the head ended */
	u16 tries;	 /* runs shown to user space while the protocol was unknown */
	u8 protocol;
	u8 role;
	u8 dir;	     /* of the bytes that moved last */
	u8 ends;     /* it is to a database: of pieces of answers, both ends are told */
	u64 callers; /* HTTP/2: the newest stream whose caller was told << 32 | those of the 32 up to it */
	struct frames frames[2]; /* HTTP/2, by direction */
};

/* By address of struct sock. Added at the first bytes (TCP: or at connect); removed when TCP closes, when
 * a Unix socket is closed, by the next socket at the address, and by user space when the process is gone. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, GROWING);
	__type(key, u64);
	__type(value, struct conn);
} conns SEC(".maps");

/* What user space has decided on a connection. */
enum verdict_kind {
	VERDICT_NONE,
	VERDICT_MUTE,	     /* no protocol claims it: count only */
	VERDICT_HTTP_SERVER, /* HTTP/1, though its start does not look like it */
	VERDICT_HTTP_CLIENT,
	VERDICT_HTTP2_SERVER,
	VERDICT_HTTP2_CLIENT,
	VERDICT_OPAQUE, /* it was upgraded to something else: as muted, and no message is lost */
	VERDICT_DATABASE_SERVER,
	VERDICT_DATABASE_CLIENT,
};

enum {
	VERDICTS = 65536,
	VERDICT_KIND_BITS = 8,
};

/*
 * By the low bits of the connection's id: the rest of the id, then enum verdict_kind. User space writes to the
 * mapped pages, where an array's elements are eight bytes apart; a verdict on another connection with the same
 * low bits just does not match and is made again.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, VERDICTS);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, u32);
	__type(value, u64);
} verdicts SEC(".maps");

static __always_inline u32 verdict_of(u64 id)
{
	u32 slot = id & (VERDICTS - 1);
	u64 *verdict = bpf_map_lookup_elem(&verdicts, &slot);

	if (!verdict || *verdict >> VERDICT_KIND_BITS != id >> 16)
		return VERDICT_NONE;
	return *verdict & ((1 << VERDICT_KIND_BITS) - 1);
}

/* One element: id of the latest connection. */
struct {
#ifdef OLD_KERNEL
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
#else
	__uint(type, BPF_MAP_TYPE_ARRAY);
#endif
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, u64);
} latest_conn SEC(".maps");

static __always_inline u64 new_conn_id(void)
{
	u32 zero = 0;
	u64 *latest = bpf_map_lookup_elem(&latest_conn, &zero);

#ifdef OLD_KERNEL /* an addition does not return what it added to before 5.12: each processor counts for itself */
	u64 cpu = bpf_get_smp_processor_id();

	return latest ? cpu << 40 | (++*latest + cpu * 509) : 0;
#else
	return latest ? __sync_fetch_and_add(latest, 1) + 1 : 0;
#endif
}

const volatile u64 id_seed =
	0; /* random, by user space, the same for all objects: no two agents give the same ids */

/* mixed maps no two numbers to one (SplitMix64; Steele et al., OOPSLA 2014). */
static __always_inline u64 mixed(u64 id)
{
	id = (id ^ id >> 30) * 0xbf58476d1ce4e5b9ULL;
	id = (id ^ id >> 27) * 0x94d049bb133111ebULL;
	return (id ^ id >> 31) ?: 1;
}

/* new_request gives the connection the id of its next request: the connection's number and the request's, well mixed. Ids do not
 * collide, and it costs less than a call for a random number. A connection that speaks HTTP/2 gets one, from which those of its
 * streams are made. */
static __always_inline void new_request(struct conn *c)
{
	c->request = mixed(id_seed + c->id * 0x9e3779b97f4a7c15ULL + c->names++);
}

/* stream_request is the id of a stream's request, of a connection that speaks HTTP/2. User space gives it the same. */
static __always_inline u64 stream_request(const struct conn *c, u32 stream)
{
	return mixed(c->request + stream * 0x9e3779b97f4a7c15ULL);
}

/* caller_told says whether the caller of a client's stream was told already, and notes that it is. Wrong (told again) where two
 * note it at once, or the stream is long not the newest. */
static __always_inline bool caller_told(struct conn *c, u32 stream)
{
	u64 callers = c->callers;
	u32 newest = callers >> 32;
	u32 told = callers;

	stream >>= 1; /* a client's are odd */
	if (stream > newest) {
		told = stream - newest < 32 ? told << (stream - newest) | 1 : 1;
		newest = stream;
	} else if (newest - stream >= 32 || told & 1U << (newest - stream)) {
		return newest - stream < 32;
	} else {
		told |= 1U << (newest - stream);
	}
	c->callers = (u64)newest << 32 | told; /* in one piece */
	return false;
}

static __always_inline struct event_header header(u32 kind, u32 tgid, u64 time)
{
	return (struct event_header){.kind = kind, .tgid = tgid, .time = time};
}

static __always_inline void read_unix_path(struct unix_sock *sk, u8 *path)
{
	struct unix_address *addr = BPF_CORE_READ(sk, addr);

	/* An abstract name begins with a NUL and stays as it is; the path of a client is empty. */
	if (addr)
		bpf_probe_read_kernel(path, ADDRESS_LEN, addr->name[0].sun_path);
}

/* tell_conn tells user space of the connection; false if there was no room. It is a function of its own for the
 * sake of the stack, as others that read many of the kernel's fields. */
static __noinline bool tell_conn(struct conn *c, u64 key, u64 now)
{
	struct sock *sk = (struct sock *)key;
	struct conn_event *e;

	e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
	if (!e) {
		count(STAT_RING_FULL);
		return false;
	}
	__builtin_memset(e, 0, sizeof(*e));
	e->hdr = header(EVENT_CONN, c->tgid, now);
	e->conn = c->id;
	e->key = key;
	e->netns = BPF_CORE_READ(sk, __sk_common.skc_net.net, ns.inum);
	e->family = BPF_CORE_READ(sk, __sk_common.skc_family);
	e->established = !!(c->flags & CONN_ESTABLISHED);
	if (e->family == AF_UNIX) {
		struct unix_sock *us = (struct unix_sock *)sk;
		struct unix_sock *peer = (struct unix_sock *)BPF_CORE_READ(us, peer);

		e->peer = (u64)peer;
		read_unix_path(us, e->local);
		if (peer)
			read_unix_path(peer, e->remote);
	} else {
		e->local_port = BPF_CORE_READ(sk, __sk_common.skc_num);
		e->remote_port = bpf_ntohs(BPF_CORE_READ(sk, __sk_common.skc_dport));
		if (e->family == AF_INET) {
			BPF_CORE_READ_INTO((u32 *)e->local, sk, __sk_common.skc_rcv_saddr);
			BPF_CORE_READ_INTO((u32 *)e->remote, sk, __sk_common.skc_daddr);
		} else {
			BPF_CORE_READ_INTO((struct in6_addr *)e->local, sk, __sk_common.skc_v6_rcv_saddr);
			BPF_CORE_READ_INTO((struct in6_addr *)e->remote, sk, __sk_common.skc_v6_daddr);
		}
	}
	c->flags |= CONN_ANNOUNCED;
	submit(e);
	return true;
}

static __always_inline bool conn_announce(struct conn *c, u64 key, u64 now)
{
	return c->flags & CONN_ANNOUNCED || tell_conn(c, key, now);
}

/* conn_find returns the connection of the socket if it is known. */
static __always_inline struct conn *conn_find(u64 key, u64 inode)
{
	struct conn *c = bpf_map_lookup_elem(&conns, &key);

	if (c && inode && c->inode && c->inode != inode) {
		/* A socket that ended unseen was at this address before. */
		bpf_map_delete_elem(&conns, &key);
		return 0;
	}
	if (c && !c->inode)
		c->inode = inode; /* it was added before the socket had one */
	return c;
}

const volatile struct conn blank_conn; /* it would take a third of a program's stack */

static __always_inline struct conn *conn_add(u64 key, u64 inode, u32 tgid, u32 flags)
{
	struct conn *c;

	if (bpf_map_update_elem(&conns, &key, (const void *)&blank_conn, BPF_ANY)) {
		count(STAT_CONNS_FULL);
		return 0;
	}
	c = bpf_map_lookup_elem(&conns, &key);
	if (c) {
		c->id = new_conn_id();
		c->inode = inode;
		c->tgid = tgid;
		c->flags = flags;
	}
	return c;
}

/* conn_meet is the connection of a socket of which no bytes were seen yet, or some; 0: there is no room. */
static __always_inline struct conn *conn_meet(struct sock *sk, u64 inode, u16 family, u32 tgid)
{
	struct conn *c = conn_find((u64)sk, inode);
	struct tcp_sock *tp = (struct tcp_sock *)sk;
	u32 flags = 0;

	if (c)
		return c;
	/* The SYN counts as a byte. */
	if (family != AF_UNIX && (BPF_CORE_READ(tp, bytes_acked) > 1 || BPF_CORE_READ(tp, bytes_received)))
		flags = CONN_ESTABLISHED;
	return conn_add((u64)sk, inode, tgid, flags);
}

/* untold has user space know that bytes were not told before it was known what the connection speaks: a header block, or a message, may
 * have been among them. */
static __always_inline void untold(struct conn *c)
{
	if (c->told[DIR_INGRESS] < c->pos[DIR_INGRESS] || c->told[DIR_EGRESS] < c->pos[DIR_EGRESS])
		c->flags |= CONN_UNTOLD;
}

/* speaks_http2 has a connection be one of HTTP/2. */
static __always_inline void speaks_http2(struct conn *c, u32 role)
{
	c->protocol = PROTOCOL_HTTP2;
	c->role = role;
	new_request(c);
	untold(c);
}

#endif
