//go:build ignore

// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
/* Runs the headers' logic on input from a test. */
#include "vmlinux.h"

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>

#include "event.h"
#include "flow.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

struct message_start {
	u64 word;
	u32 request;
	u32 response;
};

SEC("syscall")
int message_start(struct message_start *m)
{
	m->request = http1_request(m->word);
	m->response = http1_response(m->word);
	return 0;
}

struct head_end {
	u32 len;
	u32 ends;
	u8 text[LARGE_PAYLOAD];
};

/* Input and output of what is too large for a context. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct head_end);
} head_ends SEC(".maps");

SEC("syscall")
int head_end(void *ctx)
{
	u32 zero = 0;
	struct head_end *h = bpf_map_lookup_elem(&head_ends, &zero);

	if (!h)
		return 1;
	h->ends = has_blank_line(h->text, h->len, LARGE_PAYLOAD) |
		  ends_in_blank_line(h->text, h->len, LARGE_PAYLOAD) << 1;
	return 0;
}

struct gather_in {
	u64 base;
	u32 segments;
	u32 total;
	u32 from;
	u32 limit;
	u32 got;
	u32 pad;
	struct gathered_text text;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct gather_in);
} gathers SEC(".maps");

SEC("syscall")
int gather_bytes(void *ctx)
{
	u32 zero = 0;
	struct gather_in *g = bpf_map_lookup_elem(&gathers, &zero);
	struct buffer buf = {};

	if (!g)
		return 1;
	buf.base = g->base;
	buf.segments = g->segments;
	g->got = gather(&buf, g->total, g->from, g->limit, g->text.text, 0);
	return 0;
}

struct verdict_in {
	u64 conn;
	u64 verdict;
};

SEC("syscall")
int verdict(struct verdict_in *v)
{
	v->verdict = verdict_of(v->conn);
	return 0;
}

struct lineage {
	u64 goid;
	u64 parent;
	u64 request; /* serves: in; else out */
	u64 conn;    /* key of the connection that is served, or ends */
	u32 tgid;
	u32 op; /* 0: ask, 1: serves, 2: dials, 3: ends, 4: serves one request */
	u32 flags;
	u32 pad;
};

static __always_inline void serve(const struct lineage *l)
{
	struct conn *c = conn_find(l->conn, 0);

	if (!c)
		c = conn_add(l->conn, 0, l->tgid, 0);
	if (!c)
		return;
	c->request = l->request;
	if (c->task != l->goid) /* as on_bytes does */
		goroutine_serves(l->goid, l->conn, c);
}

SEC("syscall")
int lineage(struct lineage *l)
{
	struct goids ids = {.id = l->goid, .parent = l->parent};
	struct conn *c;
	u64 key = l->conn;

	if (l->op == 1)
		serve(l);
	else if (l->op == 2)
		goroutine_dials(l->tgid, l->goid);
	else if (l->op == 4)
		goroutine_serves_one(l->tgid, l->goid, l->request);
	else if (l->op == 3 && (c = conn_find(key, 0))) {
		goroutine_keeps(c);
		bpf_map_delete_elem(&conns, &key);
	} else
		l->request = goroutine_request(l->tgid, ids, &l->flags);
	return 0;
}

struct task_step {
	u64 id;
	u64 from;    /* copied: the task from which; else the connection's key */
	u64 request; /* reads: in; asks: out */
	u32 tgid;
	u32 op; /* enum task_op */
};

enum task_op {
	TASK_ASKS,
	TASK_COPIED,
	TASK_ACCEPTED, /* made right after its connection was accepted */
	TASK_READS,    /* a request */
	TASK_ANSWERS,
	TASK_CLOSES, /* the connection is gone */
};

SEC("syscall")
int task(struct task_step *s)
{
	u64 key = s->from;
	struct conn *c;

	if (s->op == TASK_ASKS) {
		s->request = task_request(s->tgid, s->id);
		return 0;
	}
	if (s->op == TASK_COPIED) {
		task_copied(s->tgid, s->from, s->id, 0, 0);
		return 0;
	}
	c = conn_find(key, 0);
	if (!c)
		c = conn_add(key, 0, s->tgid, 0);
	if (!c)
		return 0;
	switch (s->op) {
	case TASK_ACCEPTED:
		task_copied(s->tgid, 0, s->id, key, c->id);
		break;
	case TASK_READS: /* as attribute does */
		c->last[DIR_INGRESS] = bpf_ktime_get_ns();
		c->request = s->request;
		c->flags |= CONN_SERVING;
		if (s->id)
			task_works(s->tgid, s->id, c->request);
		break;
	case TASK_ANSWERS:
		c->flags &= ~CONN_SERVING;
		task_answers(s->tgid, s->id, key, c->id);
		break;
	case TASK_CLOSES:
		bpf_map_delete_elem(&conns, &key);
		break;
	}
	return 0;
}

/* What a loop does that reads outside of contexts. */
struct loop_step {
	u64 id;	     /* of the context in which it happens; 0: of none */
	u64 copy;    /* copies: the new one */
	u64 key;     /* of the connection */
	u64 request; /* reads: in; calls: out */
	u64 task;    /* calls, answers: out */
	u32 op;	     /* enum loop_op */
	u32 own;     /* the context is that of a task */
	/* The thread's, from step to step: */
	u64 switches;
	u64 read_switches;
	u64 current;
	u64 accepted;
	u64 accepted_key;
	u64 accepted_switches;
};

enum loop_op {
	LOOP_READS,
	LOOP_COPIES,
	LOOP_ACCEPTS, /* it calls back that a connection was accepted */
	LOOP_WRITES,  /* to a transport that sends later */
	LOOP_CALLS,
	LOOP_ANSWERS,
};

enum { LOOP_TGID = 7 };

SEC("syscall")
int loop(struct loop_step *s)
{
	struct thread thread = {.switches = s->switches,
				.read_switches = s->read_switches,
				.request = s->current,
				.accepted = s->accepted,
				.accepted_key = s->accepted_key,
				.accepted_switches = s->accepted_switches,
				.own = s->own};
	u64 key = s->key;
	struct conn *c = conn_find(key, 0);

	if (!c)
		c = conn_add(key, 0, LOOP_TGID, 0);
	if (!c)
		return 0;
	s->task = s->id;
	switch (s->op) {
	case LOOP_READS: /* as attribute does */
		c->request = s->current = s->request;
		c->flags |= CONN_SERVING;
		s->read_switches = s->switches;
		break;
	case LOOP_COPIES:
		context_copies(LOOP_TGID, s->id, s->copy, &thread);
		break;
	case LOOP_ACCEPTS: /* as the probe does */
		s->accepted = c->id;
		s->accepted_key = key;
		s->accepted_switches = s->switches;
		break;
	case LOOP_WRITES:
		context_writes(&thread, s->id, key, c);
		break;
	case LOOP_CALLS:
		s->request = context_calls(LOOP_TGID, &s->task, c, &thread);
		c->flags &= ~CONN_NOTED;
		break;
	case LOOP_ANSWERS:
		c->flags &= ~CONN_SERVING;
		s->task = context_answers(&thread, s->id, key, c);
		c->flags &= ~CONN_NOTED;
		break;
	}
	return 0;
}

struct node_step {
	u64 ids;     /* address of three doubles: execution, trigger, counter */
	u64 request; /* reads: in; calls: out */
	u64 id;	     /* calls back */
	u32 op;	     /* enum node_op */
	u32 doubted; /* calls: out */
};

enum node_op {
	NODE_CALLS,
	NODE_READS,
	NODE_CALLS_BACK,
	NODE_TURNS, /* to another event */
	NODE_RESOLVES,
	NODE_DRAINED,
};

SEC("syscall")
int node(struct node_step *s)
{
	u32 tgid = 7;
	struct node_loop *loop = bpf_map_lookup_elem(&node_loops, &tgid);
	struct node_ids ids;

	if (!loop)
		return 0;
	loop->ids = s->ids;
	switch (s->op) {
	case NODE_CALLS:
		s->request = 0;
		if (node_read_ids(loop, &ids))
			s->request = node_request(loop, tgid, &ids);
		s->doubted = loop->doubted;
		break;
	case NODE_READS:
		node_reads(loop, s->request);
		break;
	case NODE_CALLS_BACK:
		node_calls_back(loop, tgid, s->id);
		break;
	case NODE_TURNS:
		node_event(loop);
		break;
	case NODE_RESOLVES:
		node_resolves(loop, tgid);
		break;
	case NODE_DRAINED:
		node_drained(loop);
		break;
	}
	return 0;
}

struct tokio_step {
	u64 id;
	u64 from;     /* reads, responds: key of the connection; spawned, asked: by which task */
	u64 request;  /* reads: in; calls: in, the call's id, and out, for which request */
	u32 op;	      /* enum tokio_op */
	u32 notified; /* asked */
};

enum tokio_op {
	TOKIO_CALLS,
	TOKIO_READS, /* a request */
	TOKIO_RESPONDS,
	TOKIO_SPAWNED,
	TOKIO_ASKED,
	TOKIO_ANSWERED, /* it reads an answer */
};

SEC("syscall")
int tokio(struct tokio_step *s)
{
	u64 key = s->from;
	u32 tgid = 7;
	struct conn *c;

	switch (s->op) {
	case TOKIO_CALLS:
		s->request = tokio_calls(tgid, s->id, s->request);
		return 0;
	case TOKIO_SPAWNED:
		tokio_spawns(tgid, s->from, s->id);
		return 0;
	case TOKIO_ASKED:
		tokio_asks(tgid, s->from, s->id, s->notified);
		return 0;
	case TOKIO_ANSWERED:
		tokio_answered(tgid, s->id);
		return 0;
	}
	c = conn_find(key, 0);
	if (!c)
		c = conn_add(key, 0, tgid, 0);
	if (!c)
		return 0;
	if (s->op == TOKIO_RESPONDS) {
		c->flags &= ~CONN_SERVING;
		return 0;
	}
	c->request = s->request; /* as on_bytes does */
	c->flags |= CONN_SERVING;
	tokio_reads(tgid, s->id, key, s->request);
	return 0;
}

struct stream_step {
	u64 id;	  /* out: of the stream's request */
	u64 word; /* the first bytes of a frame */
	u32 conn;
	u32 stream;
	u32 told;  /* out */
	u32 block; /* out: where its block begins */
};

struct bytes_in {
	u64 word;
	u32 n;
	u32 block;   /* out: enum block_start */
	u32 preface; /* out */
	u32 usual;   /* out: of the header of a frame, the stream's number being stream */
	u32 stream;
	u32 pad;
};

SEC("syscall")
int http2_bytes(struct bytes_in *in)
{
	u32 head = bpf_ntohl(in->word);

	in->block = begins_block(in->word, in->n);
	in->preface = begins_preface(in->word, in->n);
	in->usual = is_usual(head >> 8, head & 0xff, (u8)(in->word >> 32), bpf_htonl(in->stream));
	return 0;
}

SEC("syscall")
int stream(struct stream_step *s)
{
	u64 key = s->conn;
	struct conn *c = conn_find(key, 0);

	if (!c) {
		c = conn_add(key, 0, 7, 0);
		if (!c)
			return 0;
		speaks_http2(c, ROLE_CLIENT);
	}
	s->id = stream_request(c, s->stream);
	s->told = caller_told(c, s->stream);
	s->block = headers_frame(s->word);
	return 0;
}
