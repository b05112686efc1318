/* SPDX-License-Identifier: MIT
 *
 * DWARF expressions as they occur in CFI (DWARF 5, 2.5.1), bounded in steps and depth.
 */
#include "step.h"

#include <dwarf.h>

#define STACK_MAX 32
#define STEPS_MAX 256

struct machine {
	uint64_t stack[STACK_MAX];
	size_t depth;
	bool bad;
};

static void push(struct machine *machine, uint64_t value)
{
	if (machine->depth >= STACK_MAX) {
		machine->bad = true;
		return;
	}
	machine->stack[machine->depth++] = value;
}

static uint64_t pop(struct machine *machine)
{
	if (!machine->depth) {
		machine->bad = true;
		return 0;
	}
	return machine->stack[--machine->depth];
}

static uint64_t pick(struct machine *machine, uint64_t index)
{
	if (index >= machine->depth) {
		machine->bad = true;
		return 0;
	}
	return machine->stack[machine->depth - 1 - index];
}

static void push_register(struct machine *machine, const struct cprof_regs *regs, uint64_t reg,
			  int64_t offset)
{
	if (reg >= CPROF_REGISTERS || !(regs->known & (1u << reg))) {
		machine->bad = true;
		return;
	}
	push(machine, regs->value[reg] + (uint64_t)offset);
}

static uint64_t shift_right_signed(uint64_t value, uint64_t count)
{
	return (uint64_t)((int64_t)value >> (count > 63 ? 63 : count));
}

static void binary(struct machine *machine, uint8_t atom)
{
	uint64_t b = pop(machine);
	uint64_t a = pop(machine);
	uint64_t r = 0;

	switch (atom) {
	case DW_OP_and:
		r = a & b;
		break;
	case DW_OP_or:
		r = a | b;
		break;
	case DW_OP_xor:
		r = a ^ b;
		break;
	case DW_OP_plus:
		r = a + b;
		break;
	case DW_OP_minus:
		r = a - b;
		break;
	case DW_OP_mul:
		r = a * b;
		break;
	case DW_OP_shl:
		r = b > 63 ? 0 : a << b;
		break;
	case DW_OP_shr:
		r = b > 63 ? 0 : a >> b;
		break;
	case DW_OP_shra:
		r = shift_right_signed(a, b);
		break;
	case DW_OP_eq:
		r = a == b;
		break;
	case DW_OP_ne:
		r = a != b;
		break;
	case DW_OP_ge:
		r = (int64_t)a >= (int64_t)b;
		break;
	case DW_OP_gt:
		r = (int64_t)a > (int64_t)b;
		break;
	case DW_OP_le:
		r = (int64_t)a <= (int64_t)b;
		break;
	case DW_OP_lt:
		r = (int64_t)a < (int64_t)b;
		break;
	case DW_OP_mod:
		machine->bad |= b == 0;
		r = b ? a % b : 0;
		break;
	case DW_OP_div:
		machine->bad |= b == 0 || (a == (uint64_t)INT64_MIN && b == UINT64_MAX);
		r = machine->bad ? 0 : (uint64_t)((int64_t)a / (int64_t)b);
		break;
	default:
		machine->bad = true;
	}
	push(machine, r);
}

/* Operations on the stack alone; false if `atom` is none of them. */
static bool shuffle(struct machine *machine, const struct cprof_op *op)
{
	uint64_t a, b, c;

	switch (op->atom) {
	case DW_OP_dup:
		push(machine, pick(machine, 0));
		return true;
	case DW_OP_over:
		push(machine, pick(machine, 1));
		return true;
	case DW_OP_pick:
		push(machine, pick(machine, (uint64_t)op->a));
		return true;
	case DW_OP_drop:
		pop(machine);
		return true;
	case DW_OP_neg:
		push(machine, 0 - pop(machine));
		return true;
	case DW_OP_not:
		push(machine, ~pop(machine));
		return true;
	case DW_OP_abs:
		a = pop(machine);
		push(machine, (int64_t)a < 0 ? 0 - a : a);
		return true;
	case DW_OP_plus_uconst:
		push(machine, pop(machine) + (uint64_t)op->a);
		return true;
	case DW_OP_swap:
		a = pop(machine), b = pop(machine);
		push(machine, a), push(machine, b);
		return true;
	case DW_OP_rot:
		a = pop(machine), b = pop(machine), c = pop(machine);
		push(machine, a), push(machine, c), push(machine, b);
		return true;
	case DW_OP_nop:
		return true;
	default:
		return false;
	}
}

static bool constant(struct machine *machine, const struct cprof_op *op)
{
	if (op->atom >= DW_OP_lit0 && op->atom <= DW_OP_lit31)
		push(machine, (uint64_t)op->atom - DW_OP_lit0);
	else if (op->atom == DW_OP_addr || (op->atom >= DW_OP_const1u && op->atom <= DW_OP_consts))
		push(machine, (uint64_t)op->a);
	else
		return false;
	return true;
}

static void dereference(struct machine *machine, const struct cprof_op *op,
			const struct cprof_memory *memory, enum cprof_step *why)
{
	uint64_t size = op->atom == DW_OP_deref_size ? (uint64_t)op->a : 8;
	uint64_t word = 0;

	if (size == 0 || size > 8 || !cprof_memory_word(memory, pop(machine), &word, why)) {
		machine->bad = true;
		return;
	}
	push(machine, size == 8 ? word : word & ((1ull << (8 * size)) - 1));
}

bool cprof_expression(const struct cprof_op *ops, size_t count, const struct cprof_regs *regs,
		      const struct cprof_memory *memory, uint64_t cfa, uint64_t *result,
		      enum cprof_step *why)
{
	struct machine machine = {.depth = 0};
	size_t steps = 0;
	size_t at = 0;

	*why = CPROF_STEP_CORRUPT;
	while (at < count && !machine.bad && steps++ < STEPS_MAX) {
		const struct cprof_op *op = &ops[at++];

		if (op->atom == DW_OP_call_frame_cfa)
			push(&machine, cfa);
		else if (op->atom >= DW_OP_breg0 && op->atom <= DW_OP_breg31)
			push_register(&machine, regs, (uint64_t)op->atom - DW_OP_breg0, op->a);
		else if (op->atom == DW_OP_bregx)
			push_register(&machine, regs, (uint64_t)op->a, op->b);
		else if (op->atom == DW_OP_deref || op->atom == DW_OP_deref_size)
			dereference(&machine, op, memory, why);
		else if (op->atom == DW_OP_skip || (op->atom == DW_OP_bra && pop(&machine)))
			at = (size_t)op->a;
		else if (op->atom != DW_OP_bra && !constant(&machine, op) && !shuffle(&machine, op))
			binary(&machine, op->atom);
	}
	*result = pop(&machine);
	return !machine.bad && at >= count;
}
