/* SPDX-License-Identifier: MIT
 *
 * Frame pointers: the second rung of the ladder, and a backend of its own (--unwinder fp).
 */
#include "step.h"

#include <cprof/util.h>
#include <stdlib.h>

#define FRAME_MAX (8u << 20) /* no frame is larger */

/* The `length` code bytes before an address; false if they cannot be read. `*region` is where they
 * are, or NULL. */
static bool code_before(struct cprof_space *space, uint64_t pc, uint8_t *code, size_t length,
			const struct cprof_region **region)
{
	struct cprof_image *image;

	*region = pc > 1 ? cprof_space_find(space, pc - 1) : NULL;
	image = *region && (*region)->module ? cprof_module_image((*region)->module) : NULL;
	return image &&
	       cprof_image_read(image, pc - (*region)->bias - length, code, length) == length;
}

bool cprof_plausible_return(struct cprof_space *space, uint64_t pc)
{
	const struct cprof_region *region;
	uint8_t code[7];

	if (code_before(space, pc, code, sizeof(code), &region))
		return cprof_arch_x86_64.is_call(code, sizeof(code));
	return region && !(region->module && cprof_module_image(region->module));
}

bool cprof_is_born(struct cprof_space *space, const struct cprof_regs *regs)
{
	const struct cprof_region *region;
	uint8_t code[2];

	return code_before(space, regs->value[CPROF_REG_PC], code, sizeof(code), &region) &&
	       cprof_arch_x86_64.is_born(regs, code, sizeof(code));
}

enum cprof_step cprof_step_fp(struct cprof_space *space, const struct cprof_memory *memory,
			      struct cprof_regs *regs)
{
	const uint32_t needed = 1u << CPROF_REG_BP | 1u << CPROF_REG_SP;
	uint64_t bp = regs->value[CPROF_REG_BP];
	uint64_t sp = regs->value[CPROF_REG_SP];
	enum cprof_step why;
	uint64_t caller_bp;
	uint64_t pc;

	if ((regs->known & needed) != needed)
		return CPROF_STEP_NO_CFI;
	if (bp == 0) /* set so at the thread's start (System V ABI, 3.4.1) */
		return CPROF_STEP_END;
	if (bp % 8 || bp < sp || bp - sp > FRAME_MAX)
		return CPROF_STEP_NO_CFI;
	if (!cprof_memory_word(memory, bp, &caller_bp, &why) ||
	    !cprof_memory_word(memory, bp + 8, &pc, &why))
		return why == CPROF_STEP_OFF_STACK ? why : CPROF_STEP_NO_CFI;
	if (pc == 0)
		return CPROF_STEP_END;
	if (!cprof_plausible_return(space, pc))
		return CPROF_STEP_NO_CFI;
	regs->value[CPROF_REG_BP] = caller_bp;
	regs->value[CPROF_REG_SP] = bp + 16;
	regs->value[CPROF_REG_PC] = pc;
	regs->known = needed | 1u << CPROF_REG_PC;
	return CPROF_STEP_OK;
}

struct fp_unwinder {
	struct cprof_unwinder base;
	struct cprof_space *space;
};

static struct cprof_error *fp_create(struct cprof_space *space, struct cprof_unwinder **result)
{
	struct fp_unwinder *unwinder = calloc(1, sizeof(*unwinder));

	if (!unwinder)
		return cprof_error_nomem();
	unwinder->base.ops = &cprof_unwinder_fp;
	unwinder->space = space;
	*result = &unwinder->base;
	return NULL;
}

static void fp_unwind(struct cprof_unwinder *base, const struct cprof_regs *start,
		      const struct cprof_memory *memory, struct cprof_stack *stack)
{
	const struct fp_unwinder *unwinder = (const struct fp_unwinder *)base;
	struct cprof_regs regs = *start;
	enum cprof_step step = CPROF_STEP_OK;

	for (stack->count = 0; stack->count < stack->capacity && step == CPROF_STEP_OK;) {
		struct cprof_frame *frame = &stack->frames[stack->count];

		frame->pc = regs.value[CPROF_REG_PC];
		frame->exact = stack->count == 0 && !start->returned;
		frame->region = cprof_space_find(unwinder->space, cprof_frame_lookup_pc(frame));
		stack->count++;
		step = cprof_step_fp(unwinder->space, memory, &regs);
	}
	stack->end = cprof_step_end(step);
	stack->top = regs.value[CPROF_REG_SP];
}

static void fp_destroy(struct cprof_unwinder *base)
{
	free(base);
}

const struct cprof_unwinder_ops cprof_unwinder_fp = {
	.name = "fp",
	.create = fp_create,
	.unwind = fp_unwind,
	.destroy = fp_destroy,
};
