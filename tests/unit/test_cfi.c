/* SPDX-License-Identifier: MIT
 *
 * Runs beside others.
 *
 * Rules compiled from CFI that the assembler wrote into this very program, and from the shape of
 * code that has none.
 */
#include <cprof/image.h>
#include <cprof/util.h>
#include <dwarf.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

/* Every `nop` is one address with a rule of its own. */
__asm__(".text\n"
	"cfi_code:\n"
	".cfi_startproc\n"
	"nop\n" /* 0: CFA = rsp + 8 */
	".cfi_def_cfa_offset 16\n"
	".cfi_offset 6, -16\n"
	"nop\n" /* 1: rbp saved */
	".cfi_def_cfa_register 6\n"
	".cfi_offset 3, -24\n"
	".cfi_offset 15, -32\n"
	"nop\n" /* 2: CFA = rbp + 16 */
	".cfi_remember_state\n"
	".cfi_def_cfa 7, 8\n"
	".cfi_restore 6\n"
	".cfi_remember_state\n"
	".cfi_undefined 12\n"
	"nop\n" /* 3 */
	".cfi_restore_state\n"
	".cfi_restore_state\n"
	"nop\n"                    /* 4: as 2 */
	".cfi_escape 0x2e, 0x10\n" /* GNU_args_size 16 */
	".cfi_register 13, 0\n"
	"nop\n" /* 5: r13 is in rax */
	".cfi_restore 13\n"
	".cfi_escape 0x0f, 3, 0x76, 0x78, 0x06\n"          /* CFA = *(rbp - 8) */
	"nop\n"                                            /* 6 */
	".cfi_escape 0x0f, 5, 0x77, 8, 0x31, 0x24, 0x22\n" /* breg7 8; lit1; shl; plus: nonsense */
	"nop\n"                                            /* 7: an expression */
	".cfi_def_cfa 7, 8\n"
	".cfi_escape 0x16, 3, 2, 0x77, 40\n" /* rbx is rsp + 40 (val_expression) */
	"nop\n"                              /* 8 */
	".cfi_undefined rip\n"
	"nop\n" /* 9: the end */
	".cfi_endproc\n"
	".globl cfi_signal\n"
	".cfi_startproc\n"
	".cfi_signal_frame\n"
	"cfi_signal:\n"
	"nop\n"
	".cfi_endproc\n"
	"nop\n"
	"cfi_none:\n" /* no CFI */
	"nop\n"
	"nop\n"
	"cfi_trampoline:\n"
	"mov $15, %rax\n"
	"syscall\n"
	"nop\n");
extern const char cfi_code[], cfi_signal[], cfi_none[], cfi_trampoline[];
extern const char __executable_start[];

static struct cprof_image *image;

static int open_self(void **state)
{
	int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);

	(void)state;
	assert_null(cprof_image_create(fd, &image));
	close(fd);
	return 0;
}

static int close_self(void **state)
{
	(void)state;
	cprof_image_destroy(image);
	return 0;
}

static struct cprof_rule rule_at(const char *place, int offset)
{
	uint64_t address = (uintptr_t)place + (uint64_t)offset - (uintptr_t)__executable_start;
	struct cprof_rule rule;

	if (cprof_image_info(image)->entry >= 0x400000) /* not a PIE */
		address = (uintptr_t)place + (uint64_t)offset;
	cprof_image_rules(image, &address, 1, &rule);
	return rule;
}

static void expect_frame(struct cprof_rule rule, int reg, int offset)
{
	assert_int_equal(rule.kind, CPROF_RULE_FRAME);
	assert_int_equal(rule.cfa_register, reg);
	assert_int_equal(rule.cfa_offset, offset);
	assert_int_equal(rule.ra, -1);
}

static void test_compact(void **state)
{
	struct cprof_rule rule;

	(void)state;
	expect_frame(rule_at(cfi_code, 0), 7, 8);
	rule = rule_at(cfi_code, 1);
	expect_frame(rule, 7, 16);
	assert_int_equal(rule.saved[1], -2);
	assert_int_equal(rule.saved[0], 0);
	rule = rule_at(cfi_code, 2);
	expect_frame(rule, 6, 16);
	assert_int_equal(rule.saved[0], -3);
	assert_int_equal(rule.saved[1], -2);
	assert_int_equal(rule.saved[5], -4);
	assert_int_equal(rule.flags, 0);
}

static void test_remember_nests(void **state)
{
	struct cprof_rule two = rule_at(cfi_code, 2);
	struct cprof_rule three = rule_at(cfi_code, 3);
	struct cprof_rule four = rule_at(cfi_code, 4);

	(void)state;
	expect_frame(three, 7, 8);
	assert_int_equal(three.saved[1], 0);
	assert_int_equal(three.saved[2], CPROF_RULE_LOST);
	assert_memory_equal(&two, &four, sizeof(two));
}

static void test_register(void **state)
{
	struct cprof_rule rule = rule_at(cfi_code, 5);
	const struct cprof_rule_full *full;

	(void)state;
	assert_int_equal(rule.kind, CPROF_RULE_FULL);
	full = cprof_image_full_rule(image, (uint32_t)rule.cfa_offset);
	assert_int_equal(full->cfa.where, CPROF_WHERE_AT_REGISTER);
	assert_int_equal(full->cfa.reg, 6);
	assert_int_equal(full->cfa.offset, 16);
	assert_int_equal(full->regs[13].where, CPROF_WHERE_REGISTER);
	assert_int_equal(full->regs[13].offset, 0);
	assert_int_equal(full->regs[6].where, CPROF_WHERE_AT_CFA);
	assert_int_equal(full->regs[6].offset, -16);
	assert_int_equal(full->regs[16].where, CPROF_WHERE_AT_CFA);
	assert_int_equal(full->regs[16].offset, -8);
}

static void test_realigned(void **state)
{
	struct cprof_rule rule = rule_at(cfi_code, 6);

	(void)state;
	expect_frame(rule, 6, -8);
	assert_int_equal(rule.flags, CPROF_RULE_DEREF);
}

static void test_expressions(void **state)
{
	struct cprof_rule rule = rule_at(cfi_code, 7);
	const struct cprof_rule_full *full;

	(void)state;
	assert_int_equal(rule.kind, CPROF_RULE_FULL);
	full = cprof_image_full_rule(image, (uint32_t)rule.cfa_offset);
	assert_int_equal(full->cfa.where, CPROF_WHERE_EXPR);
	assert_int_equal(full->cfa.count, 4);
	assert_int_equal(full->ops[full->cfa.first].atom, DW_OP_breg7);
	assert_int_equal(full->ops[full->cfa.first].a, 8);
	assert_int_equal(full->ops[full->cfa.first + 3].atom, DW_OP_plus);

	rule = rule_at(cfi_code, 8);
	assert_int_equal(rule.kind, CPROF_RULE_FULL);
	full = cprof_image_full_rule(image, (uint32_t)rule.cfa_offset);
	assert_int_equal(full->regs[3].where, CPROF_WHERE_EXPR);
	assert_null(cprof_image_full_rule(image, 1000000));
}

static void test_end(void **state)
{
	(void)state;
	assert_int_equal(rule_at(cfi_code, 9).kind, CPROF_RULE_END);
}

static void test_signal_frame(void **state)
{
	struct cprof_rule rule = rule_at(cfi_signal, 0);

	(void)state;
	assert_int_equal(rule.kind, CPROF_RULE_FRAME);
	assert_int_equal(rule.flags, CPROF_RULE_SIGNAL_FRAME);
}

static void test_none(void **state)
{
	uint64_t far = 1ull << 62;
	struct cprof_rule rule;

	(void)state;
	assert_int_equal(rule_at(cfi_none, 0).kind, CPROF_RULE_NONE);
	cprof_image_rules(image, &far, 1, &rule);
	assert_int_equal(rule.kind, CPROF_RULE_NONE);
}

/* A handler's return address is looked up one byte before the trampoline. */
static void test_trampoline(void **state)
{
	(void)state;
	assert_int_equal(rule_at(cfi_trampoline, -1).kind, CPROF_RULE_SIGNAL);
	assert_int_equal(rule_at(cfi_trampoline, 0).kind, CPROF_RULE_SIGNAL);
	assert_int_equal(rule_at(cfi_trampoline, 7).kind, CPROF_RULE_SIGNAL);
	assert_int_equal(rule_at(cfi_trampoline, 9).kind, CPROF_RULE_NONE);
}

static void test_entry(void **state)
{
	uint64_t entry = cprof_image_info(image)->entry;
	struct cprof_rule rule;

	(void)state;
	cprof_image_rules(image, &entry, 1, &rule);
	assert_int_equal(rule.kind, CPROF_RULE_END);
	entry += 0x20;
	cprof_image_rules(image, &entry, 1, &rule);
	assert_int_equal(rule.kind, CPROF_RULE_END);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_compact),      cmocka_unit_test(test_remember_nests),
		cmocka_unit_test(test_register),     cmocka_unit_test(test_realigned),
		cmocka_unit_test(test_expressions),  cmocka_unit_test(test_end),
		cmocka_unit_test(test_signal_frame), cmocka_unit_test(test_none),
		cmocka_unit_test(test_trampoline),   cmocka_unit_test(test_entry),
	};

	return cmocka_run_group_tests(tests, open_self, close_self);
}
