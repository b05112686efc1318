/* SPDX-License-Identifier: MIT
 *
 * Runs beside others.
 *
 * Contention accounted from records written by hand: who is charged with what, what is not known,
 * and records that make no sense.
 */
#include "agent_sim.h"

#include <cprof/locks.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define LOCK_A 0x10000ull
#define LOCK_B 0x10400ull
#define MS     1000000ull

struct world {
	struct sim sim;
	struct cprof_contention *contention;
	uint64_t began_ns;
};

static struct cprof_profile *profile;

static int start(void **state)
{
	struct world *world = calloc(1, sizeof(*world));

	sim_init(&world->sim, 1u << 20);
	world->sim.shared->lock_rates[0].every = 1;
	assert_null(cprof_contention_create(sim_records(&world->sim), &world->contention));
	world->began_ns = cprof_now_ns();
	*state = world;
	return 0;
}

static int stop(void **state)
{
	struct world *world = *state;

	cprof_profile_destroy(profile);
	profile = NULL;
	cprof_contention_destroy(world->contention);
	sim_deinit(&world->sim);
	free(world);
	return 0;
}

/* --- records ------------------------------------------------------------------------------- */

static void put(struct world *world, const void *bytes, uint32_t length)
{
	struct cprof_agent_shared *shared = world->sim.shared;
	uint64_t head = shared->lock_head;
	uint8_t *place = shared->lock_ring + head % CPROF_AGENT_LOCK_RING_SIZE;
	const uint32_t words[2] = {length, (uint32_t)head | CPROF_AGENT_STAMP_DONE};

	memcpy(place, bytes, length);
	memcpy(place, words, sizeof(words));
	shared->lock_head = head + length;
}

static void put_stack(struct world *world, uint16_t type, unsigned which, uint64_t id,
		      uint64_t lock, uint64_t size, uint64_t rate)
{
	struct {
		struct cprof_agent_record fixed;
		uint64_t words[256];
	} record = {.fixed = {0}};
	struct sim_stack stack;

	sim_stack(&world->sim, &stack, which, 2);
	record.fixed = stack.regs;
	record.fixed.type = type;
	record.fixed.tid = 100 + which;
	record.fixed.id = id;
	record.fixed.address = lock;
	record.fixed.size = size;
	record.fixed.rate = rate;
	record.fixed.stack_length = stack.length;
	memcpy(record.words, stack.words, stack.length);
	put(world, &record, (uint32_t)sizeof(record.fixed) + stack.length);
}

static void put_wait(struct world *world, unsigned which, uint64_t id, uint64_t lock,
		     uint64_t every)
{
	put_stack(world, CPROF_AGENT_RECORD_WAIT, which, id, lock, world->began_ns, every);
}

static void put_unlock(struct world *world, unsigned which, uint64_t id, uint64_t lock,
		       uint64_t delay)
{
	put_stack(world, CPROF_AGENT_RECORD_UNLOCK, which, id, lock, delay, 1);
}

static void put_got(struct world *world, uint64_t id, uint64_t lock, uint64_t delay, uint64_t tail,
		    uint64_t unlock)
{
	const struct cprof_agent_got got = {.type = CPROF_AGENT_RECORD_GOT,
					    .id = id,
					    .address = lock,
					    .delay_ns = delay,
					    .tail_ns = tail,
					    .unlock = unlock};

	put(world, &got, sizeof(got));
}

/* --- what comes of them -------------------------------------------------------------------- */

static struct cprof_contention_rows *earlier; /* what the next profile is since, NULL: all */

static void take_profile(struct world *world, enum cprof_contention_side side)
{
	struct cprof_contention_rows *rows;
	struct cprof_naming *naming;
	bool unnamed;

	cprof_contention_drain(world->contention);
	assert_null(cprof_contention_rows(world->contention, cprof_now_ns(), &rows));
	if (earlier)
		assert_true(cprof_contention_rows_subtract(rows, earlier));
	assert_null(cprof_builder_copy(cprof_contention_builder(world->contention), &naming));
	assert_null(cprof_naming_run(naming, 0, &unnamed));
	assert_null(cprof_contention_fill(rows, side, cprof_naming_profile(naming)));
	cprof_profile_destroy(profile);
	profile = cprof_naming_take(naming);
	cprof_naming_destroy(naming);
	cprof_contention_rows_destroy(rows);
}

static const char *lock_of(const struct cprof_profile_sample *sample)
{
	const struct cprof_profile_span span = profile->label_sets[sample->labels];

	return span.count ? profile->strings[profile->label_items[span.first].text] : "";
}

/* Values of the stack whose innermost call is `which`, or of a marker, for a lock. */
static void values_of(int which, const char *marker, uint64_t lock, int64_t values[2])
{
	uint64_t pc = SIM_TEXT + 0x1000 + 16 * (uint64_t)which - 1;
	char label[32];

	snprintf(label, sizeof(label), "0x%llx", (unsigned long long)lock);
	values[0] = values[1] = 0;
	for (size_t i = 0; i < profile->sample_count; i++) {
		const struct cprof_profile_sample *sample = &profile->samples[i];
		const struct cprof_profile_span span = profile->stacks[sample->stack];
		const struct cprof_profile_location *inner =
			&profile->locations[profile->stack_items[span.first]];
		const char *name =
			inner->line_count
				? profile->strings
					  [profile->functions[profile->lines[inner->first_line]
								      .function]
						   .name]
				: "";

		if (strcmp(lock_of(sample), lock ? label : "") != 0 ||
		    (marker ? strcmp(name, marker) != 0 : inner->address != pc))
			continue;
		values[0] += profile->values[2 * i];
		values[1] += profile->values[2 * i + 1];
	}
}

static void expect(int which, const char *marker, uint64_t lock, int64_t count, int64_t delay)
{
	int64_t values[2];

	values_of(which, marker, lock, values);
	assert_int_equal(values[0], count);
	assert_int_equal(values[1], delay);
}

static void both_sides_have_the_same_sums(void **state)
{
	struct world *world = *state;

	put_wait(world, 0, 1, LOCK_A, 1);
	put_wait(world, 1, 2, LOCK_A, 4);
	put_unlock(world, 2, 3, LOCK_A, 10 + 4 * 8);
	put_got(world, 1, LOCK_A, 12, 2, 3);
	put_unlock(world, 3, 4, LOCK_A, 4 * 5);
	put_got(world, 2, LOCK_A, 14, 1, 4);
	take_profile(world, CPROF_CONTENTION_HOLDER);
	expect(2, NULL, LOCK_A, 1, 10 + 4 * 8 + 2);
	expect(3, NULL, LOCK_A, 4, 4 * 5 + 4 * 1);
	take_profile(world, CPROF_CONTENTION_WAITER);
	expect(0, NULL, LOCK_A, 1, 12);
	expect(1, NULL, LOCK_A, 4, 4 * 14);
	assert_int_equal(profile->sample_count, 2);
}

static bool has_comment(const char *text)
{
	for (size_t i = 0; i < profile->comment_count; i++)
		if (strstr(profile->strings[profile->comments[i]], text))
			return true;
	return false;
}

/* What is shown of the last seconds is of these seconds only, comments included. */
static void a_window_has_its_own_sums(void **state)
{
	struct world *world = *state;

	put_wait(world, 0, 1, LOCK_A, 1);
	put_unlock(world, 2, 3, LOCK_A, 10);
	put_got(world, 1, LOCK_A, 12, 2, 3);
	put_wait(world, 0, 4, LOCK_B, 1);
	put_got(world, 4, LOCK_B, 50, 50, 0);
	cprof_contention_drain(world->contention);
	assert_null(cprof_contention_mark(world->contention, cprof_now_ns(), &earlier));
	put_wait(world, 1, 5, LOCK_A, 2);
	put_unlock(world, 2, 6, LOCK_A, 2 * 3);
	put_got(world, 5, LOCK_A, 4, 1, 6);
	take_profile(world, CPROF_CONTENTION_HOLDER);
	expect(2, NULL, LOCK_A, 2, 2 * 4);
	assert_true(has_comment("contentions 2, delay 8 ns, longest 8 ns"));
	assert_false(has_comment("delay 50 ns"));
	assert_false(has_comment("delay 20 ns"));
	cprof_contention_rows_destroy(earlier);
	earlier = NULL;
}

static void an_end_before_its_unlock(void **state)
{
	struct world *world = *state;

	put_wait(world, 0, 1, LOCK_A, 2);
	put_got(world, 1, LOCK_A, 12, 2, 9);
	take_profile(world, CPROF_CONTENTION_HOLDER);
	expect(0, "[holder unknown]", LOCK_A, 2, 4);
	put_unlock(world, 2, 9, LOCK_A, 20);
	take_profile(world, CPROF_CONTENTION_HOLDER);
	expect(2, NULL, LOCK_A, 2, 24);
	expect(0, "[holder unknown]", LOCK_A, 0, 0);
}

static void nobody_was_seen_to_unlock(void **state)
{
	struct world *world = *state;

	put_wait(world, 0, 1, LOCK_A, 1);
	put_got(world, 1, LOCK_A, 7, 7, 0);
	take_profile(world, CPROF_CONTENTION_HOLDER);
	expect(0, "[holder unknown]", LOCK_A, 1, 7);
}

static void locks_are_told_apart(void **state)
{
	struct world *world = *state;
	bool found = false;

	put_wait(world, 0, 1, LOCK_A, 1);
	put_wait(world, 0, 2, LOCK_B, 1);
	put_unlock(world, 1, 3, LOCK_A, 5);
	put_unlock(world, 1, 4, LOCK_B, 50);
	put_got(world, 1, LOCK_A, 5, 0, 3);
	put_got(world, 2, LOCK_B, 50, 0, 4);
	take_profile(world, CPROF_CONTENTION_HOLDER);
	expect(1, NULL, LOCK_A, 1, 5);
	expect(1, NULL, LOCK_B, 1, 50);
	assert_int_equal(profile->comment_count, 2);
	found = strcmp(profile->strings[profile->comments[0]],
		       "lock \"0x10400\": contentions 1, delay 50 ns, longest 50 ns") == 0;
	assert_true(found);
}

/* It must not look as if nobody waited. */
static void whoever_still_waits_is_told(void **state)
{
	struct world *world = *state;
	struct cprof_agent_wait *wait =
		&world->sim.shared->lock_waits[(LOCK_A >> CPROF_AGENT_LOCK_SHIFT) %
					       CPROF_AGENT_LOCK_BUCKETS][3];
	int64_t values[2];

	*wait = (struct cprof_agent_wait){
		.lock = LOCK_A, .id = 1, .charged_ns = world->began_ns, .weight = 1};
	put_wait(world, 0, 1, LOCK_A, 1);
	usleep(20000);
	take_profile(world, CPROF_CONTENTION_HOLDER);
	values_of(0, "[still held]", LOCK_A, values);
	assert_int_equal(values[0], 1);
	assert_true(values[1] > (int64_t)(15 * MS));
	take_profile(world, CPROF_CONTENTION_WAITER);
	values_of(0, NULL, LOCK_A, values);
	assert_int_equal(values[0], 1);
	wait->lock = 0;
	put_got(world, 1, LOCK_A, 20 * MS, 20 * MS, 0);
	take_profile(world, CPROF_CONTENTION_HOLDER);
	expect(0, "[still held]", LOCK_A, 0, 0);
	expect(0, "[holder unknown]", LOCK_A, 1, 20 * MS);
}

static void what_was_lost_has_its_weight(void **state)
{
	struct world *world = *state;

	put_wait(world, 0, 1, LOCK_A, 3);
	put_got(world, 1, LOCK_A, 10, 10, 0);
	world->sim.shared->lock_dropped = 1;
	world->sim.shared->lock_full = 1;
	world->sim.shared->lock_full_weight = 64;
	take_profile(world, CPROF_CONTENTION_HOLDER);
	expect(0, "[lost samples]", 0, 3 + 64, 670);
}

/* One that starves says nothing of those that nobody came to read. */
static void what_was_dropped_is_like_what_is_over(void **state)
{
	struct world *world = *state;
	struct cprof_agent_wait *wait =
		&world->sim.shared->lock_waits[(LOCK_A >> CPROF_AGENT_LOCK_SHIFT) %
					       CPROF_AGENT_LOCK_BUCKETS][0];

	*wait = (struct cprof_agent_wait){
		.lock = LOCK_A, .id = 2, .charged_ns = world->began_ns, .weight = 1};
	put_wait(world, 0, 1, LOCK_A, 1);
	put_wait(world, 0, 2, LOCK_A, 1);
	put_got(world, 1, LOCK_A, 10, 10, 0);
	usleep(20000);
	world->sim.shared->lock_dropped = 1007;
	world->sim.shared->lock_dropped_unlocks = 7;
	world->sim.shared->lock_dropped_ns = 300;
	take_profile(world, CPROF_CONTENTION_WAITER);
	expect(0, "[lost samples]", 0, 1000, 10000);
	take_profile(world, CPROF_CONTENTION_HOLDER);
	expect(0, "[lost samples]", 0, 1000, 10300);
}

static void what_a_target_makes_up_is_bounded(void **state)
{
	struct world *world = *state;

	world->sim.shared->lock_dropped = UINT64_MAX / 2;
	world->sim.shared->lock_full = UINT64_MAX / 2;
	world->sim.shared->lock_full_weight = UINT64_MAX;
	take_profile(world, CPROF_CONTENTION_HOLDER);
	expect(0, "[lost samples]", 0, 1000000000000000000, 0);
}

static void nonsense_is_counted(void **state)
{
	struct world *world = *state;
	struct cprof_contention_stats stats;
	uint64_t later = 3600 * 1000 * MS;

	put_wait(world, 0, 1, LOCK_A, 0);
	put_wait(world, 0, 2, LOCK_A, CPROF_AGENT_LOCK_EVERY + 1);
	put_wait(world, 0, 3, 1ull << 50, 1);
	put_wait(world, 0, 4, LOCK_A, 1);
	put_wait(world, 0, 4, LOCK_A, 1); /* twice */
	put_got(world, 4, LOCK_A, later, later, 0);
	put_got(world, 4, LOCK_A, 5, 6, 0);  /* a tail longer than the whole */
	put_got(world, 99, LOCK_A, 5, 5, 0); /* unknown: fine */
	cprof_contention_drain(world->contention);
	cprof_contention_stats(world->contention, &stats);
	assert_int_equal(stats.malformed, 6);
	assert_int_equal(stats.timed, 1);
}

/* Neighbourhoods are timed as often as is cheap. */
static void rates_follow_the_waits(void **state)
{
	struct world *world = *state;
	struct cprof_agent_lock_rate *rates = world->sim.shared->lock_rates;

	rates[1].every = 64; /* quiet by now */
	rates[2].every = 64;
	for (int i = 0; i < 10; i++) {
		rates[2].timed = 40;
		usleep(45000);
		cprof_contention_drain(world->contention);
	}
	assert_int_equal(rates[1].every, 1);
	assert_int_equal(rates[2].every, 64);
	assert_int_equal(rates[3].every, 0); /* never on */
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, start, stop)
	const struct CMUnitTest tests[] = {
		TEST(both_sides_have_the_same_sums),
		TEST(a_window_has_its_own_sums),
		TEST(an_end_before_its_unlock),
		TEST(nobody_was_seen_to_unlock),
		TEST(locks_are_told_apart),
		TEST(whoever_still_waits_is_told),
		TEST(what_was_lost_has_its_weight),
		TEST(what_was_dropped_is_like_what_is_over),
		TEST(what_a_target_makes_up_is_bounded),
		TEST(nonsense_is_counted),
		TEST(rates_follow_the_waits),
	};

	return cmocka_run_group_tests_name("contention", tests, NULL, NULL);
}
