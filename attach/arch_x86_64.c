/* SPDX-License-Identifier: MIT */
#include "remote.h"

#include <cprof/util.h>
#include <cpuid.h>
#include <elf.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>

/* What a system call leaves in rax when the kernel is to restart it unless a handler runs
 * (include/linux/errno.h); user space never sees it. */
#define ERESTARTSYS    512
#define ERESTARTNOHAND 514
#define ERESTARTBLOCK  516
#define SYSCALL_LENGTH 2
#define RSEQ_CS        8 /* offset in struct rseq */

/*
 * epoll_wait, sigtimedwait, semop, … answer -EINTR to any wake-up and never restart. At the stop
 * the kernel has not yet looked at that answer: ours, ERESTARTNOHAND, makes it choose as it does
 * for poll: with a handler to run the call returns -EINTR, as it would have without us; with none
 * it starts anew. There is no moment at which a signal could come in between.
 *
 * close() must not be restarted: its descriptor is gone already.
 */
void cprof_arch_restart(pid_t tid, struct user_regs_struct *regs)
{
	int64_t number = (int64_t)regs->orig_rax;

	if ((int64_t)regs->rax != -EINTR || number < 0 || number == SYS_close)
		return;
	ptrace(PTRACE_POKEUSER, tid, offsetof(struct user, regs.rax), (long)-ERESTARTNOHAND);
}

void cprof_arch_regs(const struct user_regs_struct *from, struct cprof_regs *to)
{
	*to = (struct cprof_regs){
		.value = {from->rax, from->rdx, from->rcx, from->rbx, from->rsi, from->rdi,
			  from->rbp, from->rsp, from->r8, from->r9, from->r10, from->r11, from->r12,
			  from->r13, from->r14, from->r15, from->rip},
		.known = (1u << CPROF_REGISTERS) - 1,
	};
}

bool cprof_arch_may_fork(const struct user_regs_struct *regs)
{
	switch ((int64_t)regs->orig_rax) {
	case SYS_fork:
	case SYS_vfork:
	case SYS_clone:
	case SYS_clone3:
	case SYS_wait4:
	case SYS_waitid:
		return true;
	default:
		return (int64_t)regs->orig_rax < 0;
	}
}

bool cprof_arch_is_futex(uint64_t number)
{
	return number == SYS_futex;
}

bool cprof_arch_is_restarted(uint64_t number)
{
	switch (number) {
	case SYS_futex:
	case SYS_poll:
	case SYS_ppoll:
	case SYS_select:
	case SYS_pselect6:
	case SYS_nanosleep:
	case SYS_clock_nanosleep:
	case SYS_pause:
	case SYS_rt_sigsuspend:
		return true;
	default:
		return false;
	}
}

void cprof_arch_in_syscall(const uint64_t words[8], struct user_regs_struct *regs)
{
	*regs = (struct user_regs_struct){
		.orig_rax = words[0],
		.rdi = words[1],
		.rsi = words[2],
		.rdx = words[3],
		.r10 = words[4],
		.r8 = words[5],
		.r9 = words[6],
		.rsp = words[7],
	};
}

void cprof_arch_at(uint64_t sp, uint64_t pc, struct user_regs_struct *regs)
{
	*regs = (struct user_regs_struct){.orig_rax = (uint64_t)-1, .rsp = sp, .rip = pc};
}

int64_t cprof_arch_syscall(const struct user_regs_struct *regs, uint64_t arguments[6])
{
	const uint64_t values[6] = {regs->rdi, regs->rsi, regs->rdx, regs->r10, regs->r8, regs->r9};

	for (int i = 0; i < 6; i++)
		arguments[i] = values[i];
	return (int64_t)regs->orig_rax < 0 ? -1 : (int64_t)regs->orig_rax;
}

/* --- the dead-man frame -------------------------------------------------------------------- */

#define RED_ZONE     128
#define SW_RESERVED  464 /* in the FXSAVE area: struct _fpx_sw_bytes */
#define XSAVE_HEADER 512 /* XSTATE_BV first */
#define XSAVE_MIN    576
#define DYNAMIC      (3ull << 17) /* AMX: saved only for who has used it */

/* struct rt_sigframe and the structures in it (arch/x86/include/asm/sigframe.h). */
struct signal_frame {
	uint64_t restorer;
	uint64_t flags; /* UC_* */
	uint64_t link;
	uint64_t altstack_sp;
	uint32_t altstack_flags;
	uint32_t padding;
	uint64_t altstack_size;
	uint64_t r8, r9, r10, r11, r12, r13, r14, r15;
	uint64_t rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip, eflags;
	uint16_t cs, gs, fs, ss;
	uint64_t err, trapno, oldmask, cr2;
	uint64_t fpstate; /* address */
	uint64_t reserved[8];
	uint64_t mask;
	uint8_t info[128];
};
_Static_assert(sizeof(struct signal_frame) == 440, "as the kernel's");

#define UC_FP_XSTATE         1
#define UC_SIGCONTEXT_SS     2
#define UC_STRICT_RESTORE_SS 4
/* SS_ONSTACK | SS_DISABLE is refused, and rt_sigreturn then leaves the alternate stack alone. */
#define ALTSTACK_INVALID 3
/* The direction flag must be clear by the ABI; a single step is not for us. */
#define EFLAGS_CLEAR (1ull << 10 | 1ull << 8)
#define USER_CS      0x33

static uint64_t xcr0;
static uint32_t feature_end[64]; /* of each in the standard format */

void cprof_arch_init(void)
{
	uint32_t low;
	uint32_t high;

	__asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
	xcr0 = (uint64_t)high << 32 | low;
	if (!(xcr0 & DYNAMIC))
		return;
	/* CPUID leaves a virtual machine: asked only where it matters. */
	for (unsigned i = 2; i < 63; i++) {
		uint32_t size;
		uint32_t offset;
		uint32_t c;
		uint32_t d;

		if (!(xcr0 & 1ull << i))
			continue;
		__cpuid_count(0xd, i, size, offset, c, d);
		feature_end[i] = offset + size;
	}
}

/* Describes the area as the kernel does for its own frames; returns its size, 0 if it is odd. */
static size_t finish_xsave(uint8_t *area, size_t length)
{
	struct _fpx_sw_bytes *words = (struct _fpx_sw_bytes *)(area + SW_RESERVED);
	const uint32_t magic2 = FP_XSTATE_MAGIC2;
	uint64_t features = xcr0;
	uint64_t used;

	if (length < XSAVE_MIN)
		return 0;
	memcpy(&used, area + XSAVE_HEADER, sizeof(used));
	if (features & DYNAMIC & ~used) {
		features &= ~DYNAMIC | used;
		length = XSAVE_MIN;
		for (unsigned i = 2; i < 63; i++)
			if (features & 1ull << i)
				length = CPROF_MAX(length, feature_end[i]);
	}
	memset(words, 0, sizeof(*words));
	words->magic1 = FP_XSTATE_MAGIC1;
	words->xstate_bv = features;
	words->xstate_size = (uint32_t)length;
	words->extended_size = (uint32_t)(length + sizeof(magic2));
	memcpy(area + length, &magic2, sizeof(magic2));
	return length + sizeof(magic2);
}

static bool read_words(pid_t pid, uint64_t address, void *to, size_t length)
{
	struct iovec local = {to, length};
	struct iovec remote = {(void *)(uintptr_t)address, length};

	return process_vm_readv(pid, &local, 1, &remote, 1, 0) == (ssize_t)length;
}

/* The call that a thread is in. Of one that the kernel restarts rt_sigreturn makes it forget which
 * it was; the code says it, where it is written as it is by compilers: mov $number,%eax; syscall.
 */
static uint64_t call_number(pid_t tid, const struct user_regs_struct *regs)
{
	uint8_t code[7];
	uint32_t number;

	if (regs->orig_rax != SYS_restart_syscall ||
	    !read_words(tid, regs->rip - sizeof(code), code, sizeof(code)) || code[0] != 0xb8 ||
	    code[5] != 0x0f || code[6] != 0x05)
		return regs->orig_rax;
	memcpy(&number, code + 1, sizeof(number));
	return cprof_arch_is_restarted(number) ? number : regs->orig_rax;
}

static void fill_signal_frame(pid_t tid, const struct user_regs_struct *regs,
			      struct signal_frame *frame)
{
	int64_t error = (int64_t)regs->rax;

	*frame = (struct signal_frame){
		.flags = UC_FP_XSTATE | UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS,
		.altstack_flags = ALTSTACK_INVALID,
		.r8 = regs->r8,
		.r9 = regs->r9,
		.r10 = regs->r10,
		.r11 = regs->r11,
		.r12 = regs->r12,
		.r13 = regs->r13,
		.r14 = regs->r14,
		.r15 = regs->r15,
		.rdi = regs->rdi,
		.rsi = regs->rsi,
		.rbp = regs->rbp,
		.rbx = regs->rbx,
		.rdx = regs->rdx,
		.rax = regs->rax,
		.rcx = regs->rcx,
		.rsp = regs->rsp,
		.rip = regs->rip,
		.eflags = regs->eflags,
		.cs = (uint16_t)regs->cs,
		.gs = (uint16_t)regs->gs,
		.fs = (uint16_t)regs->fs,
		.ss = (uint16_t)regs->ss,
	};
	/* rt_sigreturn restarts nothing: the call is begun anew. */
	if ((int64_t)regs->orig_rax >= 0 && error <= -ERESTARTSYS && error >= -ERESTARTBLOCK) {
		frame->rip -= SYSCALL_LENGTH;
		frame->rax = call_number(tid, regs);
	}
}

bool cprof_arch_frame(pid_t tid, const struct user_regs_struct *regs, uint64_t mask,
		      uint64_t restorer, struct cprof_arch_frame *frame)
{
	static _Alignas(64) uint8_t xsave[CPROF_FRAME_ROOM - 2048];
	struct iovec state = {.iov_base = xsave, .iov_len = sizeof(xsave) - 8};
	struct signal_frame *signal;
	uint64_t area;
	size_t length;

	if (ptrace(PTRACE_GETREGSET, tid, (void *)NT_X86_XSTATE, &state) != 0)
		return false;
	length = finish_xsave(xsave, state.iov_len);
	if (!length)
		return false;
	area = (regs->rsp - RED_ZONE - length) & ~63ull;
	frame->frame = ((area - sizeof(*signal)) & ~15ull) - 8;
	frame->block = (frame->frame - sizeof(struct cprof_remote_block)) & ~63ull;
	frame->length = area + length - frame->block;
	memset(frame->bytes, 0, area - frame->block);
	memcpy(frame->bytes + (area - frame->block), xsave, length);
	signal = (struct signal_frame *)(frame->bytes + (frame->frame - frame->block));
	fill_signal_frame(tid, regs, signal);
	signal->restorer = restorer;
	signal->mask = mask;
	signal->fpstate = area;
	return true;
}

/* --- registers of remote calls ------------------------------------------------------------- */

void cprof_arch_enter_syscall(const struct cprof_arch_frame *frame, uint64_t gadget, long number,
			      const uint64_t arguments[6], struct user_regs_struct *regs)
{
	regs->orig_rax = (uint64_t)-1; /* nothing is to be restarted */
	regs->rax = (uint64_t)number;
	regs->rdi = arguments[0];
	regs->rsi = arguments[1];
	regs->rdx = arguments[2];
	regs->r10 = arguments[3];
	regs->r8 = arguments[4];
	regs->r9 = arguments[5];
	regs->rip = gadget;
	regs->rsp = frame->frame;
	regs->eflags &= ~EFLAGS_CLEAR;
}

void cprof_arch_enter_routine(const struct cprof_arch_frame *frame, uint64_t routine,
			      struct user_regs_struct *regs)
{
	regs->orig_rax = (uint64_t)-1;
	regs->rax = 0;
	regs->rdi = frame->block;
	regs->rip = routine;
	regs->rsp = frame->block - 8; /* as after a call */
	regs->eflags &= ~EFLAGS_CLEAR;
}

/* struct rseq_cs (linux/rseq.h) */
struct sequence {
	uint32_t version, flags;
	uint64_t start, length, abort;
};

bool cprof_arch_borrowable(pid_t pid, pid_t tid, const struct user_regs_struct *regs)
{
	struct __ptrace_rseq_configuration rseq = {.rseq_abi_pointer = 0};
	struct sequence sequence;
	uint64_t address;

	if (regs->cs != USER_CS)
		return false;
	if ((int64_t)regs->orig_rax >= 0) /* no sequence contains a system call */
		return regs->orig_rax != SYS_vfork;
	if (ptrace(PTRACE_GET_RSEQ_CONFIGURATION, tid, sizeof(rseq), &rseq) < 0)
		return false;
	if (!rseq.rseq_abi_pointer)
		return true;
	if (!read_words(pid, rseq.rseq_abi_pointer + RSEQ_CS, &address, sizeof(address)))
		return false;
	/* A stale pointer stays until the kernel looks: only where the thread is counts. */
	return !address || (read_words(pid, address, &sequence, sizeof(sequence)) &&
			    regs->rip - sequence.start >= sequence.length);
}
