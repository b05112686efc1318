/* SPDX-License-Identifier: MIT
 *
 * The unwinder: a cached rule a frame, evaluated on the captured registers and stack bytes.
 * Ladder: CFI (with PLT and trampoline shapes behind the same rules) -> a leaf's return address on
 * top of the stack -> frame pointer -> stop.
 */
#include "step.h"

#include <cprof/util.h>
#include <stdlib.h>

#define STARTUP_BYTES 512 /* of stack that `_start` and its callees use before `main` */

struct cfi_unwinder {
	struct cprof_unwinder base;
	struct cprof_space *space;
};

struct walk {
	struct cprof_space *space;
	const struct cprof_memory *memory;
	struct cprof_regs regs;
	bool exact;       /* the current frame's pc is not a return address */
	bool other_stack; /* a signal frame led to a stack that was not captured */
};

static const struct cprof_arch *const arch = &cprof_arch_x86_64;

static bool known(const struct cprof_regs *regs, unsigned reg)
{
	return regs->known & (1u << reg);
}

static bool word(struct walk *walk, uint64_t address, uint64_t *value, enum cprof_step *why)
{
	if (cprof_memory_word(walk->memory, address, value, why))
		return true;
	if (walk->other_stack)
		*why = CPROF_STEP_OFF_STACK;
	return false;
}

/* Whether a register's place is below SP: then the epilogue has popped it already, its
 * bytes were not captured, and the register itself holds the caller's value (GCC leaves such rules
 * behind `leave`). */
static bool popped(const struct walk *walk, uint64_t address)
{
	return address < walk->regs.value[CPROF_REG_SP];
}

/* The common shape: CFA from a register, everything saved at fixed places below it. */
static enum cprof_step step_frame(struct walk *walk, const struct cprof_rule *rule)
{
	struct cprof_regs *regs = &walk->regs;
	enum cprof_step why = CPROF_STEP_CORRUPT;
	uint32_t keep;
	uint64_t cfa;
	uint64_t pc;

	if (!known(regs, rule->cfa_register))
		return CPROF_STEP_NO_CFI;
	cfa = regs->value[rule->cfa_register] + (uint64_t)(int64_t)rule->cfa_offset;
	if ((rule->flags & CPROF_RULE_DEREF) && !word(walk, cfa, &cfa, &why))
		return why;
	if (cfa <= regs->value[CPROF_REG_SP])
		return CPROF_STEP_CORRUPT;
	if (!word(walk, cfa + (uint64_t)(8 * (int64_t)rule->ra), &pc, &why))
		return why;
	keep = regs->known & arch->kept;
	for (unsigned i = 0; i < CPROF_RULE_SAVED; i++) {
		unsigned reg = cprof_rule_saved[i];
		int saved = rule->saved[i];
		uint64_t place = cfa + (uint64_t)(8 * (int64_t)saved);

		if (saved == 0 || (saved != CPROF_RULE_LOST && popped(walk, place)))
			continue;
		if (saved != CPROF_RULE_LOST && word(walk, place, &regs->value[reg], &why))
			keep |= 1u << reg;
		else
			keep &= ~(1u << reg);
	}
	regs->known = keep | 1u << CPROF_REG_SP | 1u << CPROF_REG_PC;
	regs->value[CPROF_REG_SP] = cfa;
	regs->value[CPROF_REG_PC] = pc;
	return CPROF_STEP_OK;
}

/* A register's value in the caller by a full rule; `*has` false if it is lost. */
static enum cprof_step full_register(struct walk *walk, const struct cprof_rule_full *rule,
				     unsigned reg, uint64_t cfa, uint64_t *value, bool *has)
{
	const struct cprof_rule_part *part = &rule->regs[reg];
	const struct cprof_op *ops = rule->ops + part->first;
	enum cprof_step why = CPROF_STEP_CORRUPT;

	*has = true;
	switch ((enum cprof_where)part->where) {
	case CPROF_WHERE_AT_CFA:
		if (reg < CPROF_REG_PC && popped(walk, cfa + (uint64_t)part->offset))
			goto same;
		return word(walk, cfa + (uint64_t)part->offset, value, &why) ? CPROF_STEP_OK : why;
	case CPROF_WHERE_CFA:
		*value = cfa + (uint64_t)part->offset;
		return CPROF_STEP_OK;
	case CPROF_WHERE_REGISTER:
		*has = known(&walk->regs, (unsigned)part->offset);
		*value = walk->regs.value[part->offset];
		return CPROF_STEP_OK;
	case CPROF_WHERE_AT_EXPR:
	case CPROF_WHERE_EXPR:
		if (!cprof_expression(ops, part->count, &walk->regs, walk->memory, cfa, value,
				      &why))
			return why;
		if (part->where == CPROF_WHERE_EXPR)
			return CPROF_STEP_OK;
		return word(walk, *value, value, &why) ? CPROF_STEP_OK : why;
	case CPROF_WHERE_SAME:
	same:
		*has = known(&walk->regs, reg) && (arch->kept & (1u << reg));
		*value = walk->regs.value[reg];
		return CPROF_STEP_OK;
	case CPROF_WHERE_LOST:
	case CPROF_WHERE_AT_REGISTER:
		break;
	}
	*has = false;
	return CPROF_STEP_OK;
}

static enum cprof_step full_cfa(struct walk *walk, const struct cprof_rule_full *rule,
				uint64_t *cfa)
{
	const struct cprof_rule_part *part = &rule->cfa;
	enum cprof_step why;

	if (part->where == CPROF_WHERE_AT_REGISTER) {
		*cfa = walk->regs.value[part->reg] + (uint64_t)part->offset;
		return known(&walk->regs, part->reg) ? CPROF_STEP_OK : CPROF_STEP_NO_CFI;
	}
	if (!cprof_expression(rule->ops + part->first, part->count, &walk->regs, walk->memory, 0,
			      cfa, &why))
		return why == CPROF_STEP_OFF_STACK ? why : CPROF_STEP_NO_CFI;
	return CPROF_STEP_OK;
}

static enum cprof_step step_full(struct walk *walk, const struct cprof_rule *rule,
				 const struct cprof_rule_full *full)
{
	struct cprof_regs caller = {.known = 0};
	enum cprof_step step;
	uint64_t cfa;

	step = full_cfa(walk, full, &cfa);
	if (step != CPROF_STEP_OK)
		return step;
	for (unsigned reg = 0; reg < CPROF_REGISTERS; reg++) {
		bool has;

		step = full_register(walk, full, reg, cfa, &caller.value[reg], &has);
		if (step != CPROF_STEP_OK && reg == CPROF_REG_PC)
			return step;
		if (step == CPROF_STEP_OK && has)
			caller.known |= 1u << reg;
	}
	if (!known(&caller, CPROF_REG_PC))
		return CPROF_STEP_NO_CFI;
	if (full->regs[CPROF_REG_SP].where <= CPROF_WHERE_LOST) {
		caller.value[CPROF_REG_SP] = cfa;
		caller.known |= 1u << CPROF_REG_SP;
	}
	if (!(rule->flags & CPROF_RULE_SIGNAL_FRAME) &&
	    caller.value[CPROF_REG_SP] <= walk->regs.value[CPROF_REG_SP])
		return CPROF_STEP_CORRUPT;
	walk->regs = caller;
	return CPROF_STEP_OK;
}

/* The kernel saved every register in the ucontext that SP points at. */
static enum cprof_step step_signal(struct walk *walk)
{
	uint64_t frame = walk->regs.value[CPROF_REG_SP];
	enum cprof_step why = CPROF_STEP_CORRUPT;
	struct cprof_regs regs = {.known = (1u << CPROF_REGISTERS) - 1};
	uint64_t sp;

	for (unsigned reg = 0; reg < CPROF_REGISTERS; reg++)
		if (!word(walk, frame + arch->signal_offset[reg], &regs.value[reg], &why))
			return why;
	sp = regs.value[CPROF_REG_SP];
	walk->other_stack = sp < walk->memory->stack_start ||
			    sp - walk->memory->stack_start >= walk->memory->stack_length;
	walk->regs = regs;
	return CPROF_STEP_OK;
}

/* Code without CFI just below where the kernel put argc is the C library's start-up (musl has no
 * CFI): nothing but `_start` called it. */
static bool in_startup(const struct walk *walk)
{
	const struct cprof_target *target = cprof_space_target(walk->space);
	uint64_t start = target ? cprof_target_info(target)->start_stack : 0;

	return start > walk->regs.value[CPROF_REG_SP] &&
	       start - walk->regs.value[CPROF_REG_SP] <= STARTUP_BYTES;
}

/* No CFI: a leaf that has touched nothing has its return address on top of the stack. */
static enum cprof_step step_guess(struct walk *walk, bool innermost)
{
	struct cprof_regs *regs = &walk->regs;
	uint64_t sp = regs->value[CPROF_REG_SP];
	enum cprof_step why;
	enum cprof_step step;
	uint64_t pc;

	if (innermost && word(walk, sp, &pc, &why) && cprof_plausible_return(walk->space, pc)) {
		regs->value[CPROF_REG_SP] = sp + 8;
		regs->value[CPROF_REG_PC] = pc;
		regs->known &= arch->kept | 1u << CPROF_REG_SP | 1u << CPROF_REG_PC;
		return CPROF_STEP_OK;
	}
	if (innermost && cprof_is_born(walk->space, regs))
		return CPROF_STEP_END;
	step = cprof_step_fp(walk->space, walk->memory, regs);
	return step == CPROF_STEP_NO_CFI && !innermost && in_startup(walk) ? CPROF_STEP_END : step;
}

static enum cprof_step step(struct walk *walk, const struct cprof_frame *frame, bool innermost)
{
	const struct cprof_rule_full *full = NULL;
	const struct cprof_rule *rule;
	bool signal;
	enum cprof_step step = CPROF_STEP_OK;

	if (!frame->region)
		return step_guess(walk, innermost);
	rule = cprof_space_rule(walk->space, frame->region, cprof_frame_lookup_pc(frame), &full);
	signal = rule->kind == CPROF_RULE_SIGNAL || (rule->flags & CPROF_RULE_SIGNAL_FRAME);
	switch ((enum cprof_rule_kind)rule->kind) {
	case CPROF_RULE_FRAME:
		step = step_frame(walk, rule);
		break;
	case CPROF_RULE_FULL:
		step = step_full(walk, rule, full);
		break;
	case CPROF_RULE_SIGNAL:
		step = step_signal(walk);
		break;
	case CPROF_RULE_END:
		return CPROF_STEP_END;
	case CPROF_RULE_EMPTY:
	case CPROF_RULE_NONE:
		step = step_guess(walk, innermost);
		break;
	}
	walk->exact = signal;
	return step;
}

static void cfi_unwind(struct cprof_unwinder *base, const struct cprof_regs *regs,
		       const struct cprof_memory *memory, struct cprof_stack *stack)
{
	const struct cfi_unwinder *unwinder = (const struct cfi_unwinder *)base;
	struct walk walk = {.space = unwinder->space,
			    .memory = memory,
			    .regs = *regs,
			    .exact = !regs->returned};
	enum cprof_step result = CPROF_STEP_OK;

	stack->count = 0;
	while (stack->count < stack->capacity) {
		struct cprof_frame *frame = &stack->frames[stack->count];

		frame->pc = walk.regs.value[CPROF_REG_PC];
		if (frame->pc == 0 && stack->count) { /* put there as the end of the chain */
			result = CPROF_STEP_END;
			break;
		}
		frame->exact = walk.exact;
		frame->region = cprof_space_find(unwinder->space, cprof_frame_lookup_pc(frame));
		if (!frame->region && stack->count) { /* no code there: the step was wrong */
			result = CPROF_STEP_CORRUPT;
			break;
		}
		stack->count++;
		result = step(&walk, frame, stack->count == 1 && frame->exact);
		if (result != CPROF_STEP_OK)
			break;
	}
	stack->end = cprof_step_end(result);
	stack->top = walk.regs.value[CPROF_REG_SP];
}

static struct cprof_error *cfi_create(struct cprof_space *space, struct cprof_unwinder **result)
{
	struct cfi_unwinder *unwinder = calloc(1, sizeof(*unwinder));

	if (!unwinder)
		return cprof_error_nomem();
	unwinder->base.ops = &cprof_unwinder_cfi;
	unwinder->space = space;
	*result = &unwinder->base;
	return NULL;
}

static void cfi_destroy(struct cprof_unwinder *base)
{
	free(base);
}

const struct cprof_unwinder_ops cprof_unwinder_cfi = {
	.name = "cfi",
	.create = cfi_create,
	.unwind = cfi_unwind,
	.destroy = cfi_destroy,
};
