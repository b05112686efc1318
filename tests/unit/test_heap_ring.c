/* SPDX-License-Identifier: MIT
 *
 * Runs beside others.
 *
 * The reader of the agent's ring: stacks that are remembered, records that make no sense.
 */
#include "../../src/heap/private.h"
#include "heap_world.h"

#include <pthread.h>

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

/* What lies behind the captured bytes is not the stack's, whatever it is. */
static void test_memo_behind(void **state)
{
	struct sim *sim = *state;
	struct cprof_heap_stats stats;
	struct sim_stack a;

	sim_stack(sim, &a, 0, 20);
	expect_frames(sim, 0x1000, &a, 22);
	sim_alloc(sim, &a, 0x1010, 1);
	((struct cprof_agent_record *)(sim->shared->ring + sim->shared->tail))->stack_length = 64;
	cprof_heap_drain(sim->heap);
	stats = stats_of(sim);
	assert_int_equal(stats.frames, 22 + 3);
	assert_int_equal(stats.ends[CPROF_END_TRUNCATED], 1);
}

/* A stack that ended early for want of a good rbp says nothing of one that has it. */
static void test_memo_incomplete(void **state)
{
	struct sim *sim = *state;
	struct sim_stack a;

	sim_stack(sim, &a, 0, 20);
	sim_rule(sim, a.words[3], (struct cprof_rule){.kind = CPROF_RULE_NONE});
	for (unsigned i = 0; i < 20; i++) {
		a.regs.rbp = i % 2 ? SIM_SP + 48 : 1;
		expect_frames(sim, 0x1000 + 16 * i, &a, i % 2 ? 22 : 2);
	}
}

/* After the address space has changed what was remembered is void. */
static void test_memo_flush(void **state)
{
	struct sim *sim = *state;
	struct sim_stack a;

	sim_stack(sim, &a, 0, 20);
	expect_frames(sim, 0x1000, &a, 22);
	sim_rule(sim, a.regs.pc, sim_frame(64));
	cprof_agent_records_flush(&sim->records);
	expect_frames(sim, 0x1010, &a, 21);
}

/* --- bounds of stacks ---------------------------------------------------------------------- */

static uint64_t own_thread_pointer(void)
{
	uint64_t pointer;

	__asm__("mov %%fs:0, %0" : "=r"(pointer));
	return pointer;
}

/* Makes a record as if of the calling thread. */
static void *note_self(void *argument)
{
	struct sim *sim = argument;
	struct sim_stack a;

	sim_stack(sim, &a, 0, 3);
	a.regs.thread_pointer = own_thread_pointer();
	a.regs.sp = (uint64_t)__builtin_frame_address(0);
	sim_put_alloc(sim, &a,
		      &(struct cprof_agent_record){.tid = (uint32_t)gettid(),
						   .id = 1,
						   .address = a.regs.thread_pointer,
						   .size = 1,
						   .rate = 1});
	cprof_heap_drain(sim->heap);
	usleep(260000); /* maps are not read again at once */
	cprof_heap_drain(sim->heap);
	return NULL;
}

static const struct cprof_agent_stack *bounds_of(const struct sim *sim, uint64_t thread_pointer)
{
	return &sim->shared->stacks[(thread_pointer * CPROF_AGENT_HASH) >>
				    (64 - CPROF_AGENT_SHARD_BITS)];
}

/* A thread's own mapping up to its thread pointer, and nothing for one whose stack is another. */
static void *check_pthread(void *argument)
{
	struct sim *sim = argument;
	const struct cprof_agent_stack *bounds = bounds_of(sim, own_thread_pointer());
	pthread_attr_t attributes;
	void *low = NULL;
	size_t size = 0;

	note_self(sim);
	pthread_getattr_np(pthread_self(), &attributes);
	pthread_attr_getstack(&attributes, &low, &size);
	pthread_attr_destroy(&attributes);
	assert_int_equal(bounds->thread_pointer, own_thread_pointer());
	assert_int_equal(bounds->low, (uint64_t)low);
	assert_int_equal(bounds->high, own_thread_pointer());
	assert_int_equal(bounds->tid, gettid());
	assert_int_equal(*(uint32_t *)(own_thread_pointer() + sim->shared->tid_offset), gettid());
	assert_int_equal(bounds->sequence % 2, 0);
	assert_true(bounds->sequence > 0);
	return NULL;
}

static void test_bounds(void **state)
{
	const struct cprof_agent_stack *bounds;
	uint64_t self = own_thread_pointer();
	struct cprof_target *target;
	pthread_attr_t attributes;
	pthread_t thread;
	void *own_stack;
	struct sim sim;

	(void)state;
	assert_null(cprof_target_create(getpid(), &target));
	sim_init(&sim, 1);
	cprof_space_destroy(sim.space);
	assert_null(cprof_space_create(target, sim.modules, &sim.space));
	assert_null(
		cprof_space_map_module(sim.space, SIM_TEXT, SIM_TEXT_END, SIM_TEXT, sim.module));
	sim.unwinder->ops->destroy(sim.unwinder);
	assert_null(cprof_unwinder_cfi.create(sim.space, &sim.unwinder));
	sim_start(&sim, NULL);
	note_self(&sim);
	bounds = bounds_of(&sim, self);
	assert_int_equal(bounds->thread_pointer, self);
	assert_true((uint64_t)&self >= bounds->low && (uint64_t)&self < bounds->high);
	assert_true((uint64_t)environ[0] >= bounds->high); /* not what no frame lies in */
	assert_int_equal(bounds->tid, getpid());
	pthread_create(&thread, NULL, check_pthread, &sim);
	pthread_join(thread, NULL);

	/* Two threads agree where the libc keeps the tid. */
	assert_int_not_equal(sim.shared->tid_offset, 0);
	assert_int_equal(*(uint32_t *)(self + sim.shared->tid_offset), gettid());

	/* Memory of the program's own for a stack: without guard pages nobody can tell. */
	memset(sim.shared->stacks, 0, sizeof(sim.shared->stacks));
	own_stack = mmap(NULL, 2 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	mprotect(own_stack, 1 << 20, PROT_READ); /* whatever lies before it */
	pthread_attr_init(&attributes);
	pthread_attr_setstack(&attributes, (char *)own_stack + (1 << 20), 1 << 20);
	pthread_create(&thread, &attributes, note_self, &sim);
	pthread_join(thread, NULL);
	pthread_attr_destroy(&attributes);
	for (size_t i = 0; i < CPROF_AGENT_SHARDS; i++)
		assert_int_equal(sim.shared->stacks[i].low, 0);
	munmap(own_stack, 2 << 20);
	sim_deinit(&sim);
	cprof_target_destroy(target);
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
		{16, CPROF_AGENT_RECORD_FREE, 1, 0x1000, 1, 1, 0},
		/* stacks that were never met, and one of the wrong length */
		{40, CPROF_AGENT_RECORD_SEEN, 100, 0x1000, 1, 1, 0},
		{40, CPROF_AGENT_RECORD_SEEN, UINT32_MAX, 0x1000, 1, 1, 0},
		{40, CPROF_AGENT_RECORD_SEEN, UINT64_MAX, 0x1000, 1, 1, 0},
		{40, CPROF_AGENT_RECORD_SEEN, 0, 0x1000, UINT64_MAX, 1, 0},
		{48, CPROF_AGENT_RECORD_SEEN, 0, 0x1000, 1, 1, 0},
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

static void put_free(struct cprof_agent_shared *shared, uint64_t position, uint32_t length)
{
	struct cprof_agent_record *record = (void *)&shared->ring[position];

	*record = (struct cprof_agent_record){.length = length,
					      .stamp = (uint32_t)position | CPROF_AGENT_STAMP_DONE,
					      .type = CPROF_AGENT_RECORD_FREE,
					      .address = 0x1000 + position};
	if (length > CPROF_AGENT_RECORD_SHORT) {
		record->type = CPROF_AGENT_RECORD_ALLOC;
		record->id = record->size = record->rate = 1;
	}
}

/* A short stack gives back room that another record takes at once, with more behind it, all while a
 * pass goes on that knows of the first reservation only. */
static void test_given_back(void **state)
{
	struct sim *sim = *state;
	struct cprof_agent_shared *shared = sim->shared;
	struct cprof_heap_record record;
	struct cprof_agent_ring ring;

	cprof_heap_ring_init(&ring, shared);
	assert_int_equal(ring.tail, 0);
	shared->head = 1024;
	cprof_agent_ring_begin(&ring);
	put_free(shared, 0, CPROF_AGENT_RECORD_SHORT);
	put_free(shared, CPROF_AGENT_RECORD_SHORT, 2048);
	shared->head = CPROF_AGENT_RECORD_SHORT + 2048;
	assert_true(cprof_heap_ring_next(&ring, &record));
	assert_int_equal(record.fixed.address, 0x1000);
	assert_false(cprof_heap_ring_next(&ring, &record));
	/* The same again, seen when its room had been given back and its stamp not yet changed. */
	((struct cprof_agent_record *)&shared->ring[CPROF_AGENT_RECORD_SHORT])->stamp =
		CPROF_AGENT_RECORD_SHORT | CPROF_AGENT_STAMP_BUSY;
	shared->head = CPROF_AGENT_RECORD_SHORT + 512;
	cprof_agent_ring_begin(&ring);
	assert_false(cprof_heap_ring_next(&ring, &record));
	put_free(shared, CPROF_AGENT_RECORD_SHORT, 512);
	cprof_agent_ring_begin(&ring);
	assert_true(cprof_heap_ring_next(&ring, &record));
	assert_int_equal(record.fixed.address, 0x1000 + CPROF_AGENT_RECORD_SHORT);
	assert_false(cprof_heap_ring_next(&ring, &record));
	assert_int_equal(shared->tail, shared->head);
	assert_int_equal(ring.malformed + ring.lost, 0);
}

/* Stacks without end fill neither our memory nor the profile; none is lost. */
static void test_endless_stacks(void **state)
{
	struct sim *sim = *state;
	struct cprof_profile *profile;
	struct sim_stack a;
	int64_t total = 0;
	int64_t marked[4];

	sim_stack(sim, &a, 0, 1);
	for (unsigned i = 0; i < 1000; i++) {
		sim_rule(sim, SIM_TEXT + 0x2000 + i, sim_frame(32));
		sim_rule(sim, SIM_TEXT + 0x8000 + i, sim_frame(32));
	}
	for (uint64_t i = 0; i < 600000; i++) {
		a.regs.pc = SIM_TEXT + 0x2000 + i % 1000;
		a.words[3] = SIM_TEXT + 0x8000 + i / 1000;
		while (!sim_alloc(sim, &a, 0x1000 + 16 * (i % 100), 1))
			cprof_heap_drain(sim->heap);
	}
	cprof_heap_drain(sim->heap);
	profile = profile_of(sim);
	for (size_t i = 0; i < profile->sample_count; i++)
		total += profile->values[4 * i];
	assert_int_equal(total, 600000);
	assert_true(profile->stack_count < 530000);
	values_of(profile, 0, "[too many stacks]", marked);
	assert_true(marked[0] > 70000 && marked[0] < 80000);
	cprof_profile_destroy(profile);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_memo_callers),       TEST(test_given_back),
		TEST(test_memo_frame_pointer), TEST(test_memo_other_registers),
		TEST(test_memo_length),        TEST(test_memo_behind),
		TEST(test_memo_incomplete),    TEST(test_memo_flush),
		TEST(test_bad_records),        TEST(test_bad_lengths),
		TEST(test_bad_heads),          TEST(test_stuck),
		TEST(test_endless_stacks),     cmocka_unit_test(test_bounds),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
