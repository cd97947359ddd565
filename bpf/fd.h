/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/* From a file descriptor of a task to the stream socket behind it. */
#ifndef FD_H
#define FD_H

#include <bpf/bpf_core_read.h>

struct fd_socket {
	struct sock *sk; /* 0: it is no stream socket */
	struct file *file;
	u64 inode;
	u16 family;
};

static __always_inline bool is_stream(u16 family, u16 type, u16 protocol)
{
	if (type != SOCK_STREAM)
		return false;
	return family == AF_UNIX || ((family == AF_INET || family == AF_INET6) && protocol == IPPROTO_TCP);
}

/* A function of its own, for the sake of the stack. */
static __noinline int read_fd_socket(struct task_struct *task, u32 fd, struct fd_socket *s)
{
	struct fdtable *fdt = BPF_CORE_READ(task, files, fdt);
	struct socket *sock;
	struct sock *sk;
	struct file *file;
	struct inode *inode;
	struct file **slot;

	if (fd >= BPF_CORE_READ(fdt, max_fds))
		return 0;
	slot = BPF_CORE_READ(fdt, fd);
	if (bpf_probe_read_kernel(&file, sizeof(file), slot + fd) || !file)
		return 0;
	inode = BPF_CORE_READ(file, f_inode);
	if ((BPF_CORE_READ(inode, i_mode) & S_IFMT) != S_IFSOCK)
		return 0;
	sock = BPF_CORE_READ(file, private_data);
	sk = BPF_CORE_READ(sock, sk);
	if (!sk)
		return 0;
	s->family = BPF_CORE_READ(sk, __sk_common.skc_family);
	if (!is_stream(s->family, BPF_CORE_READ(sk, sk_type), BPF_CORE_READ(sk, sk_protocol)))
		return 0;
	s->sk = sk;
	s->file = file;
	s->inode = BPF_CORE_READ(inode, i_ino);
	return 0;
}

static __always_inline struct fd_socket fd_socket(struct task_struct *task, u32 fd)
{
	struct fd_socket s = {};

	read_fd_socket(task, fd, &s);
	return s;
}

/* Whether this descriptor is the only one of its file. */
static __always_inline bool only_descriptor(struct file *file)
{
	if (bpf_core_field_exists(file->f_ref))
		return BPF_CORE_READ(file, f_ref.refcnt.counter) == 0; /* counts from 0 */
	return BPF_CORE_READ((struct file___6_12 *)file, f_count.counter) == 1;
}

#endif
