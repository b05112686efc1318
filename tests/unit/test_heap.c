/* SPDX-License-Identifier: MIT
 *
 * Runs beside others.
 *
 * Heap accounting over a simulated agent: sums, invariants, estimates.
 */
#include "heap_world.h"

#include <pthread.h>
#include <unistd.h>

/* --- weights ------------------------------------------------------------------------------- */

static void test_weight(void **state)
{
	(void)state;
	assert_true(cprof_heap_weight(100, 1) == 1);
	assert_true(cprof_heap_weight(UINT64_MAX, 524288) == 1);
	/* 1 / (1 - exp(-x)) = 1 / x + 1 / 2 + x / 12 - … */
	assert_true(fabs(cprof_heap_weight(0, 1ull << 40) - (0x1p40 + 0.5)) < 1e-3);
	assert_true(fabs(cprof_heap_weight(524287, 524288) - 1 / (1 - exp(-1))) < 1e-12);
}

/* --- exact --------------------------------------------------------------------------------- */

static void test_exact(void **state)
{
	struct sim *sim = *state;
	struct cprof_heap_stats stats;
	struct sim_stack a;
	struct sim_stack b;

	sim_stack(sim, &a, 0, 3);
	sim_stack(sim, &b, 1, 5);
	for (uint64_t i = 0; i < 1000; i++)
		assert_true(sim_alloc(sim, i % 4 ? &a : &b, 0x100000 + 32 * i, i));
	for (uint64_t i = 0; i < 1000; i += 2)
		assert_true(sim_free(sim, 0x100000 + 32 * i));
	assert_true(sim_free(sim, 0x500000)); /* from before */
	cprof_heap_drain(sim->heap);
	stats = stats_of(sim);
	assert_int_equal(stats.samples, 1000);
	assert_int_equal(stats.frees, 500);
	assert_int_equal(stats.lost, 0);
	assert_int_equal(stats.malformed, 0);
	assert_int_equal(stats.ends[CPROF_END_COMPLETE], 1000);
	assert_int_equal(stats.frames, 750 * 5 + 250 * 7);
	assert_true(stats.alloc_objects == 1000 && stats.alloc_bytes == 999 * 500);
	assert_true(stats.live_objects == 500 && stats.live_bytes == 500 * 500);
	assert_true(stats.peak_bytes == stats.live_bytes);
	expect_values(sim, a.regs.pc, NULL, 750, 999 * 500 - 250 * 498, 500, 250000);
	expect_values(sim, b.regs.pc, NULL, 250, 250 * 498, 0, 0);
}

static void test_realloc_and_reuse(void **state)
{
	struct sim *sim = *state;
	struct cprof_heap_stats stats;
	struct sim_stack a;

	sim_stack(sim, &a, 0, 3);
	sim_alloc(sim, &a, 0x100000, 10);
	/* a realloc that fails */
	sim_free(sim, 0x100000);
	sim_put_short(sim, CPROF_AGENT_RECORD_KEEP, 0x100000);
	/* one that succeeds in place */
	sim_free(sim, 0x100000);
	sim_alloc(sim, &a, 0x100000, 20);
	/* a keep of nothing, and of what lives */
	sim_put_short(sim, CPROF_AGENT_RECORD_KEEP, 0x200000);
	sim_put_short(sim, CPROF_AGENT_RECORD_KEEP, 0x100000);
	/* a free that was not seen */
	sim_alloc(sim, &a, 0x100000, 30);
	cprof_heap_drain(sim->heap);
	stats = stats_of(sim);
	assert_int_equal(stats.samples, 3);
	assert_int_equal(stats.live_samples, 1);
	assert_int_equal(stats.missed, 1);
	expect_values(sim, a.regs.pc, NULL, 3, 60, 1, 30);
}

/* A stack that was met twice is told to the agent, which then need not copy it. */
static void test_seen(void **state)
{
	struct sim *sim = *state;
	struct cprof_heap_stats stats;
	struct sim_stack a;
	struct sim_stack b;
	struct sim_stack cut;
	uint32_t stack;

	sim_stack(sim, &a, 0, 3);
	sim_stack(sim, &b, 0, 5); /* as `a` as far as that goes */
	sim_stack(sim, &cut, 1, 5);
	cut.length = 64;
	for (uint64_t i = 0; i < 6; i++) {
		assert_true(sim_alloc(sim,
				      i % 3 == 0   ? &a
				      : i % 3 == 1 ? &b
						   : &cut,
				      0x1000 + 16 * i, 10));
		cprof_heap_drain(sim->heap);
		assert_true((sim_seen(sim, &a) != NULL) == (i >= 3));
		assert_true((sim_seen(sim, &b) != NULL) == (i >= 4));
	}
	/* what a cut stack is depends on where it was cut */
	assert_true(sim_seen(sim, &cut) && sim_seen(sim, &cut)->whole);
	assert_int_equal(sim_seen(sim, &cut)->length, 64);
	stack = sim_seen(sim, &b)->stack;
	assert_int_not_equal(stack, sim_seen(sim, &a)->stack);
	sim_put_seen(sim, stack, 0x2000, 30);
	sim_put_seen(sim, sim_seen(sim, &cut)->stack, 0x3000, 30);
	sim_free(sim, 0x2000);
	/* what was compared before, and is written afterwards, still holds */
	cprof_agent_records_flush(&sim->records);
	cprof_heap_drain(sim->heap);
	assert_null(sim_seen(sim, &b));
	sim_put_seen(sim, stack, 0x2010, 40);
	cprof_heap_drain(sim->heap);
	stats = stats_of(sim);
	assert_int_equal(stats.samples, 9);
	assert_int_equal(stats.malformed, 0);
	assert_int_equal(stats.ends[CPROF_END_TRUNCATED], 3);
	assert_int_equal(stats.frames, 2 * 5 + 4 * 7 + 3 * 3);
	assert_true(stats.alloc_bytes == 6 * 10 + 30 + 30 + 40);
	assert_int_equal(stats.live_samples, 8);
}

/* More stacks than the table holds: it is emptied, at most once a second, and nothing else. */
static void test_seen_full(void **state)
{
	struct sim *sim = *state;
	struct sim_stack a;
	uint64_t address = 0x1000;

	sim_stack(sim, &a, 0, 60);
	for (uint64_t i = 0; i < 10000; i++) {
		a.regs.sp = SIM_SP + 64 * i;
		while (!sim_alloc(sim, &a, address, 1) || !sim_alloc(sim, &a, address + 16, 1))
			cprof_heap_drain(sim->heap);
		address += 32;
	}
	cprof_heap_drain(sim->heap);
	assert_null(sim_seen(sim, &a));
	usleep(1100000);
	assert_true(sim_alloc(sim, &a, address, 1));
	cprof_heap_drain(sim->heap);
	assert_non_null(sim_seen(sim, &a));
	a.regs.sp = SIM_SP;
	assert_null(sim_seen(sim, &a));
	assert_int_equal(stats_of(sim).malformed, 0);
}

/* Many laps of the ring, with records of all lengths. */
static void test_wrap(void **state)
{
	struct sim *sim = *state;
	struct sim_stack stacks[8];
	uint64_t done = 0;

	for (unsigned i = 0; i < 8; i++)
		sim_stack(sim, &stacks[i], i, 1 + 7 * i);
	for (uint64_t i = 0; i < 200000; i++) {
		while (!sim_alloc(sim, &stacks[i % 8], 0x100000 + 16 * i, i % 100))
			cprof_heap_drain(sim->heap);
		if (i % 3 == 0)
			while (!sim_free(sim, 0x100000 + 16 * i))
				cprof_heap_drain(sim->heap);
		done += i % 100;
	}
	cprof_heap_drain(sim->heap);
	assert_int_equal(stats_of(sim).samples, 200000);
	assert_int_equal(stats_of(sim).frees, 66667);
	assert_int_equal(stats_of(sim).malformed, 0);
	assert_true(stats_of(sim).alloc_bytes == (double)done);
	assert_true(sim->shared->head > 8ull * CPROF_AGENT_RING_SIZE);
	assert_int_equal(sim->shared->tail, sim->shared->head);
}

struct writer {
	struct sim *sim;
	struct sim_stack stack;
	uint64_t base;
	atomic_int *running;
};

static void *write_some(void *argument)
{
	struct writer *writer = argument;

	for (uint64_t i = 0; i < 30000; i++) {
		while (!sim_alloc(writer->sim, &writer->stack, writer->base + 16 * i, 8))
			sched_yield();
		if (i % 2)
			while (!sim_free(writer->sim, writer->base + 16 * (i - 1)))
				sched_yield();
	}
	atomic_fetch_sub(writer->running, 1);
	return NULL;
}

static void test_writers(void **state)
{
	struct sim *sim = *state;
	struct writer writers[4];
	pthread_t threads[4];
	atomic_int running = 4;

	for (unsigned i = 0; i < 4; i++) {
		writers[i] = (struct writer){
			.sim = sim, .base = 0x1000000ull * (i + 1), .running = &running};
		sim_stack(sim, &writers[i].stack, i, 20);
	}
	for (unsigned i = 0; i < 4; i++)
		pthread_create(&threads[i], NULL, write_some, &writers[i]);
	while (running)
		cprof_heap_drain(sim->heap);
	for (unsigned i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	cprof_heap_drain(sim->heap);
	assert_int_equal(stats_of(sim).samples, 120000);
	assert_int_equal(stats_of(sim).frees, 60000);
	assert_int_equal(stats_of(sim).lost, 0);
	for (unsigned i = 0; i < 4; i++)
		expect_values(sim, writers[i].stack.regs.pc, NULL, 30000, 240000, 15000, 120000);
}

/* What had no room is told with its bytes, so that the total stays true. */
static void test_overrun(void **state)
{
	struct sim *sim = *state;
	struct cprof_profile *profile;
	struct sim_stack a;
	int64_t in = 0;

	sim_stack(sim, &a, 0, 50);
	for (uint64_t i = 0; i < 10000; i++) {
		if (sim_alloc(sim, &a, 0x100000 + 16 * i, 7)) {
			in++;
			continue;
		}
		sim->shared->dropped++;
		sim->shared->dropped_bytes += 7;
	}
	assert_true(in > 1000 && in < 9000);
	assert_true(cprof_heap_drain(sim->heap) > 0.9);
	assert_int_equal(stats_of(sim).lost, 10000 - in);
	assert_int_equal(stats_of(sim).rate, 1);
	expect_values(sim, a.regs.pc, NULL, in, 7 * in, in, 7 * in);
	expect_values(sim, 0, "[lost samples]", 10000 - in, 7 * (10000 - in), 0, 0);
	profile = profile_of(sim);
	assert_true(has_comment(profile, "samples lost"));
	cprof_profile_destroy(profile);
}

static bool wanted_odd(void *context, pid_t tid)
{
	(void)context;
	return tid % 2;
}

static void test_wanted(void **state)
{
	struct sim_stack a;
	struct sim sim;

	(void)state;
	sim_init(&sim, 1);
	sim_start(&sim, wanted_odd);
	sim_stack(&sim, &a, 0, 3);
	for (uint32_t i = 0; i < 10; i++) {
		struct cprof_agent_record what = {
			.tid = i, .id = i + 1, .address = 0x1000 + 16 * i, .size = 1, .rate = 1};

		sim_put_alloc(&sim, &a, &what);
		if (i < 4)
			sim_free(&sim, what.address);
	}
	cprof_heap_drain(sim.heap);
	expect_values(&sim, a.regs.pc, NULL, 5, 5, 3, 3);
	assert_int_equal(stats_of(&sim).samples, 5);
	sim_deinit(&sim);
}

static void test_truncated_marker(void **state)
{
	struct sim *sim = *state;
	struct cprof_profile *profile;
	struct sim_stack a;
	const struct cprof_profile_span *span;

	sim_stack(sim, &a, 0, 9);
	a.length = 64;
	for (uint64_t i = 0; i < 3; i++)
		sim_alloc(sim, &a, 0x1000 + 16 * i, 5);
	cprof_heap_drain(sim->heap);
	assert_int_equal(stats_of(sim).ends[CPROF_END_TRUNCATED], 3);
	profile = profile_of(sim);
	assert_int_equal(profile->sample_count, 1);
	assert_int_equal(profile->values[1], 15);
	span = &profile->stacks[profile->samples[0].stack];
	assert_int_equal(span->count, 4); /* three frames and the marker */
	assert_int_equal(profile->period, 1);
	assert_int_equal(profile->duration_ns, 0);
	assert_int_equal(profile->default_type, 0);
	assert_string_equal(profile->strings[profile->period_type.type], "space");
	assert_int_equal(cprof_profile_find_type(profile, "inuse_space"), 3);
	assert_true(has_comment(profile, "live since attach; the rest predates attach"));
	cprof_profile_destroy(profile);
}

/* --- sampled ------------------------------------------------------------------------------- */

static void test_sampled(void **state)
{
	struct sim *sim = *state;
	struct sim_stack a;
	double weight = cprof_heap_weight(100, RATE);

	sim_stack(sim, &a, 0, 3);
	for (uint64_t i = 0; i < 100; i++)
		assert_true(sim_sample(sim, &a, 0x1000 + 16 * i, 100));
	cprof_heap_drain(sim->heap);
	assert_int_equal(stats_of(sim).live_samples, 100);
	for (uint64_t i = 0; i < 60; i++)
		assert_true(sim_remove(sim, 0x1000 + 16 * i));
	/* one whose record is not there yet; one that a realloc has in its hands */
	assert_true(sim_insert(sim, 0x9000, sim_next_id(sim) + 5, 100, RATE));
	for (unsigned i = 0; i < CPROF_AGENT_BUCKET_WAYS; i++)
		if (sim_bucket(sim, 0x1000 + 16 * 70)->keys[i] == 0x1000 + 16 * 70)
			sim_bucket(sim, 0x1000 + 16 * 70)->keys[i] |= CPROF_AGENT_KEY_BUSY;
	cprof_heap_drain(sim->heap);
	assert_int_equal(stats_of(sim).frees, 60);
	assert_int_equal(stats_of(sim).live_samples, 40);
	assert_true(fabs(stats_of(sim).live_objects - 40 * weight) < 1e-6);
	assert_true(fabs(stats_of(sim).alloc_bytes - 100 * 100 * weight) < 1e-4);
	for (uint64_t i = 60; i < 100; i++)
		if (!sim_remove(sim, 0x1000 + 16 * i))
			assert_true(sim_remove(sim, (0x1000 + 16 * i) | CPROF_AGENT_KEY_BUSY) ||
				    i == 70);
	for (unsigned i = 0; i < CPROF_AGENT_BUCKET_WAYS; i++)
		sim_bucket(sim, 0x1000 + 16 * 70)->keys[i] = 0;
	cprof_heap_drain(sim->heap);
	assert_int_equal(stats_of(sim).live_samples, 0);
	assert_true(stats_of(sim).live_bytes == 0);
}

static void test_gap(void **state)
{
	struct sim *sim = *state;
	struct cprof_profile *profile;
	struct sim_stack a;

	sim_stack(sim, &a, 0, 3);
	for (uint64_t i = 0; i < 10; i++)
		sim_sample(sim, &a, 0x1000 + 16 * i, 100);
	cprof_heap_drain(sim->heap);
	sim->shared->quiet++;
	cprof_heap_drain(sim->heap);
	sim_sample(sim, &a, 0x2000, 100);
	cprof_heap_drain(sim->heap);
	assert_int_equal(stats_of(sim).gaps, 1);
	assert_int_equal(stats_of(sim).voided, 10);
	assert_int_equal(stats_of(sim).frees, 0);
	assert_int_equal(stats_of(sim).live_samples, 1);
	profile = profile_of(sim);
	assert_true(has_comment(profile, "1 gaps"));
	cprof_profile_destroy(profile);
}

/* Under pressure the rate doubles, once for each cause; what was sampled before keeps its own. */
static void test_pressure(void **state)
{
	struct sim *sim = *state;
	struct sim_stack a;

	sim_stack(sim, &a, 0, 3);
	sim_sample(sim, &a, 0x1000, 100);
	sim->shared->dropped += 3;
	cprof_heap_drain(sim->heap);
	assert_int_equal(sim->shared->rate, 2 * RATE);
	assert_int_equal(sim->shared->epoch, 2);
	assert_int_equal(stats_of(sim).rate, 2 * RATE);
	assert_int_equal(stats_of(sim).lost, 3);
	assert_true(stats_of(sim).live_objects == cprof_heap_weight(100, RATE));
	sim_sample(sim, &a, 0x1010, 100);
	cprof_heap_drain(sim->heap);
	assert_int_equal(sim->shared->rate, 2 * RATE);
	assert_true(fabs(stats_of(sim).live_objects - cprof_heap_weight(100, RATE) -
			 cprof_heap_weight(100, 2 * RATE)) < 1e-9);
	for (uint64_t i = 0; i < 50000; i++) { /* the table fills */
		sim_sample(sim, &a, 0x100000 + 16 * i, 1);
		if (i % 1000 == 0)
			cprof_heap_drain(sim->heap);
	}
	assert_true(sim->shared->rate >= 4 * RATE); /* more on a slow machine */
}

/* More samples a second than anybody needs: fewer; none for a while: as many as were asked for. */
static void test_pace(void **state)
{
	struct sim *sim = *state;
	struct sim_stack a;

	sim_stack(sim, &a, 0, 3);
	for (uint64_t i = 0; i < 20000; i++) {
		sim_sample(sim, &a, 0x100000, 100);
		sim_remove(sim, 0x100000);
		if (i % 1000 == 0)
			cprof_heap_drain(sim->heap);
	}
	usleep(110000);
	cprof_heap_drain(sim->heap);
	assert_true(sim->shared->rate >= 2 * RATE);
	assert_int_equal(stats_of(sim).lost, 0);
	for (int i = 0; i < 10; i++) {
		usleep(110000);
		cprof_heap_drain(sim->heap);
	}
	assert_int_equal(sim->shared->rate, RATE);
}

#define TRUTH_STACKS 6
#define TRUTH_SEEDS  250

struct truth {
	double objects;
	double bytes;
	double live_objects;
	double live_bytes;
};

/* Estimates of a seeded run minus the truth, and their variance as sampling theory has it: for a
 * block of S bytes that is sampled with p, (1 - p) / p (times S squared). */
static void run_truth(uint64_t seed, double z[TRUTH_STACKS][4])
{
	struct truth truth[TRUTH_STACKS] = {0};
	struct truth variance[TRUTH_STACKS] = {0};
	struct sim_stack stacks[TRUTH_STACKS];
	struct cprof_profile *profile;
	struct sim_chance chance;
	struct sim sim;

	sim_init(&sim, RATE);
	sim_start(&sim, NULL);
	sim_chance(&chance, seed, RATE);
	for (unsigned i = 0; i < TRUTH_STACKS; i++)
		sim_stack(&sim, &stacks[i], i, 2 + i);
	for (uint64_t i = 0; i < 60000; i++) {
		unsigned which = (unsigned)(i % TRUTH_STACKS);
		uint64_t size = which * which * 100 + i % 50;
		double v = cprof_heap_weight(size, RATE) - 1;
		bool lives = i % 5 == 0;

		truth[which].objects++;
		truth[which].bytes += (double)size;
		variance[which].objects += v;
		variance[which].bytes += v * (double)(size * size);
		if (lives) {
			truth[which].live_objects++;
			truth[which].live_bytes += (double)size;
			variance[which].live_objects += v;
			variance[which].live_bytes += v * (double)(size * size);
		}
		if (!sim_chosen(&chance, size, RATE))
			continue;
		assert_true(sim_sample(&sim, &stacks[which], 0x100000 + 16 * i, size));
		if (chance.random % 64 == 0)
			cprof_heap_drain(sim.heap);
		if (!lives)
			sim_remove(&sim, 0x100000 + 16 * i);
	}
	cprof_heap_drain(sim.heap);
	profile = profile_of(&sim);
	for (unsigned i = 0; i < TRUTH_STACKS; i++) {
		int64_t v[4];

		values_of(profile, stacks[i].regs.pc, NULL, v);
		z[i][0] = ((double)v[0] - truth[i].objects) / sqrt(variance[i].objects);
		z[i][1] = ((double)v[1] - truth[i].bytes) / sqrt(variance[i].bytes);
		z[i][2] = ((double)v[2] - truth[i].live_objects) / sqrt(variance[i].live_objects);
		z[i][3] = ((double)v[3] - truth[i].live_bytes) / sqrt(variance[i].live_bytes);
	}
	assert_int_equal(stats_of(&sim).lost, 0);
	cprof_profile_destroy(profile);
	sim_deinit(&sim);
}

/* Over many seeds each z-score has mean 0 and variance 1 within five standard errors. */
static void test_truth(void **state)
{
	static double sum[TRUTH_STACKS][4];
	static double squares[TRUTH_STACKS][4];

	(void)state;
	for (uint64_t seed = 1; seed <= TRUTH_SEEDS; seed++) {
		double z[TRUTH_STACKS][4];

		run_truth(seed, z);
		for (unsigned i = 0; i < TRUTH_STACKS; i++)
			for (unsigned v = 0; v < 4; v++) {
				sum[i][v] += z[i][v];
				squares[i][v] += z[i][v] * z[i][v];
			}
	}
	for (unsigned i = 0; i < TRUTH_STACKS; i++)
		for (unsigned v = 0; v < 4; v++) {
			double mean = sum[i][v] / TRUTH_SEEDS;
			double variance = squares[i][v] / TRUTH_SEEDS - mean * mean;

			if (fabs(mean) * sqrt(TRUTH_SEEDS) > 4 ||
			    fabs(variance - 1) > 5 * sqrt(2.0 / TRUTH_SEEDS))
				fail_msg("stack %u value %u: mean %f variance %f", i, v, mean,
					 variance);
		}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_weight),
		TEST(test_exact),
		TEST(test_realloc_and_reuse),
		TEST(test_seen),
		TEST(test_seen_full),
		TEST(test_wrap),
		TEST(test_writers),
		TEST(test_overrun),
		cmocka_unit_test(test_wanted),
		TEST(test_truncated_marker),
		SAMPLED(test_sampled),
		SAMPLED(test_gap),
		SAMPLED(test_pressure),
		SAMPLED(test_pace),
		cmocka_unit_test(test_truth),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
