/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * What the kernel side and user space share: event kinds, their structs, and the counters. It is
 * written here only; bpf2go gives it to Go. All fields are little-endian, fixed in width, and of
 * their natural alignment. Times are CLOCK_MONOTONIC, ns.
 */
#ifndef EVENT_H
#define EVENT_H

enum event_kind {
	EVENT_NONE,
	EVENT_CONN,	/* struct conn_event: a connection is seen for the first time */
	EVENT_DATA,	/* struct data_event: bytes moved */
	EVENT_PROGRESS, /* struct progress_event: how far a direction has come that was quiet */
	EVENT_END,	/* struct end_event: a direction, or the connection, has ended */
	EVENT_EXIT,	/* struct process_event: a watched process has ended */
	EVENT_EXEC,   /* struct process_event: a process has a new program; among events, without its name */
	EVENT_FORK,   /* struct process_event: a watched process has a child, watched from its birth */
	EVENT_LISTEN, /* struct process_event: a process listens on another TCP port */
	EVENT_MOVED,  /* struct process_event: a process was moved to another control group */
	EVENT_CGROUP, /* struct process_event: there is another control group of the cgroup2 hierarchy */
	EVENT_HANDOFF, /* struct handoff_event: a task has done something for a request that another one serves */
	EVENT_JOB, /* struct job_event: a thread has ended what another one waits for, that serves a request */
	EVENT_CALLER, /* struct caller_event: for whom a client's stream of HTTP/2 was opened, or a call made */
	EVENT_METHOD, /* struct method_event: of a stream, by the program's own memory */
};

enum direction {
	DIR_INGRESS, /* received by the process */
	DIR_EGRESS,  /* sent by the process */
};

enum event_flag {
	FLAG_NAMED = 1,		   /* the request id was made for these bytes */
	FLAG_LOST = 2,		   /* events of this connection were lost before this one */
	FLAG_UNREADABLE = 4,	   /* the bytes should have been captured, but the memory was not readable */
	FLAG_HAS_SEQ = 8,	   /* seq is a TCP sequence number */
	FLAG_CAUSE_GOROUTINE = 16, /* cause was found in a goroutine's context, else in a thread's */
	FLAG_CAUSE_INHERITED = 32, /* it is the context of a goroutine's ancestor */
	FLAG_URING = 64,	   /* moved by io_uring: position only */
	FLAG_CAUSE_TASK =
		128, /* what task holds is a task of another runtime; cause, if any, was found in its context */
	FLAG_HTTP2_SERVER = 256, /* the kernel side knows that it is HTTP/2, and who asks */
	FLAG_HTTP2_CLIENT = 512,
	FLAG_UNTOLD = 1024, /* FLAG_LOST, but there was room: it was not known what the bytes were */
};

/* How a connection ended; the order is that of probes.End. */
enum end_how {
	END_PEER,   /* the process read end-of-file */
	END_LOCAL,  /* the process shut its side down, or closed it */
	END_CLOSED, /* gone in both directions */
	END_RESET,  /* gone by an error */
};

enum {
	SMALL_PAYLOAD = 160,
	MEDIUM_PAYLOAD = 416,
	GATHER_PAYLOAD = 512, /* gathered from several segments */
	LARGE_PAYLOAD = 3992,
	ADDRESS_LEN = 108, /* sizeof(sockaddr_un.sun_path) */
	FILENAME_LEN = 256,
};

struct event_header {
	u32 kind; /* enum event_kind */
	u32 tgid; /* process, in the initial PID namespace */
	u64 time; /* of the hook */
};

/* conn_event introduces a connection; every other event names it by its id. */
struct conn_event {
	struct event_header hdr;
	u64 conn;	/* id, unique for the life of the kernel side */
	u64 key;	/* address of the struct sock: key in conns */
	u64 peer;	/* Unix sockets: address of the peer's struct sock, else 0 */
	u32 netns;	/* inode of the network namespace */
	u16 family;	/* AF_INET, AF_INET6, AF_UNIX */
	u16 local_port; /* host order */
	u16 remote_port;
	u8 established; /* it was open before it was seen */
	u8 pad;
	u8 local[ADDRESS_LEN]; /* 4 or 16 bytes, or the path */
	u8 remote[ADDRESS_LEN];
	u32 pad2;
};

/* data_event carries bytes that a watched process sent or received. */
struct data_event {
	struct event_header hdr;
	u64 begin; /* when the first byte was on its way; equals hdr.time for ingress */
	u64 conn;
	u64 pos;	 /* bytes before these in this direction, since the connection was first seen */
	u64 request;	 /* id of the request or call that is under way on the connection, or 0 */
	u64 cause;	 /* of a call: the request that was current where it was made, or 0 */
	u64 task;	 /* goroutine id, or what FLAG_CAUSE_TASK says, or 0 */
	u64 parent_task; /* id of the goroutine that started it, or 0; only for calls */
	u32 tid;
	u32 total;    /* bytes that moved */
	u32 seq;      /* TCP sequence number of the first of them */
	u16 captured; /* how many of the first are in payload */
	u8 tail;      /* how many of the last follow them there */
	u8 dir;	      /* enum direction */
	u32 flags;    /* enum event_flag */
	u32 pad;
};
_Static_assert(sizeof(struct data_event) == 96, "hole in data_event");

struct progress_event {
	struct event_header hdr; /* time: of the last byte */
	u64 conn;
	u64 pos; /* bytes so far */
	u32 dir;
	u32 pad;
};

struct end_event {
	struct event_header hdr;
	u64 conn;
	u64 pos[2];  /* bytes so far, by direction */
	u64 last[2]; /* when the last of them moved, by direction; 0: none */
	u32 how;     /* enum end_how */
	u32 flags;   /* FLAG_LOST */
};

struct handoff_event {
	struct event_header hdr;
	u64 task;    /* goroutine id of who did it */
	u64 request; /* that which the one who waited for it serves */
};

struct caller_event {
	struct event_header hdr;
	u64 call;  /* the stream's id, or the call's */
	u64 cause; /* the request that was current where it was opened, or 0 */
	u64 task;  /* goroutine, or task, that opened it */
	u64 parent_task;
	u32 flags; /* FLAG_CAUSE_* */
	u32 pad;
};

enum { METHOD_LEN = 128 };

struct method_event {
	struct event_header hdr;
	u64 conn;
	u32 stream;
	u32 len;
	u8 method[METHOD_LEN]; /* gRPC's, "/package.Service/Method" */
};

struct job_event {
	struct event_header hdr;
	u64 call;    /* the last one that the thread has made; nobody knows for whom */
	u64 request; /* that which the one who waited for it serves */
	u32 unclaimed; /* such calls that the thread has made before, since its last event, and nobody seemed to wait for */
	u32 pad;
};

struct process_event {
	struct event_header hdr;
	u64 of; /* of a fork, the parent; of a control group, its id; of an exec, that of the one for which it is watched, or 0 */
	u8 name[FILENAME_LEN]; /* of an exec, the file as it was given; of a control group, its path; NUL-terminated */
};

/* What is counted, summed over all processors. */
enum stat {
	STAT_EVENTS,		/* records given to the ring buffer */
	STAT_RING_FULL,		/* records for which it had no room */
	STAT_CONNS_FULL,	/* connections for which conns had no room */
	STAT_TARGETS_FULL,	/* children of watched processes for which targets had no room */
	STAT_GOROUTINES_FULL,	/* goroutines whose request could not be kept */
	STAT_THREADS_FULL,	/* threads whose request could not be kept */
	STAT_TASKS_FULL,	/* tasks whose request could not be kept */
	STAT_UNREADABLE,	/* reads of a process's memory that failed */
	STAT_MUTED,		/* calls on connections that no protocol claims */
	STAT_AFTER_CLOSE,	/* calls on TCP sockets that were closed already: their bytes are not seen */
	STAT_PROCESS_RING_FULL, /* exec or fork events that were lost */
	STAT_MISSED_RETURNS,	/* calls of which a kretprobe did not tell: the kernel had no room for them */
	STAT_FRAMES_LOST,	/* times that it was not known where a frame of HTTP/2 begins */
	STATS,
};

#endif
