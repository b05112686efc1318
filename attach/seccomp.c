/* SPDX-License-Identifier: MIT
 *
 * Whether a thread's seccomp filters would let our calls pass, found by running them.
 */
#include "remote.h"

#include <cprof/util.h>
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>

struct machine {
	uint32_t a;
	uint32_t x;
	uint32_t memory[BPF_MEMWORDS];
	const uint8_t *data;
	size_t length;
};

static bool load(struct machine *machine, const struct sock_filter *code)
{
	uint32_t *to = BPF_CLASS(code->code) == BPF_LD ? &machine->a : &machine->x;

	switch (BPF_MODE(code->code)) {
	case BPF_IMM:
		*to = code->k;
		return true;
	case BPF_ABS:
		if (code->k > machine->length - 4)
			return false;
		memcpy(to, machine->data + code->k, 4);
		return true;
	case BPF_MEM:
		if (code->k >= BPF_MEMWORDS)
			return false;
		*to = machine->memory[code->k];
		return true;
	case BPF_LEN:
		*to = (uint32_t)machine->length;
		return true;
	default:
		return false;
	}
}

static bool calculate(struct machine *machine, const struct sock_filter *code)
{
	uint32_t other = BPF_SRC(code->code) == BPF_X ? machine->x : code->k;

	switch (BPF_OP(code->code)) {
	case BPF_ADD:
		machine->a += other;
		return true;
	case BPF_SUB:
		machine->a -= other;
		return true;
	case BPF_MUL:
		machine->a *= other;
		return true;
	case BPF_AND:
		machine->a &= other;
		return true;
	case BPF_OR:
		machine->a |= other;
		return true;
	case BPF_XOR:
		machine->a ^= other;
		return true;
	case BPF_NEG:
		machine->a = -machine->a;
		return true;
	case BPF_LSH:
		machine->a = other < 32 ? machine->a << other : 0;
		return true;
	case BPF_RSH:
		machine->a = other < 32 ? machine->a >> other : 0;
		return true;
	case BPF_DIV:
		machine->a = other ? machine->a / other : 0;
		return other != 0;
	case BPF_MOD:
		machine->a = other ? machine->a % other : 0;
		return other != 0;
	default:
		return false;
	}
}

/* How many instructions a jump skips. */
static uint64_t jump(const struct machine *machine, const struct sock_filter *code)
{
	uint32_t other = BPF_SRC(code->code) == BPF_X ? machine->x : code->k;
	bool yes;

	switch (BPF_OP(code->code)) {
	case BPF_JEQ:
		yes = machine->a == other;
		break;
	case BPF_JGT:
		yes = machine->a > other;
		break;
	case BPF_JGE:
		yes = machine->a >= other;
		break;
	case BPF_JSET:
		yes = machine->a & other;
		break;
	default:
		return code->k; /* BPF_JA */
	}
	return yes ? code->jt : code->jf;
}

uint32_t cprof_seccomp_run(const struct sock_filter *filter, size_t count, uint32_t number,
			   const uint64_t arguments[6], uint64_t ip)
{
	struct seccomp_data data = {
		.nr = (int)number, .arch = AUDIT_ARCH_X86_64, .instruction_pointer = ip};
	struct machine machine = {.data = (const uint8_t *)&data, .length = sizeof(data)};

	for (int i = 0; i < 6; i++)
		data.args[i] = arguments[i];
	for (uint64_t at = 0; at < count; at++) {
		const struct sock_filter *code = &filter[at];
		bool good = true;

		switch (BPF_CLASS(code->code)) {
		case BPF_LD:
		case BPF_LDX:
			good = load(&machine, code);
			break;
		case BPF_ST:
		case BPF_STX:
			good = code->k < BPF_MEMWORDS;
			if (good)
				machine.memory[code->k] =
					BPF_CLASS(code->code) == BPF_ST ? machine.a : machine.x;
			break;
		case BPF_ALU:
			good = calculate(&machine, code);
			break;
		case BPF_JMP:
			at += jump(&machine, code); /* forward only: this ends */
			break;
		case BPF_RET:
			return BPF_RVAL(code->code) == BPF_A ? machine.a : code->k;
		case BPF_MISC:
			if (BPF_MISCOP(code->code) == BPF_TAX)
				machine.x = machine.a;
			else
				machine.a = machine.x;
			break;
		}
		if (!good)
			break;
	}
	return SECCOMP_RET_KILL_PROCESS;
}

/* --- our calls ----------------------------------------------------------------------------- */

#define ANY 0x10000ull /* an argument that no filter should care for */

struct needed {
	uint32_t number;
	uint32_t forbidden; /* enum cprof_agent_forbidden: it is done without; 0: refused */
	uint64_t arguments[6];
};

static const struct needed calls[] = {
	{SYS_memfd_create, 0, {ANY, 0}},
	{SYS_mmap, 0, {ANY, ANY, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_FIXED_NOREPLACE, 3, 0}},
	{SYS_mmap,
	 0,
	 {ANY, ANY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, ~0u,
	  0}},
	{SYS_mmap, 0, {ANY, ANY, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED_NOREPLACE, 3, 0}},
	{SYS_mprotect, 0, {ANY, ANY, PROT_READ | PROT_WRITE}},
	{SYS_mprotect, 0, {ANY, ANY, PROT_READ}},
	{SYS_madvise, 0, {ANY, ANY, MADV_WIPEONFORK}},
	{SYS_madvise, 0, {ANY, ANY, MADV_DONTFORK}},
#define CPROF_NEEDED_(name, number) {number, 0, {ANY, ANY}},
	CPROF_AGENT_ROUTINE_CALLS(CPROF_NEEDED_)
#undef CPROF_NEEDED_
		{SYS_gettid, CPROF_AGENT_FORBID_GETTID, {0}},
};

#define FILTERS_MAX 256

static bool allows(struct cprof_held *held, const struct sock_filter *filter, size_t count)
{
	struct cprof_remote *remote = held->remote;

	for (size_t i = 0; i < CPROF_COUNT(calls); i++) {
		uint32_t action = cprof_seccomp_run(filter, count, calls[i].number,
						    calls[i].arguments, remote->base) &
				  SECCOMP_RET_ACTION_FULL;

		if (action == SECCOMP_RET_ALLOW || action == SECCOMP_RET_LOG)
			continue;
		if (calls[i].forbidden) {
			cprof_remote_area(remote)->shared.forbidden |= calls[i].forbidden;
			continue;
		}
		remote->syscall = calls[i].number;
		remote->action = action;
		return cprof_held_fail(held, CPROF_REMOTE_SECCOMP, 0);
	}
	return true;
}

bool cprof_seccomp_check(struct cprof_held *held)
{
	static struct sock_filter filter[BPF_MAXINSNS];

	if (!held->seccomp)
		return true;
	for (unsigned i = 0; i < FILTERS_MAX; i++) {
		long count = ptrace(PTRACE_SECCOMP_GET_FILTER, held->tid, i, filter);

		if (count < 0 && errno == ENOENT && i > 0)
			return true;
		if (count < 0)
			return cprof_held_fail(held, CPROF_REMOTE_UNREADABLE, errno);
		if (!allows(held, filter, (size_t)count))
			return false;
	}
	return cprof_held_fail(held, CPROF_REMOTE_UNREADABLE, E2BIG);
}
