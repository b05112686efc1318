/* SPDX-License-Identifier: MIT
 *
 * The reader of the agent's ring: stacks that are remembered, records that make no sense.
 */
#include "heap_world.h"

/* --- memo ---------------------------------------------------------------------------------- */

/* How a stack is found by unwinding anew, and by what is remembered. */
static void expect_frames(struct sim *sim, uint64_t address, const struct sim_stack *stack,
			  uint64_t frames)
{
	struct cprof_heap_stats before = stats_of(sim);
	struct cprof_heap_stats after;

	assert_true(sim_alloc(sim, stack, address, 1));
	cprof_heap_drain(sim->heap);
	after = stats_of(sim);
	assert_int_equal(after.frames - before.frames, frames);
}

/* Equal pc and sp, and another caller far up: never the same stack. */
static void test_memo_callers(void **state)
{
	struct sim *sim = *state;
	struct cprof_profile *profile;
	struct sim_stack a;
	struct sim_stack b;

	sim_stack(sim, &a, 0, 20);
	b = a;
	b.words[4 * 10 + 3] = SIM_TEXT + 0x10000 + 16 * 12; /* another caller in the middle */
	for (unsigned i = 0; i < 100; i++) {
		struct sim_stack noisy = i % 3 ? a : b;

		noisy.regs.rbx = i; /* neither registers nor locals matter here */
		noisy.words[0] = i;
		noisy.words[1] = 0x5555 * i;
		expect_frames(sim, 0x1000 + 16 * i, &noisy, 22);
	}
	profile = profile_of(sim);
	assert_int_equal(profile->sample_count, 2);
	assert_int_equal(profile->values[0] + profile->values[4], 100);
	assert_int_equal(CPROF_MIN(profile->values[0], profile->values[4]), 34);
	cprof_profile_destroy(profile);
}

/* The frame of a caller is found by rbp: from the register, or saved on the stack. */
static void test_memo_frame_pointer(void **state)
{
	struct sim *sim = *state;
	struct cprof_rule by_bp = {.kind = CPROF_RULE_FRAME,
				   .cfa_register = CPROF_REG_BP,
				   .cfa_offset = 16,
				   .ra = -1,
				   .saved = {0, -2}};
	struct cprof_rule saves = sim_frame(32);
	struct sim_stack a;

	sim_stack(sim, &a, 0, 20);
	sim_rule(sim, a.regs.pc, by_bp);
	for (unsigned i = 0; i < 60; i++) { /* from the register: 1 to 4 frames are skipped */
		unsigned skip = i % 4;

		a.regs.rbp = SIM_SP + 32 * skip + 16;
		expect_frames(sim, 0x1000 + 16 * i, &a, 22 - skip);
	}
	saves.saved[1] = -2; /* rbp */
	a.regs.pc += 16;
	sim_rule(sim, a.regs.pc, saves);
	sim_rule(sim, a.words[3], by_bp);
	a.regs.rbp = 0x1234;
	for (unsigned i = 0; i < 60; i++) { /* from the stack, by a caller */
		unsigned skip = i % 4;

		a.words[2] = SIM_SP + 32 * (skip + 1) + 16;
		a.regs.rbp++;
		expect_frames(sim, 0x8000 + 16 * i, &a, 22 - skip);
	}
}

/* A realigned stack: the frame's place is read from the stack, and rbx leads to it. */
static void test_memo_other_registers(void **state)
{
	struct sim *sim = *state;
	struct cprof_rule by_bx = {
		.kind = CPROF_RULE_FRAME, .cfa_register = 3, .cfa_offset = 16, .ra = -1};
	struct cprof_rule deref = {.kind = CPROF_RULE_FRAME,
				   .flags = CPROF_RULE_DEREF,
				   .cfa_register = CPROF_REG_SP,
				   .cfa_offset = 8,
				   .ra = -1};
	struct sim_stack a;

	sim_stack(sim, &a, 0, 20);
	sim_rule(sim, a.regs.pc, by_bx);
	for (unsigned i = 0; i < 30; i++) {
		a.regs.rbx = SIM_SP + 32 * (i % 5) + 16;
		expect_frames(sim, 0x1000 + 16 * i, &a, 22 - i % 5);
	}
	a.regs.pc += 16;
	sim_rule(sim, a.regs.pc, deref);
	for (unsigned i = 0; i < 30; i++) {
		a.words[1] = SIM_SP + 32 * (i % 5 + 1);
		expect_frames(sim, 0x4000 + 16 * i, &a, 22 - i % 5);
	}
}

/* The same bytes, but fewer of them. */
static void test_memo_length(void **state)
{
	struct sim *sim = *state;
	struct sim_stack a;

	sim_stack(sim, &a, 0, 20);
	for (unsigned i = 0; i < 60; i++) {
		a.length = 64 + 32 * (i % 5);
		expect_frames(sim, 0x1000 + 16 * i, &a, 3 + i % 5);
	}
	a.length = 4 * 21 * 8;
	expect_frames(sim, 0x4000, &a, 22);
	a.length += 400;
	expect_frames(sim, 0x4010, &a, 22);
}

/* After the address space has changed what was remembered is void. */
static void test_memo_flush(void **state)
{
	struct sim *sim = *state;
	struct sim_stack a;

	sim_stack(sim, &a, 0, 20);
	expect_frames(sim, 0x1000, &a, 22);
	sim_rule(sim, a.regs.pc, sim_frame(64));
	cprof_heap_flush(sim->heap);
	expect_frames(sim, 0x1010, &a, 21);
}

/* --- hostile ------------------------------------------------------------------------------- */

static void test_bad_records(void **state)
{
	static const struct {
		uint32_t length;
		uint16_t type;
		uint64_t id, address, size, rate;
		uint32_t stack_length;
	} bad[] = {
		{160, 0, 1, 0x1000, 1, 1, 32},
		{160, 9, 1, 0x1000, 1, 1, 32},
		{160, CPROF_AGENT_RECORD_ALLOC, 0, 0x1000, 1, 1, 32},
		{160, CPROF_AGENT_RECORD_ALLOC, 1, 0, 1, 1, 32},
		{160, CPROF_AGENT_RECORD_ALLOC, 1, 1ull << 63, 1, 1, 32},
		{160, CPROF_AGENT_RECORD_ALLOC, 1, 0x1000, UINT64_MAX, 1, 32},
		{160, CPROF_AGENT_RECORD_ALLOC, 1, 0x1000, 1, 0, 32},
		{160, CPROF_AGENT_RECORD_ALLOC, 1, 0x1000, 1, UINT64_MAX, 32},
		{160, CPROF_AGENT_RECORD_ALLOC, 1, 0x1000, 1, 1, 33},
		{160, CPROF_AGENT_RECORD_ALLOC, 1, 0x1000, 1, 1, UINT32_MAX},
		{40, CPROF_AGENT_RECORD_ALLOC, 1, 0x1000, 1, 1, 0},
		{40, CPROF_AGENT_RECORD_FREE, 1, 0x1000, 1, 1, 0},
		{24, CPROF_AGENT_RECORD_FREE, 1, 0x1000, 1, 1, 0},
	};
	struct sim *sim = *state;
	struct sim_stack a;

	sim_stack(sim, &a, 0, 3);
	for (size_t i = 0; i < CPROF_COUNT(bad); i++) {
		struct cprof_agent_record *record = sim_reserve(sim, bad[i].length);

		record->type = bad[i].type;
		record->id = bad[i].id;
		record->address = bad[i].address;
		record->size = bad[i].size;
		record->rate = bad[i].rate;
		record->stack_length = bad[i].stack_length;
		sim_commit(record);
		sim_alloc(sim, &a, 0x1000 + 16 * i, 1);
	}
	cprof_heap_drain(sim->heap);
	assert_int_equal(stats_of(sim).malformed, CPROF_COUNT(bad));
	assert_int_equal(stats_of(sim).lost, CPROF_COUNT(bad));
	assert_int_equal(stats_of(sim).samples, CPROF_COUNT(bad));
}

/* A length that cannot be: the rest of the pass is given up, and the next is fine. */
static void test_bad_lengths(void **state)
{
	static const uint32_t lengths[] = {0, 4, 12, UINT32_MAX, CPROF_AGENT_RING_SIZE, 1u << 31};
	struct sim *sim = *state;
	struct sim_stack a;

	sim_stack(sim, &a, 0, 3);
	for (size_t i = 0; i < CPROF_COUNT(lengths); i++) {
		struct cprof_agent_record *record = sim_reserve(sim, 160);

		record->length = lengths[i];
		sim_commit(record);
		sim_alloc(sim, &a, 0x1000, 1);
		cprof_heap_drain(sim->heap);
		assert_int_equal(stats_of(sim).malformed, i + 1);
		assert_int_equal(sim->shared->tail, sim->shared->head);
		sim_alloc(sim, &a, 0x2000 + 16 * i, 1);
		cprof_heap_drain(sim->heap);
		assert_int_equal(stats_of(sim).samples, i + 1);
	}
}

static void test_bad_heads(void **state)
{
	static const uint64_t heads[] = {UINT64_MAX, 0, 3, 1ull << 63, 5ull << 20, UINT64_MAX - 7};
	struct sim *sim = *state;
	struct sim_stack a;

	sim_stack(sim, &a, 0, 3);
	for (size_t i = 0; i < CPROF_COUNT(heads); i++) {
		sim->shared->head = heads[i];
		sim->shared->tail = heads[CPROF_COUNT(heads) - 1 - i];
		cprof_heap_drain(sim->heap);
		sim->shared->head = sim->shared->tail;
		sim_alloc(sim, &a, 0x2000 + 16 * i, 1);
		cprof_heap_drain(sim->heap);
		assert_int_equal(sim->shared->tail, sim->shared->head);
	}
	assert_int_equal(stats_of(sim).samples, CPROF_COUNT(heads));
}

/* A writer that never came back holds up the others for a second, and only while they run. */
static void test_stuck(void **state)
{
	struct sim *sim = *state;
	struct sim_stack a;

	sim_stack(sim, &a, 0, 3);
	sim_reserve(sim, 160);
	sim_alloc(sim, &a, 0x1000, 1);
	cprof_heap_drain(sim->heap);
	assert_int_equal(stats_of(sim).samples, 0);
	usleep(1100000);
	cprof_heap_drain(sim->heap);
	assert_int_equal(stats_of(sim).samples, 0);
	sim_alloc(sim, &a, 0x1010, 1);
	cprof_heap_drain(sim->heap);
	assert_int_equal(stats_of(sim).samples, 2);
	assert_int_equal(stats_of(sim).lost, 1);
	/* not even the length was written */
	sim_reserve(sim, 160)->stamp = 0;
	sim_alloc(sim, &a, 0x1020, 1);
	cprof_heap_drain(sim->heap);
	usleep(1100000);
	sim_alloc(sim, &a, 0x1030, 1);
	cprof_heap_drain(sim->heap);
	sim_alloc(sim, &a, 0x1040, 1);
	cprof_heap_drain(sim->heap);
	assert_int_equal(stats_of(sim).samples, 3);
	assert_int_equal(stats_of(sim).lost, 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_memo_callers),
		TEST(test_memo_frame_pointer),
		TEST(test_memo_other_registers),
		TEST(test_memo_length),
		TEST(test_memo_flush),
		TEST(test_bad_records),
		TEST(test_bad_lengths),
		TEST(test_bad_heads),
		TEST(test_stuck),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
