/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * What the saved user registers say of the system call that a task is in: which one, and where its
 * bytes lie in the process's memory.
 */
#ifndef SYSCALL_H
#define SYSCALL_H

#include "iter.h"

#if defined(__TARGET_ARCH_x86)
/* arch/x86/entry/syscalls/syscall_64.tbl */
enum {
	NR_READ = 0,
	NR_WRITE = 1,
	NR_CLOSE = 3,
	NR_READV = 19,
	NR_WRITEV = 20,
	NR_SENDFILE = 40,
	NR_SENDTO = 44,
	NR_RECVFROM = 45,
	NR_SENDMSG = 46,
	NR_RECVMSG = 47,
	NR_SHUTDOWN = 48,
	NR_FUTEX = 202,
	NR_SPLICE = 275,
	NR_PREADV2 = 327,
	NR_PWRITEV2 = 328,
	NR_RECVMMSG = 299,
	NR_SENDMMSG = 307,
	NR_IO_URING_ENTER = 426,
};
#define REG_NR orig_ax
#define REG_ARGS di, si, dx, r10
#define REG_SP sp
#define REG_G r14 /* Go: the running goroutine, ABIInternal */
#define REG_JAVA r15
#define REG_MODE cs
#define IS_64_BIT(mode) ((u16)(mode) == 0x33)
#elif defined(__TARGET_ARCH_arm64)
/* include/uapi/asm-generic/unistd.h */
enum {
	NR_CLOSE = 57,
	NR_READ = 63,
	NR_WRITE = 64,
	NR_READV = 65,
	NR_WRITEV = 66,
	NR_SENDFILE = 71,
	NR_SPLICE = 76,
	NR_FUTEX = 98,
	NR_SENDTO = 206,
	NR_RECVFROM = 207,
	NR_SHUTDOWN = 210,
	NR_SENDMSG = 211,
	NR_RECVMSG = 212,
	NR_RECVMMSG = 243,
	NR_SENDMMSG = 269,
	NR_PREADV2 = 286,
	NR_PWRITEV2 = 287,
	NR_IO_URING_ENTER = 426,
};
#define REG_NR syscallno
#define REG_ARGS orig_x0, regs[1], regs[2], regs[3]
#define REG_SP sp
#define REG_G regs[28]
#define REG_JAVA regs[28]
#define REG_MODE pstate
#define IS_64_BIT(mode) (!((mode) & 0x10)) /* PSR_MODE32_BIT */
#endif

/* call_regs are the registers with which a task has entered the kernel. */
struct call_regs {
	s32 nr; /* of the system call */
	u32 is_64_bit;
	u64 args[4];
	u64 sp;
	u64 g;	  /* Go: address of the running runtime.g */
	u64 java; /* HotSpot: address of the running JavaThread, where Java code makes the call */
};

#define READ_REGS(read, arg1, arg2, arg3, arg4)                                                              \
	((struct call_regs){                                                                                 \
		.nr = read(REG_NR),                                                                          \
		.is_64_bit = IS_64_BIT(read(REG_MODE)),                                                      \
		.args = {read(arg1), read(arg2), read(arg3), read(arg4)},                                    \
		.sp = read(REG_SP),                                                                          \
		.g = read(REG_G),                                                                            \
		.java = read(REG_JAVA),                                                                      \
	})
#define READ_REGS_ARGS(read, ...) READ_REGS(read, __VA_ARGS__)

/* regs_at reads what the verifier knows as struct pt_regs. */
static __always_inline struct call_regs regs_at(const struct pt_regs *regs)
{
#define TRUSTED(reg) (regs->reg)
	return READ_REGS_ARGS(TRUSTED, REG_ARGS);
#undef TRUSTED
}

#ifdef OLD_KERNEL
enum { THREAD_SIZE = 16384 };

/* The registers are at the end of the task's kernel stack. */
static __always_inline struct call_regs task_regs(struct task_struct *task)
{
	struct pt_regs *regs =
		(void *)((u64)BPF_CORE_READ(task, stack) + THREAD_SIZE - bpf_core_type_size(struct pt_regs));
#define UNTRUSTED(reg) BPF_CORE_READ(regs, reg)
	return READ_REGS_ARGS(UNTRUSTED, REG_ARGS);
#undef UNTRUSTED
}
#else
static __always_inline struct call_regs task_regs(struct task_struct *task)
{
	return regs_at((struct pt_regs *)bpf_task_pt_regs(task));
}
#endif

static __always_inline struct buffer message_buffer(u64 msghdr)
{
	struct buffer buf = {};
	struct user_msghdr msg;

	if (bpf_probe_read_user(&msg, sizeof(msg), (void *)msghdr))
		return buf;
	buf.base = msg.msg_iov;
	buf.segments = msg.msg_iovlen;
	return buf;
}

/* index is that of the message in a sendmmsg or recvmmsg. */
static __always_inline struct buffer call_buffer(const struct call_regs *regs, u32 index)
{
	struct buffer buf = {};

	if (!regs->is_64_bit)
		return buf;
	switch (regs->nr) {
	case NR_READ:
	case NR_WRITE:
	case NR_RECVFROM:
	case NR_SENDTO:
		buf.base = regs->args[1];
		break;
	case NR_READV:
	case NR_WRITEV:
	case NR_PREADV2:
	case NR_PWRITEV2:
		buf.base = regs->args[1];
		buf.segments = regs->args[2];
		break;
	case NR_RECVMSG:
	case NR_SENDMSG:
		return message_buffer(regs->args[1]);
	case NR_RECVMMSG:
	case NR_SENDMMSG:
		return message_buffer(regs->args[1] + (u64)index * sizeof(struct mmsghdr));
	}
	return buf;
}

#endif
