/* SPDX-License-Identifier: MIT
 *
 * The real agent's records of this very process, with its real stacks.
 */
#include "agent_plant.h"
#include "heap_world.h"

#define THREADS 3
#define ROUNDS  20000

struct hooked {
	struct plant plant;
	struct sim sim; /* over the plant's shared area */
	struct cprof_target *target;
	void *(*allocate)(size_t);
	void *(*reallocate)(void *, size_t);
	void (*release)(void *);
	void *held[THREADS][THREADS]; /* by thread: as many blocks as its number */
};

static void create(struct hooked *hooked, uint64_t rate)
{
	struct sim *sim = &hooked->sim;

	memset(hooked, 0, sizeof(*hooked));
	plant_create(&hooked->plant, rate, 42);
	hooked->plant.shared->stack_max = 16384;
	hooked->allocate = plant_hook(&hooked->plant, 0, CPROF_AGENT_F_malloc);
	hooked->reallocate = plant_hook(&hooked->plant, 0, CPROF_AGENT_F_realloc);
	hooked->release = plant_hook(&hooked->plant, 0, CPROF_AGENT_F_free);
	sim->shared = hooked->plant.shared;
	assert_null(cprof_target_create(getpid(), &hooked->target));
	assert_null(cprof_modules_create(NULL, &sim->modules));
	assert_null(cprof_space_create(hooked->target, sim->modules, &sim->space));
	assert_null(cprof_space_refresh(sim->space));
	assert_null(cprof_unwinder_cfi.create(sim->space, &sim->unwinder));
	assert_null(cprof_agent_bounds_create(&sim->bounds));
	sim_start(sim, NULL);
}

static void destroy(struct hooked *hooked)
{
	struct sim *sim = &hooked->sim;

	plant_run(&hooked->plant, CPROF_AGENT_RESTORE);
	for (unsigned i = 0; i < THREADS * THREADS; i++)
		free(hooked->held[i / THREADS][i % THREADS]);
	cprof_heap_destroy(sim->heap);
	cprof_agent_bounds_destroy(sim->bounds);
	sim->unwinder->ops->destroy(sim->unwinder);
	cprof_space_destroy(sim->space);
	cprof_modules_destroy(sim->modules);
	cprof_target_destroy(hooked->target);
	plant_destroy(&hooked->plant);
}

/* Allocates at the end of so many calls; what the callers keep in registers differs each time. */
static __attribute__((noinline)) void *deep(struct hooked *hooked, unsigned depth, size_t size)
{
	void *volatile block = depth ? deep(hooked, depth - 1, size) : hooked->allocate(size);

	return block;
}

struct worker {
	struct hooked *hooked;
	unsigned number;
	atomic_int *running;
	double bytes;
};

static void *work(void *argument)
{
	struct worker *worker = argument;
	struct hooked *hooked = worker->hooked;
	void *kept[64] = {NULL};

	for (unsigned i = 0; i < ROUNDS; i++) {
		size_t size = 1 + i % 300;

		hooked->release(kept[i % 64]);
		kept[i % 64] = deep(hooked, i % 8 * 3, size);
		worker->bytes += (double)size;
		if (i % 10 == 0) {
			kept[i % 64] = hooked->reallocate(kept[i % 64], 2 * size);
			worker->bytes += 2 * (double)size;
		}
	}
	for (unsigned i = 0; i < 64; i++)
		if (i >= worker->number)
			hooked->release(kept[i]);
		else
			hooked->held[worker->number][i] = kept[i];
	atomic_fetch_sub(worker->running, 1);
	return NULL;
}

static double run(struct hooked *hooked)
{
	struct worker workers[THREADS];
	pthread_t threads[THREADS];
	atomic_int running = THREADS;
	double bytes = 0;

	for (unsigned i = 0; i < THREADS; i++) {
		workers[i] = (struct worker){.hooked = hooked, .number = i, .running = &running};
		assert_int_equal(pthread_create(&threads[i], NULL, work, &workers[i]), 0);
	}
	while (running) {
		cprof_heap_drain(hooked->sim.heap);
		sched_yield();
	}
	for (unsigned i = 0; i < THREADS; i++) {
		pthread_join(threads[i], NULL);
		bytes += workers[i].bytes;
	}
	cprof_heap_drain(hooked->sim.heap);
	return bytes;
}

static void test_exact(void **state)
{
	struct cprof_heap_stats stats;
	struct hooked hooked;
	double bytes;

	(void)state;
	create(&hooked, 1);
	bytes = run(&hooked);
	stats = stats_of(&hooked.sim);
	print_message("exact: %.1f frames each, %.1f ms unwinding, %llu waits\n",
		      (double)stats.frames / (double)stats.samples, (double)stats.unwind_ns / 1e6,
		      (unsigned long long)hooked.plant.shared->waits);
	assert_int_equal(stats.lost, hooked.plant.shared->dropped);
	assert_int_equal(stats.malformed, 0);
	assert_int_equal(stats.missed, 0);
	if (!stats.lost && !hooked.plant.shared->dropped_frees) { /* or else the machine is busy */
		assert_int_equal(stats.samples, THREADS * (ROUNDS + ROUNDS / 10));
		assert_true(stats.alloc_bytes == bytes);
		assert_int_equal(stats.live_samples, 0 + 1 + 2);
	}
	assert_true(stats.ends[CPROF_END_COMPLETE] > stats.samples * 99 / 100);
	destroy(&hooked);
}

static void test_sampled(void **state)
{
	const uint64_t rate = 65536; /* so few samples that they fit into the ring at once */
	struct cprof_heap_stats stats;
	struct hooked hooked;
	double bytes;
	double error;

	(void)state;
	create(&hooked, rate);
	bytes = run(&hooked);
	stats = stats_of(&hooked.sim);
	error = sqrt((double)stats.samples) * (double)rate;
	assert_int_equal(stats.malformed, 0);
	assert_int_equal(stats.lost, 0);
	assert_int_equal(stats.missed, 0);
	assert_true(fabs(stats.alloc_bytes - bytes) < 6 * error);
	assert_true(stats.live_samples <= 3);
	assert_true(stats.ends[CPROF_END_COMPLETE] > stats.samples * 99 / 100);
	destroy(&hooked);
}

/* --- stacks that are not copied again ------------------------------------------------------ */

/* Two callers whose frames lie in the same place: below them pc, sp and depth are the same. */
static __attribute__((noinline)) void *left(struct hooked *hooked, size_t size)
{
	void *volatile block = deep(hooked, 3, size);

	return block;
}

static __attribute__((noinline)) void *right(struct hooked *hooked, size_t size)
{
	void *volatile block = deep(hooked, 3, size);

	return block;
}

/* The number of stacks that were copied. */
static __attribute__((noinline)) uint64_t both_sides(struct hooked *hooked)
{
	uint64_t before = hooked->plant.shared->next_id;

	for (unsigned i = 0; i < 8; i++) {
		hooked->release(i % 4 == 3 ? right(hooked, 7) : left(hooked, 3));
		cprof_heap_drain(hooked->sim.heap);
	}
	return hooked->plant.shared->next_id - before;
}

/* Allocations of stacks that have a frame in this function. */
static int64_t allocs_of(struct hooked *hooked, const void *function, size_t bytes)
{
	struct cprof_profile *profile = profile_of(&hooked->sim);
	int64_t sum = 0;

	for (size_t i = 0; i < profile->sample_count; i++) {
		const struct cprof_profile_span *span = &profile->stacks[profile->samples[i].stack];

		for (uint32_t f = 0; f < span->count; f++) {
			uint64_t address =
				profile->locations[profile->stack_items[span->first + f]].address;

			if (address - (uint64_t)function >= bytes)
				continue;
			sum += profile->values[4 * i];
			break;
		}
	}
	cprof_profile_destroy(profile);
	return sum;
}

struct seen {
	struct hooked *hooked;
	unsigned rounds;
};

/* Until the profiler has told where this stack is, and what it knows. */
static bool learnt(struct seen *seen)
{
	for (unsigned i = 0; i < 500; i++) {
		seen->rounds++;
		if (both_sides(seen->hooked) == 0)
			return true;
		usleep(10000);
	}
	return false;
}

static void *see(void *argument)
{
	struct seen *seen = argument;

	assert_true(learnt(seen));
	/* an address space that has changed: all is looked at again */
	cprof_agent_records_flush(&seen->hooked->sim.records);
	seen->rounds++;
	assert_true(both_sides(seen->hooked) >= 2);
	assert_true(learnt(seen));
	return NULL;
}

static void test_seen(void **state)
{
	struct cprof_heap_stats stats;
	struct hooked hooked;
	struct seen seen = {.hooked = &hooked};
	pthread_t thread;
	size_t size;

	(void)state;
	create(&hooked, 1);
	assert_int_equal(pthread_create(&thread, NULL, see, &seen), 0);
	pthread_join(thread, NULL);
	stats = stats_of(&hooked.sim);
	assert_int_equal(stats.samples, 8 * seen.rounds);
	assert_int_equal(stats.frees, 8 * seen.rounds);
	assert_int_equal(stats.ends[CPROF_END_COMPLETE], 8 * seen.rounds);
	assert_int_equal(stats.malformed, 0);
	assert_true(stats.alloc_bytes == seen.rounds * 2 * (3 * 3 + 7));
	size = (size_t)llabs((char *)right - (char *)left); /* they are alike, and neighbours */
	assert_int_equal(allocs_of(&hooked, (void *)left, size), 6 * seen.rounds);
	assert_int_equal(allocs_of(&hooked, (void *)right, size), 2 * seen.rounds);
	destroy(&hooked);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_exact),
		cmocka_unit_test(test_sampled),
		cmocka_unit_test(test_seen),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
