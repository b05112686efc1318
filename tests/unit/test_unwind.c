/* SPDX-License-Identifier: MIT
 *
 * Runs beside others.
 *
 * Unwinding on byte arrays: synthetic stacks and rules, no process.
 */
#include <cprof/unwind.h>
#include <cprof/util.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <ucontext.h>

#include <cmocka.h>

#define TEXT     0x10000ull
#define TEXT_END 0x20000ull
#define STACK    0x7000ull
#define WORDS    128

struct world {
	struct cprof_modules *modules;
	struct cprof_module *module;
	struct cprof_space *space;
	struct cprof_unwinder *unwinder;
	uint64_t words[WORDS];
	size_t captured; /* bytes of `words` in the snapshot */
	struct cprof_regs regs;
	struct cprof_frame frames[64];
	struct cprof_stack stack;
};

static int set_up(void **state)
{
	struct world *world = calloc(1, sizeof(*world));

	assert_null(cprof_modules_create(NULL, &world->modules));
	assert_null(cprof_module_create_synthetic(world->modules, NULL, &world->module));
	assert_null(cprof_space_create(NULL, world->modules, &world->space));
	assert_null(cprof_space_map_module(world->space, TEXT, TEXT_END, TEXT, world->module));
	assert_null(cprof_unwinder_cfi.create(world->space, &world->unwinder));
	world->captured = sizeof(world->words);
	world->regs.known = (1u << CPROF_REGISTERS) - 1;
	world->regs.value[CPROF_REG_SP] = STACK;
	*state = world;
	return 0;
}

static int tear_down(void **state)
{
	struct world *world = *state;

	world->unwinder->ops->destroy(world->unwinder);
	cprof_space_destroy(world->space);
	cprof_modules_destroy(world->modules);
	free(world);
	return 0;
}

static void rule(struct world *world, uint64_t pc, struct cprof_rule rule)
{
	assert_true(cprof_module_put_rule(world->module, pc - TEXT, &rule));
}

static struct cprof_rule sp_rule(int32_t offset)
{
	return (struct cprof_rule){.kind = CPROF_RULE_FRAME,
				   .cfa_register = CPROF_REG_SP,
				   .cfa_offset = offset,
				   .ra = -1};
}

static const struct cprof_rule end_rule = {.kind = CPROF_RULE_END};

static void unwind_at(struct world *world, uint64_t pc, size_t capacity)
{
	struct cprof_memory memory = {.stack = (const uint8_t *)world->words,
				      .stack_start = STACK,
				      .stack_length = world->captured};

	world->regs.value[CPROF_REG_PC] = pc;
	world->stack = (struct cprof_stack){.frames = world->frames, .capacity = capacity};
	world->unwinder->ops->unwind(world->unwinder, &world->regs, &memory, &world->stack);
}

static void expect(const struct world *world, enum cprof_end end, size_t count, ...)
{
	va_list list;

	assert_int_equal(world->stack.end, end);
	assert_int_equal(world->stack.count, count);
	va_start(list, count);
	for (size_t i = 0; i < count; i++)
		assert_int_equal(world->stack.frames[i].pc, va_arg(list, unsigned long long));
	va_end(list);
}

/* A record of a call that has returned: the innermost frame is looked up at its pc - 1 as well, and
 * the word on top of the stack is no leaf's return address. */
static void test_returned(void **state)
{
	struct world *world = *state;

	world->regs.returned = true;
	rule(world, TEXT + 0x1f, sp_rule(16));
	rule(world, TEXT + 0x20, end_rule);
	rule(world, TEXT + 0x1ff, (struct cprof_rule){.kind = CPROF_RULE_NONE});
	world->words[1] = TEXT + 0x200;
	world->words[2] = TEXT + 0x300;
	world->regs.value[CPROF_REG_BP] = 1;
	unwind_at(world, TEXT + 0x20, 64);
	expect(world, CPROF_END_NO_CFI, 2, TEXT + 0x20, TEXT + 0x200);
	assert_false(world->stack.frames[0].exact);
	world->words[0] = TEXT + 0x20;
	unwind_at(world, TEXT + 0x200, 64);
	expect(world, CPROF_END_NO_CFI, 1, TEXT + 0x200);
}

/* Innermost at its own address, callers at their return address - 1. */
static void test_lookup_addresses(void **state)
{
	struct world *world = *state;

	rule(world, TEXT + 0x10, sp_rule(16));
	rule(world, TEXT + 0x1ff, sp_rule(32)); /* the return address is TEXT + 0x200 */
	rule(world, TEXT + 0x200, (struct cprof_rule){.kind = CPROF_RULE_NONE});
	rule(world, TEXT + 0x2ff, end_rule);
	world->words[1] = TEXT + 0x200;
	world->words[5] = TEXT + 0x300;
	unwind_at(world, TEXT + 0x10, 64);
	expect(world, CPROF_END_COMPLETE, 3, TEXT + 0x10, TEXT + 0x200, TEXT + 0x300);
	assert_true(world->stack.frames[0].exact);
	assert_false(world->stack.frames[1].exact);
	assert_int_equal(world->stack.top, STACK + 48);
}

static void test_saved_registers(void **state)
{
	struct world *world = *state;
	struct cprof_rule saves = sp_rule(32);
	struct cprof_rule by_bp = {.kind = CPROF_RULE_FRAME,
				   .cfa_register = CPROF_REG_BP,
				   .cfa_offset = 16,
				   .ra = -1,
				   .saved = {0, -2}};

	saves.saved[1] = -2; /* rbp at CFA - 16 */
	rule(world, TEXT + 0x10, saves);
	rule(world, TEXT + 0x1ff, by_bp);
	rule(world, TEXT + 0x2ff, end_rule);
	world->regs.value[CPROF_REG_BP] = 0xdead;
	world->words[2] = STACK + 64; /* rbp of the caller */
	world->words[3] = TEXT + 0x200;
	world->words[9] = TEXT + 0x300; /* at rbp + 8 */
	unwind_at(world, TEXT + 0x10, 64);
	expect(world, CPROF_END_COMPLETE, 3, TEXT + 0x10, TEXT + 0x200, TEXT + 0x300);
	assert_int_equal(world->stack.top, STACK + 64 + 16);
}

/* A caller-saved register is unknown in the caller: a rule that wants it cannot be used. */
static void test_lost_register(void **state)
{
	struct world *world = *state;
	struct cprof_rule by_rax = {
		.kind = CPROF_RULE_FRAME, .cfa_register = 0, .cfa_offset = 16, .ra = -1};

	world->regs.value[0] = STACK + 32;
	rule(world, TEXT + 0x10, by_rax);
	rule(world, TEXT + 0x1ff, by_rax);
	world->words[5] = TEXT + 0x200;
	unwind_at(world, TEXT + 0x10, 64);
	expect(world, CPROF_END_NO_CFI, 2, TEXT + 0x10, TEXT + 0x200);
}

/* Behind `leave` the rule still points below SP, where nothing was captured: rbp is back already.
 */
static void test_popped_register(void **state)
{
	struct world *world = *state;
	struct cprof_rule behind_leave = sp_rule(8);
	struct cprof_rule by_bp = {.kind = CPROF_RULE_FRAME,
				   .cfa_register = CPROF_REG_BP,
				   .cfa_offset = 16,
				   .ra = -1,
				   .saved = {0, -2}};

	behind_leave.saved[1] = -2;
	rule(world, TEXT + 0x10, behind_leave);
	rule(world, TEXT + 0x1ff, by_bp);
	rule(world, TEXT + 0x2ff, end_rule);
	world->regs.value[CPROF_REG_BP] = STACK + 64;
	world->words[0] = TEXT + 0x200;
	world->words[9] = TEXT + 0x300;
	unwind_at(world, TEXT + 0x10, 64);
	expect(world, CPROF_END_COMPLETE, 3, TEXT + 0x10, TEXT + 0x200, TEXT + 0x300);
}

/* GCC's realigned stack: CFA = *(rbp - 8) + 0. */
static void test_deref(void **state)
{
	struct world *world = *state;
	struct cprof_rule deref = {.kind = CPROF_RULE_FRAME,
				   .flags = CPROF_RULE_DEREF,
				   .cfa_register = CPROF_REG_BP,
				   .cfa_offset = -8,
				   .ra = -1};

	world->regs.value[CPROF_REG_BP] = STACK + 32;
	world->words[3] = STACK + 96;
	world->words[11] = TEXT + 0x200;
	rule(world, TEXT + 0x10, deref);
	rule(world, TEXT + 0x1ff, end_rule);
	unwind_at(world, TEXT + 0x10, 64);
	expect(world, CPROF_END_COMPLETE, 2, TEXT + 0x10, TEXT + 0x200);
}

static void test_truncated(void **state)
{
	struct world *world = *state;

	rule(world, TEXT + 0x10, sp_rule(16));
	rule(world, TEXT + 0x1ff, sp_rule(4096));
	world->words[1] = TEXT + 0x200;
	unwind_at(world, TEXT + 0x10, 64);
	expect(world, CPROF_END_TRUNCATED, 2, TEXT + 0x10, TEXT + 0x200);

	/* one byte short of the return address */
	world->captured = 15;
	unwind_at(world, TEXT + 0x10, 64);
	expect(world, CPROF_END_TRUNCATED, 1, TEXT + 0x10);
	world->captured = 0;
	unwind_at(world, TEXT + 0x10, 64);
	expect(world, CPROF_END_TRUNCATED, 1, TEXT + 0x10);
}

static void test_frame_limit(void **state)
{
	struct world *world = *state;

	rule(world, TEXT + 0x10, sp_rule(8));
	rule(world, TEXT + 0x1ff, sp_rule(8));
	for (size_t i = 0; i < WORDS; i++)
		world->words[i] = TEXT + 0x200;
	unwind_at(world, TEXT + 0x10, 5);
	assert_int_equal(world->stack.count, 5);
	assert_int_equal(world->stack.end, CPROF_END_TRUNCATED);
}

static void test_corrupt(void **state)
{
	struct world *world = *state;

	rule(world, TEXT + 0x10, sp_rule(16));
	world->words[1] = 0x4141414141414141ull; /* no code there */
	unwind_at(world, TEXT + 0x10, 64);
	expect(world, CPROF_END_CORRUPT, 1, TEXT + 0x10);

	rule(world, TEXT + 0x20, sp_rule(0)); /* SP would not grow */
	unwind_at(world, TEXT + 0x20, 64);
	expect(world, CPROF_END_CORRUPT, 1, TEXT + 0x20);

	rule(world, TEXT + 0x30, sp_rule(INT32_MIN));
	unwind_at(world, TEXT + 0x30, 64);
	expect(world, CPROF_END_CORRUPT, 1, TEXT + 0x30);
}

static void test_zero_return_address(void **state)
{
	struct world *world = *state;

	rule(world, TEXT + 0x10, sp_rule(16));
	unwind_at(world, TEXT + 0x10, 64);
	expect(world, CPROF_END_COMPLETE, 1, TEXT + 0x10);
}

/* Code without CFI keeps a frame pointer: it is followed if it leads somewhere plausible. */
static void test_frame_pointer_fallback(void **state)
{
	struct world *world = *state;

	world->words[0] = 12345; /* not a return address: no leaf */
	world->regs.value[CPROF_REG_BP] = STACK + 64;
	world->words[8] = STACK + 128;
	world->words[9] = TEXT + 0x200;
	rule(world, TEXT + 0x1ff, end_rule);
	unwind_at(world, TEXT + 0x10, 64);
	expect(world, CPROF_END_COMPLETE, 2, TEXT + 0x10, TEXT + 0x200);

	world->regs.value[CPROF_REG_BP] = STACK + 65; /* misaligned */
	unwind_at(world, TEXT + 0x10, 64);
	expect(world, CPROF_END_NO_CFI, 1, TEXT + 0x10);
	world->regs.value[CPROF_REG_BP] = STACK - 64; /* below SP */
	unwind_at(world, TEXT + 0x10, 64);
	expect(world, CPROF_END_NO_CFI, 1, TEXT + 0x10);
}

static void test_leaf_without_cfi(void **state)
{
	struct world *world = *state;

	world->words[0] = TEXT + 0x200;
	rule(world, TEXT + 0x1ff, end_rule);
	unwind_at(world, TEXT + 0x10, 64);
	expect(world, CPROF_END_COMPLETE, 2, TEXT + 0x10, TEXT + 0x200);
}

/* A call through a bad pointer: pc is nowhere, the caller is on top of the stack. */
static void test_pc_nowhere(void **state)
{
	struct world *world = *state;

	world->words[0] = TEXT + 0x200;
	rule(world, TEXT + 0x1ff, end_rule);
	unwind_at(world, 0, 64);
	expect(world, CPROF_END_COMPLETE, 2, 0ull, TEXT + 0x200);
}

/* The frame a signal interrupted is exact and has all its registers, the caller-saved ones too. */
static void test_signal(void **state)
{
	struct world *world = *state;
	ucontext_t *context = (ucontext_t *)&world->words[2];
	struct cprof_rule by_rax = {
		.kind = CPROF_RULE_FRAME, .cfa_register = 0, .cfa_offset = 16, .ra = -1};
	greg_t *saved = context->uc_mcontext.gregs;

	rule(world, TEXT + 0x10, sp_rule(16)); /* the handler; CFA - 8 is the restorer's address */
	world->words[1] = TEXT + 0x500;
	rule(world, TEXT + 0x4ff, (struct cprof_rule){.kind = CPROF_RULE_SIGNAL});
	saved[REG_RIP] = TEXT + 0x40;
	saved[REG_RSP] = STACK + 8 * 64;
	saved[REG_RAX] = STACK + 8 * 70;
	rule(world, TEXT + 0x40, by_rax); /* exact: not looked up at 0x3f */
	world->words[71] = TEXT + 0x200;
	rule(world, TEXT + 0x1ff, end_rule);
	unwind_at(world, TEXT + 0x10, 64);
	expect(world, CPROF_END_COMPLETE, 4, TEXT + 0x10, TEXT + 0x500, TEXT + 0x40, TEXT + 0x200);
	assert_true(world->stack.frames[2].exact);
	assert_false(world->stack.frames[3].exact);

	/* the interrupted stack is another one, not captured */
	saved[REG_RSP] = 0x123456000;
	saved[REG_RAX] = 0x123456000;
	unwind_at(world, TEXT + 0x10, 64);
	expect(world, CPROF_END_TRUNCATED, 3, TEXT + 0x10, TEXT + 0x500, TEXT + 0x40);
}

static bool read_elsewhere(void *context, uint64_t address, void *buffer, size_t length)
{
	uint64_t word = TEXT + 0x200;

	if (address != *(uint64_t *)context || length != sizeof(word))
		return false;
	memcpy(buffer, &word, length);
	return true;
}

static void test_memory_callback(void **state)
{
	struct world *world = *state;
	uint64_t where = STACK + 8 * WORDS + 8;
	struct cprof_memory memory = {.stack = (const uint8_t *)world->words,
				      .stack_start = STACK,
				      .stack_length = world->captured,
				      .read = read_elsewhere,
				      .context = &where};

	rule(world, TEXT + 0x10, sp_rule(8 * WORDS + 16));
	rule(world, TEXT + 0x1ff, end_rule);
	world->regs.value[CPROF_REG_PC] = TEXT + 0x10;
	world->stack = (struct cprof_stack){.frames = world->frames, .capacity = 64};
	world->unwinder->ops->unwind(world->unwinder, &world->regs, &memory, &world->stack);
	expect(world, CPROF_END_COMPLETE, 2, TEXT + 0x10, TEXT + 0x200);
}

static void test_regions(void **state)
{
	struct world *world = *state;
	struct cprof_space *space = world->space;
	const struct cprof_region *region;
	uint32_t id = cprof_space_find(space, TEXT)->id;

	assert_null(cprof_space_find(space, TEXT - 1));
	assert_null(cprof_space_find(space, TEXT_END));
	/* a hole in the middle leaves two pieces of the old region */
	assert_null(cprof_space_map_module(space, TEXT + 0x1000, TEXT + 0x2000, 7, world->module));
	assert_int_equal(cprof_space_find(space, TEXT + 0xfff)->id, id);
	assert_int_equal(cprof_space_find(space, TEXT + 0x1000)->bias, 7);
	assert_int_equal(cprof_space_find(space, TEXT + 0x1fff)->bias, 7);
	region = cprof_space_find(space, TEXT + 0x2000);
	assert_int_equal(region->start, TEXT + 0x2000);
	assert_int_equal(region->offset, 0x2000);
	assert_int_equal(region->end, TEXT_END);
	/* covering everything replaces everything */
	assert_null(
		cprof_space_map_module(space, TEXT - 0x1000, TEXT_END + 0x1000, 9, world->module));
	for (uint64_t at = TEXT - 0x1000; at < TEXT_END + 0x1000; at += 0x800)
		assert_int_equal(cprof_space_find(space, at)->bias, 9);
}

/* Thousands of rules: the cache grows and keeps them apart. */
static void test_rule_cache(void **state)
{
	struct world *world = *state;

	for (int i = 1; i < 20000; i++)
		rule(world, TEXT + (uint64_t)i, sp_rule(i));
	for (int i = 1; i < 20000; i++) {
		const struct cprof_rule_full *full;
		const struct cprof_region *region = cprof_space_find(world->space, TEXT);

		assert_int_equal(cprof_space_rule(world->space, region, TEXT + (uint64_t)i, &full)
					 ->cfa_offset,
				 i);
	}
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_returned),
		TEST(test_lookup_addresses),
		TEST(test_saved_registers),
		TEST(test_lost_register),
		TEST(test_popped_register),
		TEST(test_deref),
		TEST(test_truncated),
		TEST(test_frame_limit),
		TEST(test_corrupt),
		TEST(test_zero_return_address),
		TEST(test_frame_pointer_fallback),
		TEST(test_leaf_without_cfi),
		TEST(test_pc_nowhere),
		TEST(test_signal),
		TEST(test_memory_callback),
		TEST(test_regions),
		TEST(test_rule_cache),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
