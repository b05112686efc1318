/* SPDX-License-Identifier: MIT
 *
 * What the unwinders know of an instruction set.
 *
 * Porting checklist: register numbers by the psABI's DWARF table; which registers a call keeps;
 * where a signal frame keeps them; how a call looks from behind, and a system call; what frame
 * pointers look like; names of the registers in libunwind.
 */
#ifndef CPROF_UNWIND_ARCH_H
#define CPROF_UNWIND_ARCH_H

#include <cprof/unwind.h>

struct cprof_arch {
	uint32_t kept; /* registers that survive a call unless a rule says otherwise, as bits */
	/* Offset from SP (at the trampoline's system call) of each register's saved value. */
	uint16_t signal_offset[CPROF_REGISTERS];
	/* Whether code bytes that end where a return address points look like a call. */
	bool (*is_call)(const uint8_t *before, size_t length);
	/* Whether a thread that no rule leads on from has just begun: it has come out of the system
	 * call that made it. */
	bool (*is_born)(const struct cprof_regs *regs, const uint8_t *before, size_t length);
};

extern const struct cprof_arch cprof_arch_x86_64;

#endif
