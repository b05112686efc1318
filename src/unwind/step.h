/* SPDX-License-Identifier: MIT
 *
 * Private to the unwind floor: one step from a frame to its caller, and what it stands on.
 */
#ifndef CPROF_UNWIND_STEP_H
#define CPROF_UNWIND_STEP_H

#include "arch.h"

#include <cprof/unwind.h>
#include <string.h>

enum cprof_step {
	CPROF_STEP_OK,
	CPROF_STEP_END,       /* no caller: the outermost frame */
	CPROF_STEP_NO_CFI,    /* no rule, no plausible guess */
	CPROF_STEP_OFF_STACK, /* needs bytes above those captured */
	CPROF_STEP_CORRUPT,
};

#define CPROF_STACK_REACH (64u << 20)

/* One word of the target; false (with what to make of it in *why) if it is not at hand. */
static inline bool cprof_memory_word(const struct cprof_memory *memory, uint64_t address,
				     uint64_t *word, enum cprof_step *why)
{
	uint64_t offset = address - memory->stack_start;

	if (memory->stack_length >= sizeof(*word) &&
	    offset <= memory->stack_length - sizeof(*word)) {
		memcpy(word, memory->stack + offset, sizeof(*word));
		return true;
	}
	if (memory->read && memory->read(memory->context, address, word, sizeof(*word)))
		return true;
	/* Within reach above what was captured: the stack goes on there. */
	*why = address >= memory->stack_start && address - memory->stack_start < CPROF_STACK_REACH
		       ? CPROF_STEP_OFF_STACK
		       : CPROF_STEP_CORRUPT;
	return false;
}

/* Evaluates an expression: `initial` (the CFA) is what DW_OP_call_frame_cfa yields and, with
 * `push`, what the stack starts with. False if it is unsupported, wrong or reads in vain. */
bool cprof_expression(const struct cprof_op *ops, size_t count, const struct cprof_regs *regs,
		      const struct cprof_memory *memory, uint64_t cfa, uint64_t *result,
		      enum cprof_step *why);

/* Steps by frame pointer, if what it leads to is plausible. */
enum cprof_step cprof_step_fp(struct cprof_space *space, const struct cprof_memory *memory,
			      struct cprof_regs *regs);

/* Whether `pc` can be a return address: executable, and behind a call where code is at hand. */
bool cprof_plausible_return(struct cprof_space *space, uint64_t pc);
/* Whether a thread has just begun: nothing called it. */
bool cprof_is_born(struct cprof_space *space, const struct cprof_regs *regs);

/* Turns the last step's result into how the stack ended. */
enum cprof_end cprof_step_end(enum cprof_step step);

#endif
