/* SPDX-License-Identifier: MIT
 *
 * Whether samples mean what their weights say: estimates over many seeds against the truth, and the
 * gaps themselves. Blocks come from an allocator that only hands out addresses, so that sizes may
 * be anything. Seeds are fixed: the outcome is too.
 */
#include "agent_plant.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define SEEDS  300
#define BLOCKS 20000
#define RATE   512
#define BANK   2
#define GAPS   200000
/* 3.5 sigma of a mean square, with the excess that rare heavy weights give it. */
#define TOLERANCE (3.5 * sqrt(2.6 / SEEDS))

static uint64_t next_address;

static void *fake_malloc(size_t size)
{
	(void)size;
	next_address += 16;
	return (void *)next_address;
}

static void *fake_realloc(void *old, size_t size)
{
	return size % 7 ? fake_malloc(size) : old;
}

static void fake_free(void *block)
{
	(void)block;
}

static uint64_t random_state;

static uint64_t random_next(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state;
}

/* Mostly below the rate, some far above it, few of 0 (of which each weighs much) and of a
 * terabyte. */
static uint64_t random_size(void)
{
	uint64_t random = random_next();

	switch (random % 256) {
	case 0:
		return 0;
	case 1:
		return 1ull << 40;
	case 2:
		return random >> 20 & 0xfffff;
	default:
		return 1 + (random >> 20 & (random % 3 ? 0xff : 0x7ff));
	}
}

static double inclusion(double size, double rate)
{
	return -expm1(-(size + 1) / rate);
}

/* Estimate, truth, and the variance that sampling gives the estimate. */
struct sum {
	double estimate;
	double truth;
	double variance;
};
enum { ALLOC_OBJECTS, ALLOC_BYTES, LIVE_OBJECTS, LIVE_BYTES, SUMS };

struct block {
	void *address;
	uint64_t size;
};

static void add_truth(struct sum *sums, uint64_t size, bool live)
{
	double p = inclusion((double)size, RATE);
	double bytes = (double)size;

	for (int i = live ? LIVE_OBJECTS : ALLOC_OBJECTS; i <= (live ? LIVE_BYTES : ALLOC_BYTES);
	     i++) {
		double value = i % 2 ? bytes : 1;

		sums[i].truth += value;
		sums[i].variance += value * value * (1 - p) / p;
	}
}

static void add_estimate(struct sum *sums, uint64_t size, uint64_t rate, bool live)
{
	double p = inclusion((double)size, (double)rate);

	sums[live ? LIVE_OBJECTS : ALLOC_OBJECTS].estimate += 1 / p;
	sums[live ? LIVE_BYTES : ALLOC_BYTES].estimate += (double)size / p;
}

static void run_program(struct plant *plant, struct sum *sums, struct block *blocks)
{
	void *(*allocate)(size_t) = plant_hook(plant, BANK, CPROF_AGENT_F_malloc);
	void *(*move)(void *, size_t) = plant_hook(plant, BANK, CPROF_AGENT_F_realloc);
	void (*release)(void *) = plant_hook(plant, BANK, CPROF_AGENT_F_free);

	for (size_t i = 0; i < BLOCKS; i++) {
		blocks[i].size = random_size();
		blocks[i].address = allocate(blocks[i].size);
		add_truth(sums, blocks[i].size, false);
	}
	for (size_t i = 0; i < BLOCKS; i++) {
		switch (random_next() % 4) {
		case 0:
		case 1:
			release(blocks[i].address);
			continue;
		case 2:
			blocks[i].size = random_size();
			blocks[i].address = move(blocks[i].address, blocks[i].size);
			add_truth(sums, blocks[i].size, false);
			break;
		default:
			break;
		}
		add_truth(sums, blocks[i].size, true);
	}
}

static void collect(struct plant *plant, struct sum *sums)
{
	uint64_t position = plant->shared->tail;
	struct cprof_agent_record *record;

	while ((record = plant_next(plant, &position)))
		add_estimate(sums, record->size, record->rate, false);
	for (unsigned b = 0; b < CPROF_AGENT_BUCKETS; b++) {
		struct cprof_agent_bucket *bucket = &plant->shared->table[b];

		for (unsigned w = 0; w < CPROF_AGENT_BUCKET_WAYS; w++) {
			if (bucket->keys[w])
				add_estimate(sums, bucket->entries[w].size, bucket->entries[w].rate,
					     true);
		}
	}
}

static void plant_fake(struct plant *plant, uint64_t rate)
{
	plant_map(plant, rate);
	plant->config->originals[BANK][CPROF_AGENT_F_malloc] = (uint64_t)fake_malloc;
	plant->config->originals[BANK][CPROF_AGENT_F_realloc] = (uint64_t)fake_realloc;
	plant->config->originals[BANK][CPROF_AGENT_F_free] = (uint64_t)fake_free;
	plant->shared->stack_max = 0;
	plant_start(plant, 1);
	assert_int_equal(plant_call.error, 0);
}

/* As after a new START; which shard is ours must not matter. */
static void reseed(struct plant *plant, uint64_t seed)
{
	memset(plant->private_, 0, sizeof(*plant->private_));
	plant_shard(plant)->random = seed * 0xd1342543de82ef95;
	memset(plant->shared->table, 0, sizeof(plant->shared->table));
	plant_beat(plant);
	random_state = seed * 0x9e3779b97f4a7c15ull + 1;
	next_address = 0x10000;
}

static void test_estimates(void **state)
{
	static const char *const names[SUMS] = {"alloc objects", "alloc bytes", "live objects",
						"live bytes"};
	static struct block blocks[BLOCKS];
	double mean[SUMS] = {0};
	double square[SUMS] = {0};
	struct plant plant;

	(void)state;
	plant_fake(&plant, RATE);
	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		struct sum sums[SUMS] = {{0}};

		reseed(&plant, seed);
		run_program(&plant, sums, blocks);
		collect(&plant, sums);
		for (int i = 0; i < SUMS; i++) {
			double z = (sums[i].estimate - sums[i].truth) / sqrt(sums[i].variance);

			mean[i] += z / SEEDS;
			square[i] += z * z / SEEDS;
		}
	}
	for (int i = 0; i < SUMS; i++) {
		print_message("z of %s: mean %+.3f, mean square %.3f\n", names[i], mean[i],
			      square[i]);
		assert_true(fabs(mean[i]) < 3.5 / sqrt(SEEDS));
		assert_true(fabs(square[i] - 1) < TOLERANCE);
	}
	assert_int_equal(plant.shared->dropped + plant.shared->table_full, 0);
	assert_int_equal(plant.shared->missed_frees, 0);
	plant_destroy(&plant);
}

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a;
	uint64_t y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* Every call crosses; the gap drawn for the next one is what the countdown then holds. */
static void check_gaps(uint64_t rate)
{
	static uint64_t gaps[GAPS];
	struct plant plant;
	void *(*allocate)(size_t);
	uint64_t position = 0;
	double sum = 0;
	double square = 0;
	double distance = 0;

	plant_fake(&plant, rate);
	reseed(&plant, rate);
	allocate = plant_hook(&plant, BANK, CPROF_AGENT_F_malloc);
	for (size_t i = 0; i < GAPS; i++) {
		allocate(SIZE_MAX);
		gaps[i] = plant_shard(&plant)->countdown;
		sum += (double)gaps[i] / GAPS;
		while (plant_next(&plant, &position))
			;
		memset(plant.shared->table, 0, i % 1024 ? 0 : sizeof(plant.shared->table));
		plant_beat(&plant);
	}
	qsort(gaps, GAPS, sizeof(*gaps), compare);
	for (size_t i = 0; i < GAPS; i++) {
		double below = -expm1(-(double)(gaps[i] + 1) / (double)rate);

		square += ((double)gaps[i] - sum) * ((double)gaps[i] - sum) / GAPS;
		/* Of a discrete distribution: at the last of equal values. */
		if (i + 1 == GAPS || gaps[i + 1] != gaps[i])
			distance = fmax(distance, fabs(below - (double)(i + 1) / GAPS));
	}
	{
		double q = exp(-1 / (double)rate);
		double expected = q / (1 - q);
		double variance = q / ((1 - q) * (1 - q));

		print_message("rate %lu: mean %.6f, variance %.5f of the expected, KS %.2f\n", rate,
			      sum / expected, square / variance, distance * sqrt(GAPS));
		assert_true(fabs(sum - expected) < 3.5 * sqrt(variance / GAPS));
		assert_true(fabs(square / variance - 1) < 3.5 * sqrt(8.5 / GAPS));
		assert_true(distance * sqrt(GAPS) < 1.8);
	}
	plant_destroy(&plant);
}

static void test_gaps(void **state)
{
	(void)state;
	check_gaps(2);
	check_gaps(1000);
	check_gaps(512 << 10);
	check_gaps(1ull << 40);
}

/* A rate that changes while gaps drawn with the old one are under way. */
static void test_rate_changes(void **state)
{
	static const uint64_t rates[] = {RATE, RATE / 4, RATE * 3};
	double z = 0;
	double square = 0;
	struct plant plant;
	void *(*allocate)(size_t);

	(void)state;
	plant_fake(&plant, RATE);
	allocate = plant_hook(&plant, BANK, CPROF_AGENT_F_malloc);
	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		struct sum sums[SUMS] = {{0}};
		double variance = 0;
		double deviation;

		reseed(&plant, seed);
		for (int i = 0; i < 9000; i++) {
			uint64_t size = random_size() & 0xffff;

			plant.shared->rate = rates[i / 500 % 3];
			allocate(size);
			add_truth(sums, size, false);
			variance +=
				1 / inclusion((double)size, (double)plant_shard(&plant)->rate) - 1;
		}
		collect(&plant, sums);
		deviation = sums[ALLOC_OBJECTS].estimate - sums[ALLOC_OBJECTS].truth;
		z += deviation / sqrt(variance) / SEEDS;
		square += deviation * deviation / variance / SEEDS;
	}
	print_message("z with changing rates: mean %+.3f, mean square %.3f\n", z, square);
	assert_true(fabs(z) < 3.5 / sqrt(SEEDS));
	assert_true(fabs(square - 1) < TOLERANCE);
	plant_destroy(&plant);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_estimates),
		cmocka_unit_test(test_gaps),
		cmocka_unit_test(test_rate_changes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
