/* SPDX-License-Identifier: MIT */
#include "private.h"

#include <errno.h>
#include <stddef.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>

/* What a system call leaves in rax when the kernel is to restart it unless a handler runs
 * (include/linux/errno.h); user space never sees it. */
#define ERESTARTNOHAND 514

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

int64_t cprof_arch_syscall(const struct user_regs_struct *regs, uint64_t arguments[6])
{
	const uint64_t values[6] = {regs->rdi, regs->rsi, regs->rdx, regs->r10, regs->r8, regs->r9};

	for (int i = 0; i < 6; i++)
		arguments[i] = values[i];
	return (int64_t)regs->orig_rax < 0 ? -1 : (int64_t)regs->orig_rax;
}
