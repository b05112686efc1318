/* SPDX-License-Identifier: MIT
 *
 * Unwind rules from CFI: libdw answers once for an address, the answer is compiled into a flat
 * rule. Sources in order: .eh_frame, .debug_frame, .debug_frame of the separate debug file, the
 * shape of the code (signal trampoline, PLT, program entry).
 */
#include "private.h"

#include <cprof/util.h>
#include <dwarf.h>
#include <stdlib.h>
#include <string.h>

#define FULL_RULES_MAX 4096
#define REG_RBX        3
#define REG_SP         7
#define REG_RA         16

const uint8_t cprof_rule_saved[CPROF_RULE_SAVED] = {3, 6, 12, 13, 14, 15};

struct range {
	uint64_t start;
	uint64_t end;
};

struct cprof_cfi {
	Dwarf_CFI *eh;      /* .eh_frame */
	Dwarf *dwarf;       /* for .debug_frame of the file itself */
	Dwarf *debug_dwarf; /* and of the separate debug file */
	bool debug_tried;
	struct range plt[4]; /* .plt, .plt.sec, .plt.got, .plt.bnd */
	size_t plt_count;
	struct cprof_rule_full **full;
	size_t full_count;
	size_t full_capacity;
};

/* --- opening ------------------------------------------------------------------------------- */

/* .zdebug_frame is not looked at: that form of compression is long out of use. */
static Dwarf *open_debug_frame(const struct cprof_image *image, Elf *elf)
{
	return elf && cprof_cfi_check(image, elf, false) ? dwarf_begin_elf(elf, DWARF_C_READ, NULL)
							 : NULL;
}

static void find_plts(struct cprof_cfi *cfi, Elf *elf)
{
	static const char *const names[] = {".plt", ".plt.sec", ".plt.got", ".plt.bnd"};

	for (size_t i = 0; i < CPROF_COUNT(names); i++) {
		GElf_Shdr header;

		if (cprof_elf_section(elf, names[i], &header) &&
		    header.sh_addr + header.sh_size > header.sh_addr)
			cfi->plt[cfi->plt_count++] =
				(struct range){header.sh_addr, header.sh_addr + header.sh_size};
	}
}

static struct cprof_cfi *open_cfi(struct cprof_image *image)
{
	struct cprof_cfi *cfi = image->cfi;

	if (!cfi) {
		cfi = image->cfi = calloc(1, sizeof(*cfi));
		if (!cfi)
			return NULL;
		if (cprof_cfi_check(image, image->file.elf, true))
			cfi->eh = dwarf_getcfi_elf(image->file.elf);
		cfi->dwarf = open_debug_frame(image, image->file.elf);
		find_plts(cfi, image->file.elf);
	}
	if (image->debug.elf && !cfi->debug_tried) {
		cfi->debug_tried = true;
		cfi->debug_dwarf = open_debug_frame(image, image->debug.elf);
	}
	return cfi;
}

void cprof_cfi_destroy(struct cprof_cfi *cfi)
{
	if (!cfi)
		return;
	if (cfi->eh)
		dwarf_cfi_end(cfi->eh);
	dwarf_end(cfi->dwarf);
	dwarf_end(cfi->debug_dwarf);
	for (size_t i = 0; i < cfi->full_count; i++)
		free(cfi->full[i]);
	free(cfi->full);
	free(cfi);
}

/* --- compiling ----------------------------------------------------------------------------- */

/* A branch's target as an index into `ops`, -1 if it leads nowhere. DW_OP_skip and DW_OP_bra are
 * three bytes long and count from their end (DWARF 5, 2.5.1.5). */
static int branch_target(const Dwarf_Op *ops, size_t count, size_t from)
{
	uint64_t target = ops[from].offset + 3 + (uint64_t)(int64_t)(int16_t)ops[from].number;
	/* libdw puts the CFA in front, with an offset that is not its own. */
	size_t first = ops[0].atom == DW_OP_call_frame_cfa;

	for (size_t i = first; i < count; i++)
		if (ops[i].offset == target)
			return (int)i;
	return target > ops[count - 1].offset ? (int)count : -1;
}

static bool copy_expression(struct cprof_rule_full *full, struct cprof_rule_part *part,
			    const Dwarf_Op *ops, size_t count)
{
	if (count > CPROF_RULE_OPS - full->count)
		return false;
	part->first = (uint8_t)full->count;
	part->count = (uint8_t)count;
	for (size_t i = 0; i < count; i++) {
		struct cprof_op *op = &full->ops[full->count + i];
		int target;

		op->atom = ops[i].atom;
		op->a = (int64_t)ops[i].number;
		op->b = (int64_t)ops[i].number2;
		if (op->atom != DW_OP_bra && op->atom != DW_OP_skip)
			continue;
		target = branch_target(ops, count, i);
		if (target < 0)
			return false;
		op->a = target;
	}
	full->count += (uint32_t)count;
	return true;
}

/* The location forms that dwarf_frame_register() documents. */
static bool compile_register(struct cprof_rule_full *full, struct cprof_rule_part *part,
			     const Dwarf_Op *ops, size_t count)
{
	bool value;
	size_t plain;

	if (count == 0) {
		part->where = ops ? CPROF_WHERE_LOST : CPROF_WHERE_SAME;
		return true;
	}
	value = ops[count - 1].atom == DW_OP_stack_value;
	plain = count - value;
	if (ops[0].atom == DW_OP_call_frame_cfa && plain <= 2 &&
	    (plain == 1 || ops[1].atom == DW_OP_plus_uconst)) {
		part->where = value ? CPROF_WHERE_CFA : CPROF_WHERE_AT_CFA;
		part->offset = plain == 2 ? (int64_t)ops[1].number : 0;
		return true;
	}
	if (count == 1 && (ops[0].atom == DW_OP_regx ||
			   (ops[0].atom >= DW_OP_reg0 && ops[0].atom <= DW_OP_reg31))) {
		uint64_t reg = ops[0].atom == DW_OP_regx ? ops[0].number
							 : (uint64_t)ops[0].atom - DW_OP_reg0;

		part->where = reg < CPROF_REGISTERS ? CPROF_WHERE_REGISTER : CPROF_WHERE_LOST;
		part->offset = (int64_t)reg;
		return true;
	}
	part->where = value ? CPROF_WHERE_EXPR : CPROF_WHERE_AT_EXPR;
	return plain > 0 && copy_expression(full, part, ops, plain);
}

static bool base_register(const Dwarf_Op *op, uint8_t *reg, int64_t *offset)
{
	uint64_t number;

	if (op->atom == DW_OP_bregx) {
		number = op->number;
		*offset = (int64_t)op->number2;
	} else if (op->atom >= DW_OP_breg0 && op->atom <= DW_OP_breg31) {
		number = (uint64_t)op->atom - DW_OP_breg0;
		*offset = (int64_t)op->number;
	} else {
		return false;
	}
	*reg = (uint8_t)number;
	return number < CPROF_REGISTERS;
}

static bool compile_cfa(struct cprof_rule_full *full, Dwarf_Frame *frame, bool *deref)
{
	struct cprof_rule_part *cfa = &full->cfa;
	Dwarf_Op *ops;
	size_t count;

	*deref = false;
	if (dwarf_frame_cfa(frame, &ops, &count) != 0 || count == 0)
		return false;
	if (base_register(&ops[0], &cfa->reg, &cfa->offset) &&
	    (count == 1 || (count == 2 && ops[1].atom == DW_OP_deref))) {
		cfa->where = CPROF_WHERE_AT_REGISTER;
		*deref = count == 2;
		return true;
	}
	cfa->where = CPROF_WHERE_EXPR;
	return copy_expression(full, cfa, ops, count);
}

/* Whether a part fits `saved`: at CFA + 8 * n, or unchanged, or lost. */
static bool compact_part(const struct cprof_rule_part *part, int8_t *encoded)
{
	if (part->where == CPROF_WHERE_SAME || part->where == CPROF_WHERE_LOST) {
		*encoded = part->where == CPROF_WHERE_SAME ? 0 : CPROF_RULE_LOST;
		return true;
	}
	if (part->where != CPROF_WHERE_AT_CFA || part->offset % 8 || part->offset == 0 ||
	    part->offset / 8 <= -CPROF_RULE_LOST || part->offset / 8 >= CPROF_RULE_LOST)
		return false;
	*encoded = (int8_t)(part->offset / 8);
	return true;
}

static bool compact(const struct cprof_rule_full *full, bool deref, struct cprof_rule *rule)
{
	const struct cprof_rule_part *sp = &full->regs[REG_SP];

	if (full->cfa.where != CPROF_WHERE_AT_REGISTER ||
	    full->cfa.offset != (int32_t)full->cfa.offset ||
	    full->regs[REG_RA].where != CPROF_WHERE_AT_CFA ||
	    !compact_part(&full->regs[REG_RA], &rule->ra))
		return false;
	if (sp->where > CPROF_WHERE_LOST && !(sp->where == CPROF_WHERE_CFA && sp->offset == 0))
		return false;
	for (int reg = 0, saved = 0; reg < REG_RA; reg++) {
		if (saved < CPROF_RULE_SAVED && reg == cprof_rule_saved[saved]) {
			if (!compact_part(&full->regs[reg], &rule->saved[saved++]))
				return false;
		} else if (reg != REG_SP && full->regs[reg].where > CPROF_WHERE_LOST) {
			return false;
		}
	}
	rule->kind = CPROF_RULE_FRAME;
	rule->flags |= deref ? CPROF_RULE_DEREF : 0;
	rule->cfa_register = full->cfa.reg;
	rule->cfa_offset = (int32_t)full->cfa.offset;
	return true;
}

/* Index of an equal rule, kept from now on; false when there are too many. */
static bool keep_full(struct cprof_cfi *cfi, const struct cprof_rule_full *full, int32_t *index)
{
	struct cprof_rule_full *copy;

	for (size_t i = cfi->full_count; i-- > 0;)
		if (memcmp(cfi->full[i], full, sizeof(*full)) == 0) {
			*index = (int32_t)i;
			return true;
		}
	if (cfi->full_count >= FULL_RULES_MAX ||
	    !cprof_grow(&cfi->full, &cfi->full_capacity, cfi->full_count + 1, sizeof(*cfi->full)))
		return false;
	copy = malloc(sizeof(*copy));
	if (!copy)
		return false;
	*copy = *full;
	*index = (int32_t)cfi->full_count;
	cfi->full[cfi->full_count++] = copy;
	return true;
}

static bool compile(struct cprof_cfi *cfi, Dwarf_Frame *frame, struct cprof_rule *rule)
{
	struct cprof_rule_full full;
	bool signal = false;
	bool deref;
	int ra = dwarf_frame_info(frame, NULL, NULL, &signal);

	memset(&full, 0, sizeof(full)); /* padding too: rules are compared as bytes */
	if (ra < 0 || ra >= CPROF_REGISTERS || !compile_cfa(&full, frame, &deref))
		return false;
	for (int reg = 0; reg < CPROF_REGISTERS; reg++) {
		int from = reg == REG_RA ? ra : reg;
		Dwarf_Op memory[3];
		Dwarf_Op *ops;
		size_t count;

		if (dwarf_frame_register(frame, from, memory, &ops, &count) != 0 ||
		    !compile_register(&full, &full.regs[reg], ops, count))
			return false;
	}
	/* libdw's defaults for x86-64 keep rax where the ABI keeps rbx (seen in 0.188). */
	if (full.regs[REG_RBX].where == CPROF_WHERE_LOST)
		full.regs[REG_RBX].where = CPROF_WHERE_SAME;
	rule->flags = signal ? CPROF_RULE_SIGNAL_FRAME : 0;
	if (full.regs[REG_RA].where <= CPROF_WHERE_LOST) {
		rule->kind = CPROF_RULE_END;
		return true;
	}
	if (compact(&full, deref, rule))
		return true;
	if (deref) {
		Dwarf_Op *ops;
		size_t count;

		if (dwarf_frame_cfa(frame, &ops, &count) != 0 ||
		    !copy_expression(&full, &full.cfa, ops, count))
			return false;
		full.cfa.where = CPROF_WHERE_EXPR;
	}
	rule->kind = CPROF_RULE_FULL;
	return keep_full(cfi, &full, &rule->cfa_offset);
}

/* --- the shape of the code ----------------------------------------------------------------- */

/* `mov $15,%rax; syscall` (glibc, musl) and `mov $15,%eax; syscall`: rt_sigreturn. */
static bool is_trampoline(const struct cprof_image *image, uint64_t address)
{
	static const uint8_t wide[] = {0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05};
	static const uint8_t narrow[] = {0xb8, 0x0f, 0, 0, 0, 0x0f, 0x05};
	uint8_t code[sizeof(wide)] = {0};

	return cprof_image_read(image, address, code, sizeof(code)) >= sizeof(narrow) &&
	       (memcmp(code, wide, sizeof(wide)) == 0 || memcmp(code, narrow, sizeof(narrow)) == 0);
}

/* The address asked for is the trampoline's first instruction, the byte before it (a handler's
 * return address, looked up at pc - 1), or its system call. */
static bool in_trampoline(const struct cprof_image *image, uint64_t address)
{
	return is_trampoline(image, address) || is_trampoline(image, address + 1) ||
	       is_trampoline(image, address - 7) || is_trampoline(image, address - 5);
}

/* Inside a PLT entry the return address is on top of the stack, or one word deeper once the lazy
 * entry (of 16 bytes) has pushed its index: after `jmp *…; push` (11 bytes), `endbr64; push` (9)
 * or, in the first entry, `push` (6). */
static bool plt_rule(const struct cprof_image *image, const struct cprof_cfi *cfi, uint64_t address,
		     struct cprof_rule *rule)
{
	for (size_t i = 0; i < cfi->plt_count; i++) {
		uint64_t start = cfi->plt[i].start;
		uint64_t offset = (address - start) % 16;
		uint8_t code[16] = {0};
		unsigned pushed = 16;
		unsigned words = 1;

		if (address < start || address >= cfi->plt[i].end)
			continue;
		cprof_image_read(image, address - offset, code, sizeof(code));
		if (address - start < 16 && code[0] == 0xff && code[1] == 0x35) {
			pushed = 6;
			words = 2; /* came here from an entry that had pushed */
		} else if (code[0] == 0xff && code[1] == 0x25 && code[6] == 0x68) {
			pushed = 11;
		} else if (code[0] == 0xf3 && code[4] == 0x68) {
			pushed = 9;
		}
		*rule = (struct cprof_rule){
			.kind = CPROF_RULE_FRAME,
			.flags = CPROF_RULE_GUESSED,
			.cfa_register = REG_SP,
			.cfa_offset = (int32_t)(8 * (words + (offset >= pushed))),
			.ra = -1,
		};
		return true;
	}
	return false;
}

/* --- asking -------------------------------------------------------------------------------- */

static bool ask(struct cprof_cfi *cfi, Dwarf_CFI *source, uint64_t address, struct cprof_rule *rule)
{
	Dwarf_Frame *frame = NULL;
	bool done;

	if (!source || dwarf_cfi_addrframe(source, address, &frame) != 0)
		return false;
	done = compile(cfi, frame, rule);
	free(frame);
	return done;
}

static void find_rule(struct cprof_image *image, struct cprof_cfi *cfi, uint64_t address,
		      struct cprof_rule *rule)
{
	uint64_t past_entry = address - image->info.entry;

	*rule = (struct cprof_rule){.kind = CPROF_RULE_NONE};
	if (in_trampoline(image, address)) {
		rule->kind = CPROF_RULE_SIGNAL;
		return;
	}
	/* At the entry's first byte its CFI has not yet said that there is no caller. */
	if (past_entry == 0 && image->info.entry) {
		rule->kind = CPROF_RULE_END;
		return;
	}
	if (ask(cfi, cfi->eh, address, rule) ||
	    ask(cfi, cfi->dwarf ? dwarf_getcfi(cfi->dwarf) : NULL, address, rule) ||
	    ask(cfi, cfi->debug_dwarf ? dwarf_getcfi(cfi->debug_dwarf) : NULL, address, rule))
		return;
	*rule = (struct cprof_rule){.kind = CPROF_RULE_NONE};
	if (plt_rule(image, cfi, address, rule))
		return;
	/* An entry without CFI (musl, hand-written): a few instructions, then a call. */
	if (image->info.entry && past_entry < 64)
		*rule = (struct cprof_rule){.kind = CPROF_RULE_END, .flags = CPROF_RULE_GUESSED};
}

void cprof_cfi_rules(struct cprof_image *image, const uint64_t *addresses, size_t count,
		     struct cprof_rule *rules)
{
	struct cprof_cfi *cfi = open_cfi(image);

	for (size_t i = 0; i < count; i++) {
		if (cfi)
			find_rule(image, cfi, addresses[i], &rules[i]);
		else
			rules[i] = (struct cprof_rule){.kind = CPROF_RULE_NONE};
	}
}

const struct cprof_rule_full *cprof_cfi_full_rule(const struct cprof_image *image, uint32_t index)
{
	return image->cfi && index < image->cfi->full_count ? image->cfi->full[index] : NULL;
}
