/* SPDX-License-Identifier: MIT */
#include "arch.h"

#include <stddef.h>
#include <ucontext.h>

/* Any `call`: e8 rel32, or ff /2 with 0-5 bytes of ModRM operands (Intel SDM volume 2, CALL). */
static bool is_call(const uint8_t *before, size_t length)
{
	const uint8_t *end = before + length;

	if (length >= 5 && end[-5] == 0xe8)
		return true;
	for (size_t size = 2; size <= 7 && size <= length; size++)
		if (end[-(ptrdiff_t)size] == 0xff && (end[1 - (ptrdiff_t)size] & 0x38) == 0x10)
			return true;
	return false;
}

/* `syscall` (0f 05) that returned 0, as clone3 does in the child. */
static bool is_born(const struct cprof_regs *regs, const uint8_t *before, size_t length)
{
	return length >= 2 && before[length - 2] == 0x0f && before[length - 1] == 0x05 &&
	       regs->known & 1u && regs->value[0] == 0;
}

#define SAVED(reg) (uint16_t)(offsetof(ucontext_t, uc_mcontext.gregs) + 8 * (reg))

const struct cprof_arch cprof_arch_x86_64 = {
	.kept = 1u << 3 | 1u << 6 | 1u << 12 | 1u << 13 | 1u << 14 | 1u << 15,
	.signal_offset =
		{
			SAVED(REG_RAX),
			SAVED(REG_RDX),
			SAVED(REG_RCX),
			SAVED(REG_RBX),
			SAVED(REG_RSI),
			SAVED(REG_RDI),
			SAVED(REG_RBP),
			SAVED(REG_RSP),
			SAVED(REG_R8),
			SAVED(REG_R9),
			SAVED(REG_R10),
			SAVED(REG_R11),
			SAVED(REG_R12),
			SAVED(REG_R13),
			SAVED(REG_R14),
			SAVED(REG_R15),
			SAVED(REG_RIP),
		},
	.is_call = is_call,
	.is_born = is_born,
};
