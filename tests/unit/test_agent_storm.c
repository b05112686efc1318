/* SPDX-License-Identifier: MIT
 *
 * Programs of several threads on the real allocator, accounted exactly and by samples; signal
 * handlers that allocate, and leave by longjmp.
 */
#include "agent_plant.h"
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/time.h>

#include <cmocka.h>

#define THREADS 8
#define STEPS   20000
#define HELD    64 /* blocks of a thread */

/* Allocations that must fail are part of the programs. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
	return "allocator_may_return_null=1";
}

static struct plant plant;

#define HOOK(function) plant_hook(&plant, 0, CPROF_AGENT_F_##function)

/* What a thread knows of its own doings. */
struct account {
	uint64_t seed;
	uint64_t allocs;
	uint64_t bytes;
	uint64_t live;
	uint64_t live_bytes;
	struct {
		void *address;
		uint64_t size;
	} held[HELD];
};

static uint64_t random_next(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

/* One of the ways to get a block; NULL when it was one that must fail. */
static void *obtain(uint64_t random, uint64_t size)
{
	void *block = NULL;

	switch (random % 8) {
	case 0:
		return ((void *(*)(size_t, size_t))HOOK(calloc))(1, size);
	case 1:
		return ((void *(*)(void *, size_t, size_t))HOOK(reallocarray))(NULL, 1, size);
	case 2:
		return ((int (*)(void **, size_t, size_t))HOOK(posix_memalign))(&block, 64, size)
			       ? NULL
			       : block;
	case 3:
		return ((void *(*)(size_t, size_t))HOOK(aligned_alloc))(64, size);
	case 4:
		return ((void *(*)(void *, size_t))HOOK(realloc))(NULL, size);
	case 5:
		PLANT_MUST(!((void *(*)(size_t, size_t))HOOK(calloc))(1ull << 33, 1ull << 33));
		PLANT_MUST(!((void *(*)(void *, size_t, size_t))HOOK(reallocarray))(
			NULL, 1ull << 33, 1ull << 33));
		PLANT_MUST(
			((int (*)(void **, size_t, size_t))HOOK(posix_memalign))(&block, 3, size));
		__attribute__((fallthrough));
	default:
		return ((void *(*)(size_t))HOOK(malloc))(size);
	}
}

static void step(struct account *account, uint64_t random)
{
	void *(*move)(void *, size_t) = HOOK(realloc);
	void (*release)(void *) = HOOK(free);
	uint64_t size = 64 * (random >> 40 & 31);
	unsigned i = random % HELD;
	void *old = account->held[i].address;
	void *block;

	if (!old) {
		block = obtain(random >> 8, size);
		PLANT_MUST(block || !size);
		account->held[i].address = block;
	} else if (random >> 8 & 1) {
		release(old);
		account->held[i].address = NULL;
		account->live--;
		account->live_bytes -= account->held[i].size;
		return;
	} else {
		size += 1;
		errno = 0;
		PLANT_MUST(!move(old, 1ull << 62) && errno == ENOMEM);
		block = move(old, size);
		PLANT_MUST(block);
		account->held[i].address = block;
		account->live--;
		account->live_bytes -= account->held[i].size;
	}
	if (!block)
		return;
	memset(block, (int)random, size);
	account->held[i].size = size;
	account->allocs++;
	account->bytes += size;
	account->live++;
	account->live_bytes += size;
}

static void *thread_body(void *argument)
{
	struct account *account = argument;

	for (int i = 0; i < STEPS; i++) {
		errno = 1234;
		step(account, random_next(&account->seed));
	}
	return NULL;
}

/* What the ring says: a set of live blocks, by address. */
#define MODEL (1u << 20)
struct model {
	uint64_t allocs;
	uint64_t bytes;
	uint64_t unknown; /* frees */
	struct {
		uint64_t address;
		uint64_t size;
		bool live;
	} blocks[MODEL];
};
static struct model model;

static unsigned model_find(uint64_t address)
{
	unsigned i = (unsigned)(address * CPROF_AGENT_HASH >> 44);

	while (model.blocks[i].address && model.blocks[i].address != address)
		i = (i + 1) % MODEL;
	model.blocks[i].address = address;
	return i;
}

static void model_apply(const struct cprof_agent_record *record)
{
	unsigned i = model_find(record->address);

	switch (record->type) {
	case CPROF_AGENT_RECORD_ALLOC:
		PLANT_MUST(!model.blocks[i].live && record->rate == 1);
		model.blocks[i].live = true;
		model.blocks[i].size = record->size;
		model.allocs++;
		model.bytes += record->size;
		break;
	case CPROF_AGENT_RECORD_FREE:
		model.unknown += !model.blocks[i].live;
		model.blocks[i].live = false;
		break;
	default:
		PLANT_MUST(record->type == CPROF_AGENT_RECORD_KEEP && !model.blocks[i].live);
		model.blocks[i].live = true;
		break;
	}
}

static volatile bool over;

static void *reader_body(void *unused)
{
	uint64_t position = 0;
	bool last;

	(void)unused;
	do {
		struct cprof_agent_record *record;

		last = over;
		while ((record = plant_next(&plant, &position))) {
			if (plant.shared->rate == 1)
				model_apply(record);
		}
		plant_beat(&plant);
		usleep(200);
	} while (!last);
	return NULL;
}

static struct account run_threads(struct account *accounts)
{
	struct account sum = {0};
	pthread_t threads[THREADS];
	pthread_t reader;

	over = false;
	assert_int_equal(pthread_create(&reader, NULL, reader_body, NULL), 0);
	for (unsigned i = 0; i < THREADS; i++) {
		accounts[i] = (struct account){.seed = i + 1};
		assert_int_equal(pthread_create(&threads[i], NULL, thread_body, &accounts[i]), 0);
	}
	for (unsigned i = 0; i < THREADS; i++) {
		pthread_join(threads[i], NULL);
		sum.allocs += accounts[i].allocs;
		sum.bytes += accounts[i].bytes;
		sum.live += accounts[i].live;
		sum.live_bytes += accounts[i].live_bytes;
	}
	over = true;
	pthread_join(reader, NULL);
	return sum;
}

static void release_all(struct account *accounts)
{
	void (*release)(void *) = HOOK(free);

	for (unsigned i = 0; i < THREADS * HELD; i++)
		release(accounts[i / HELD].held[i % HELD].address);
}

static void assert_nobody_inside(void)
{
	for (unsigned i = 0; i < CPROF_AGENT_SHARDS; i++) {
		assert_int_equal(plant.private_->shards[i].inside, 0);
		assert_int_equal(plant.private_->shards[i].owner, 0);
	}
}

static void test_exact(void **state)
{
	static struct account accounts[THREADS];
	struct account sum;
	uint64_t live = 0;
	uint64_t live_bytes = 0;

	(void)state;
	plant_create(&plant, 1, 3);
	plant.shared->stack_max = 64;
	sum = run_threads(accounts);
	for (unsigned i = 0; i < MODEL; i++) {
		live += model.blocks[i].live;
		live_bytes += model.blocks[i].live ? model.blocks[i].size : 0;
	}
	assert_int_equal(plant.shared->dropped + plant.shared->dropped_frees, 0);
	assert_int_equal(model.allocs, sum.allocs);
	assert_int_equal(model.bytes, sum.bytes);
	assert_int_equal(live, sum.live);
	assert_int_equal(live_bytes, sum.live_bytes);
	assert_int_equal(model.unknown, 0);
	assert_nobody_inside();
	release_all(accounts);
	plant_destroy(&plant);
}

static void test_sampled(void **state)
{
	static struct account accounts[THREADS];
	struct account sum;
	double expected;

	(void)state;
	plant_create(&plant, 4096, 3);
	plant.shared->stack_max = 64;
	sum = run_threads(accounts);
	expected = (double)(sum.bytes + sum.allocs) / 4096;
	print_message("%lu samples of about %.0f\n", plant.shared->allocs, expected);
	assert_true((double)plant.shared->allocs > 0.6 * expected);
	assert_true((double)plant.shared->allocs < 1.1 * expected);
	assert_int_equal(plant.shared->dropped + plant.shared->missed_frees, 0);
	assert_int_equal(plant_live_count(&plant), plant.shared->allocs - plant.shared->frees);
	release_all(accounts);
	assert_int_equal(plant.shared->allocs, plant.shared->frees);
	assert_int_equal(plant_live_count(&plant), 0);
	for (unsigned i = 0; i < CPROF_AGENT_FILTER; i++)
		assert_int_equal(plant.private_->filter[i], 0);
	assert_nobody_inside();
	plant_destroy(&plant);
}

/* --- signals ------------------------------------------------------------------------------- */

static volatile uint64_t bump = 0x10000;
static volatile sig_atomic_t signals;
static volatile bool leave;
static sigjmp_buf out;

static void *bump_malloc(size_t size)
{
	for (volatile size_t i = 0; i < 50; i++)
		;
	(void)size;
	return (void *)__atomic_add_fetch(&bump, 16, __ATOMIC_RELAXED);
}

static void bump_free(void *block)
{
	(void)block;
}

static void on_alarm(int number)
{
	void *(*allocate)(size_t) = HOOK(malloc);

	(void)number;
	for (int i = 0; i < 3; i++)
		((void (*)(void *))HOOK(free))(allocate(30));
	signals++;
	if (leave && signals % 2)
		siglongjmp(out, 1);
}

/* Handlers interrupt hooks anywhere, allocate there, and may not return. */
static void check_signals(uint64_t rate, bool leaving)
{
	struct itimerval timer = {{0, 500}, {0, 500}};
	static void *(*allocate)(size_t);
	static void (*release)(void *);
	static uint64_t position;
	struct cprof_agent_record *record;
	static uint64_t allocs;

	allocs = 0;
	plant_map(&plant, rate);
	plant.config->originals[0][CPROF_AGENT_F_malloc] = (uint64_t)bump_malloc;
	plant.config->originals[0][CPROF_AGENT_F_free] = (uint64_t)bump_free;
	plant.shared->forbidden = CPROF_AGENT_FORBID_YIELD;
	plant_start(&plant, 9);
	assert_int_equal(plant_call.error, 0);
	allocate = HOOK(malloc);
	release = HOOK(free);
	signals = 0;
	leave = leaving;
	signal(SIGALRM, on_alarm);
	sigsetjmp(out, 1);
	setitimer(ITIMER_REAL, &timer, NULL);
	while (signals < 600) {
		release(allocate(30));
		plant_beat(&plant);
		/* A record that was left stays BUSY: nothing is read here, room is made. */
		plant.shared->tail = plant.shared->head;
	}
	setitimer(ITIMER_REAL, &(struct itimerval){0}, NULL);
	signal(SIGALRM, SIG_DFL);
	/* All goes on as before. */
	position = plant.shared->head;
	plant.shared->tail = position;
	for (int i = 0; i < 1000; i++) {
		release(allocate(1 << 20));
		while ((record = plant_next(&plant, &position)))
			allocs += record->type == CPROF_AGENT_RECORD_ALLOC;
	}
	assert_int_equal(allocs, 1000);
	if (!leaving)
		assert_nobody_inside();
	assert_int_equal(plant.shared->missed_frees, 0);
	plant_destroy(&plant);
}

static void test_signals(void **state)
{
	(void)state;
	check_signals(1, false);
	check_signals(64, false);
	check_signals(1, true);
	check_signals(64, true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_exact),
		cmocka_unit_test(test_sampled),
		cmocka_unit_test(test_signals),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
