/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
#ifndef TARGET_MAP_H
#define TARGET_MAP_H

enum target_flag {
	TARGET_GO = 1,	   /* goroutines are the execution contexts, not threads */
	TARGET_URING = 2,  /* it was seen to move socket data by io_uring; set by programs */
	TARGET_PYTHON = 4, /* contexts are told apart */
	TARGET_JAVA = 8,   /* virtual threads are told apart */
	TARGET_NODE = 16,  /* what runs is known by its id */
	TARGET_TOKIO = 32, /* tasks of tokio are told apart */
	TARGET_TASKS = TARGET_PYTHON | TARGET_JAVA | TARGET_NODE | TARGET_TOKIO,
};

/* Where a Go library for HTTP/2 has what is read of it; offsets, bytes. */
struct stream_layout {
	u16 server_conn;   /* of the server's transport, its net.Conn */
	u16 client_conn;   /* the client's */
	u16 server_stream; /* of the server's stream, its number */
	u16 client_stream;
	u16 server_method; /* of the server's stream, its method, a string; 0: not known */
	u16 client_method;
	u16 indirect; /* a stream begins with the address of what has number and method */
	u16 guess;    /* the version is not known: what has been a layout of any version is tried */
};

/* A watched process. The counters are requests whose first event never reached user space. */
struct target {
	u32 flags;
	u16 goid;	    /* offset of runtime.g.goid, bytes */
	u16 parent_goid;    /* of runtime.g.parentGoid; 0: this Go has none */
	u16 persist_conn;   /* of net/http.persistConn.conn */
	u16 sysfd;	    /* of net.netFD.pfd.Sysfd */
	u16 family;	    /* of net.netFD.family */
	u16 sotype;	    /* of net.netFD.sotype */
	u16 context;	    /* of PyThreadState.context */
	u16 tss_key;	    /* 1 + the key of CPython's thread-specific data; 0: not read yet */
	u16 thread_object;  /* of JavaThread._threadObj */
	u16 virtual_thread; /* of JavaThread._vthread */
	u16 monitor_owner;  /* of JavaThread._monitor_owner_id; 0: there is none */
	u16 stack_base;	    /* of JavaThread._stack_base, before _stack_size */
	u16 thread_id;	    /* of java.lang.Thread.tid */
	u16 receivers;	    /* of runtime.hchan.recvq.first */
	u16 async_ids;	    /* of node::Environment, where the address of the ids is */
	u16 async_wrap_id;  /* of node::AsyncWrap, its id */
	u16 async_context;  /* which argument of node::InternalCallbackScope's constructor it is, from 0 */
	u16 task_some;	    /* before the id of tokio's task is a word that says whether there is one */
	struct stream_layout grpc;
	struct stream_layout http2;
	u64 auto_tss_key; /* address of _PyRuntime.gilstate.autoTSSkey in the process */
	u64 context_type; /* address of PyContext_Type */
	u64 task_id; /* where a thread has the id of tokio's task, from the thread pointer on; 0: not known */
	u64 waker_vtable; /* address of tokio's functions of a task's Waker */
	u64 ring_full;
	u64 map_full;
	u64 muted; /* runs of bytes on connections that no protocol claims */
};

/* By tgid. User space adds the processes that it selects and removes them; fork adds children. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__uint(map_flags, GROWING);
	__type(key, u32);
	__type(value, struct target);
} targets SEC(".maps");

static __always_inline struct target *target_of(u32 tgid)
{
	return bpf_map_lookup_elem(&targets, &tgid);
}

#endif
