/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * The kernel's types, reduced to the fields that are read. Their offsets are relocated at load (CO-RE),
 * so order and gaps mean nothing. A field that the kernel renamed has a flavour (name___version) beside it.
 */
#ifndef __VMLINUX_H__
#define __VMLINUX_H__

typedef unsigned char __u8;
typedef signed char __s8;
typedef unsigned short __u16;
typedef signed short __s16;
typedef unsigned int __u32;
typedef signed int __s32;
typedef unsigned long long __u64;
typedef signed long long __s64;
typedef __u8 u8;
typedef __u16 u16;
typedef __u32 u32;
typedef __u64 u64;
typedef __s8 s8;
typedef __s16 s16;
typedef __s32 s32;
typedef __s64 s64;
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u64 __be64;
typedef __u16 __le16;
typedef __u32 __le32;
typedef __u64 __le64;
typedef __u16 __sum16;
typedef __u32 __wsum;
typedef _Bool bool;
enum { false = 0, true = 1 };
typedef int pid_t;
typedef unsigned long size_t;

enum bpf_map_type {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
	BPF_MAP_TYPE_LRU_HASH = 9,
	BPF_MAP_TYPE_RINGBUF = 27,
	BPF_MAP_TYPE_TASK_STORAGE = 29,
};

enum {
	BPF_ANY = 0,
	BPF_NOEXIST = 1,
	BPF_F_NO_PREALLOC = 1,
	BPF_F_MMAPABLE = 1024,
	BPF_LOCAL_STORAGE_GET_F_CREATE = 1,
	BPF_RB_NO_WAKEUP = 1,
	BPF_RB_FORCE_WAKEUP = 2,
	BPF_RB_AVAIL_DATA = 0,
};

enum {
	PF_IO_WORKER = 0x10, /* include/linux/sched.h */
};

enum {
	AF_UNIX = 1,
	AF_INET = 2,
	AF_INET6 = 10,
	SOCK_STREAM = 1,
	IPPROTO_TCP = 6,
	RCV_SHUTDOWN = 1,
	SHUTDOWN_MASK = 3,
	SOCK_DONE = 1 << 1, /* in skc_flags: the peer's FIN has come */
	S_IFMT = 0170000,
	S_IFSOCK = 0140000,
	MSG_OOB = 1,
	MSG_PEEK = 2,
	MSG_TRUNC = 0x20,
	MSG_ERRQUEUE = 0x2000,
};

/* include/net/tcp_states.h */
enum {
	TCP_ESTABLISHED = 1,
	TCP_SYN_SENT = 2,
	TCP_CLOSE_WAIT = 8,
	TCP_FIN_WAIT1 = 4,
	TCP_CLOSE = 7,
	TCP_LAST_ACK = 9,
	TCP_LISTEN = 10,
};

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

#if defined(__TARGET_ARCH_x86)
struct pt_regs {
	unsigned long r15;
	unsigned long r14;
	unsigned long r10;
	unsigned long bx;
	unsigned long r8;
	unsigned long cx;
	unsigned long dx;
	unsigned long si;
	unsigned long di;
	unsigned long ax;
	unsigned long orig_ax;
	unsigned long sp;
	u16 cs;
};
#elif defined(__TARGET_ARCH_arm64)
struct user_pt_regs {
	u64 regs[31];
	u64 sp;
	u64 pc;
	u64 pstate;
};
struct pt_regs {
	union {
		struct user_pt_regs user_regs;
		struct {
			u64 regs[31];
			u64 sp;
			u64 pc;
			u64 pstate;
		};
	};
	u64 orig_x0;
	s32 syscallno;
};
#endif

typedef struct {
	int counter;
} atomic_t;

typedef struct {
	s64 counter;
} atomic64_t;

struct ns_common {
	unsigned int inum;
};

struct net {
	struct ns_common ns;
};

typedef struct {
	struct net *net;
} possible_net_t;

struct in6_addr {
	union {
		__u8 u6_addr8[16];
	} in6_u;
};

struct sock_common {
	__be32 skc_daddr;
	__be32 skc_rcv_saddr;
	__be16 skc_dport;
	__u16 skc_num;
	unsigned short skc_family;
	volatile unsigned char skc_state;
	possible_net_t skc_net;
	unsigned long skc_flags;
	struct in6_addr skc_v6_daddr;
	struct in6_addr skc_v6_rcv_saddr;
};

struct socket;

struct sock {
	struct sock_common __sk_common;
	int sk_err;
	struct socket *sk_socket;
	u16 sk_protocol;
	u16 sk_type;
	u8 sk_shutdown;
};

struct tcp_sock {
	u32 copied_seq;
	u32 write_seq;
	u32 rcv_nxt;
	u32 snd_una;
	u64 bytes_received;
	u64 bytes_acked;
};

struct sockaddr_un {
	unsigned short sun_family;
	char sun_path[108];
};

struct unix_address {
	int len;
	struct sockaddr_un name[0];
};

struct unix_sock {
	struct unix_address *addr;
	struct sock *peer;
};

struct super_block {
	u32 s_dev;
};

struct inode {
	unsigned short i_mode;
	struct super_block *i_sb;
	unsigned long i_ino;
};

typedef struct {
	atomic64_t refcnt;
} file_ref_t;

struct file {
	struct inode *f_inode;
	void *private_data;
	file_ref_t f_ref; /* 6.13, commit 90ee6ed776c0 */
};

struct file___6_12 {
	atomic64_t f_count;
};

struct socket {
	struct file *file;
	struct sock *sk;
};

struct fdtable {
	unsigned int max_fds;
	struct file **fd;
};

struct files_struct {
	struct fdtable *fdt;
};

struct signal_struct {
	atomic_t live;
};

struct kernfs_node {
	struct kernfs_node *__parent; /* parent before 6.15 */
	u64 id;
};

struct kernfs_node___6_14 {
	struct kernfs_node *parent;
};

struct cgroup_root {
	int hierarchy_id; /* 0: cgroup2 */
};

struct cgroup {
	struct kernfs_node *kn;
	struct cgroup_root *root;
};

struct css_set {
	struct cgroup *dfl_cgrp;
};

#if defined(__TARGET_ARCH_x86)
struct thread_struct {
	unsigned long fsbase;
};
#endif

struct sched_info {
	unsigned long long last_arrival;
};

struct task_struct {
#if defined(__TARGET_ARCH_x86)
	struct thread_struct thread;
#endif
	pid_t pid;
	pid_t tgid;
	unsigned int flags;
	void *stack;
	void *io_uring;
	struct files_struct *files;
	struct signal_struct *signal;
	struct css_set *cgroups;
	struct sched_info sched_info;
};

struct page {
	unsigned long flags;
};

struct iovec;
struct kvec;
struct bio_vec;

struct iov_iter {
	u8 iter_type;
	size_t iov_offset;
	size_t count;
	const struct iovec *__iov;
	const struct kvec *kvec;
	const struct bio_vec *bvec;
	void *ubuf;
};

struct iov_iter___6_3 {
	const struct iovec *iov; /* __iov since 6.4, commit de4f5fed3f23 */
};

struct iov_iter___5_13 {
	unsigned int
		type; /* iter_type since 5.14, commit 8cd54c1c8480; with the direction in its lowest bit */
};

/* Its values differ between kernels, and are relocated. */
enum iter_type {
	ITER_IOVEC,
	ITER_KVEC,
	ITER_BVEC,
	ITER_UBUF, /* since 6.0 */
};

struct msghdr {
	struct iov_iter msg_iter;
};

struct linux_binprm {
	struct file *file;
	const char *filename;
};

#pragma clang attribute pop

/* User space's structures are not relocated. */
struct iovec {
	u64 iov_base;
	u64 iov_len;
};

struct user_msghdr {
	u64 msg_name;
	u64 msg_namelen;
	u64 msg_iov;
	u64 msg_iovlen;
	u64 msg_control;
	u64 msg_controllen;
	u64 msg_flags;
};

struct mmsghdr {
	struct user_msghdr msg_hdr;
	u32 msg_len;
	u32 pad;
};

#endif
