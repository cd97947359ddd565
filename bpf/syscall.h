/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * What the saved user registers say of the system call that a task is in: which one, and where its
 * bytes lie in the process's memory.
 */
#ifndef SYSCALL_H
#define SYSCALL_H

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
	NR_SPLICE = 275,
	NR_PREADV2 = 327,
	NR_PWRITEV2 = 328,
	NR_RECVMMSG = 299,
	NR_SENDMMSG = 307,
	NR_IO_URING_ENTER = 426,
};
#define CALL_NR(r) ((s32)(r)->orig_ax)
#define CALL_ARG1(r) ((r)->di)
#define CALL_ARG2(r) ((r)->si)
#define CALL_ARG3(r) ((r)->dx)
#define CALL_ARG4(r) ((r)->r10)
#define USER_SP(r) ((r)->sp)
#define USER_G(r) ((r)->r14) /* Go: the running goroutine, ABIInternal */
#define IS_64_BIT(r) ((r)->cs == 0x33)
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
#define CALL_NR(r) ((r)->syscallno)
#define CALL_ARG1(r) ((r)->orig_x0)
#define CALL_ARG2(r) ((r)->regs[1])
#define CALL_ARG3(r) ((r)->regs[2])
#define CALL_ARG4(r) ((r)->regs[3])
#define USER_SP(r) ((r)->sp)
#define USER_G(r) ((r)->regs[28])
#define IS_64_BIT(r) (!((r)->pstate & 0x10)) /* PSR_MODE32_BIT */
#endif

/* Where the bytes of a call lie in the process's memory. */
struct buffer {
	u64 base;     /* of the bytes, or of an array of struct iovec; 0: they do not lie there */
	u32 segments; /* length of the array; 0: there is none */
};

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
static __always_inline struct buffer call_buffer(struct pt_regs *regs, u32 index)
{
	struct buffer buf = {};

	if (!IS_64_BIT(regs))
		return buf;
	switch (CALL_NR(regs)) {
	case NR_READ:
	case NR_WRITE:
	case NR_RECVFROM:
	case NR_SENDTO:
		buf.base = CALL_ARG2(regs);
		break;
	case NR_READV:
	case NR_WRITEV:
	case NR_PREADV2:
	case NR_PWRITEV2:
		buf.base = CALL_ARG2(regs);
		buf.segments = CALL_ARG3(regs);
		break;
	case NR_RECVMSG:
	case NR_SENDMSG:
		return message_buffer(CALL_ARG2(regs));
	case NR_RECVMMSG:
	case NR_SENDMMSG:
		return message_buffer(CALL_ARG2(regs) + (u64)index * sizeof(struct mmsghdr));
	}
	return buf;
}

#endif
