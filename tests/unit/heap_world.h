/* SPDX-License-Identifier: MIT
 *
 * A heap over a simulated agent, as the unit tests use it.
 */
#ifndef CPROF_TEST_HEAP_WORLD_H
#define CPROF_TEST_HEAP_WORLD_H

#include "agent_sim.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define RATE 4096

static inline int set_up_exact(void **state)
{
	struct sim *sim = malloc(sizeof(*sim));

	sim_init(sim, 1);
	sim_start(sim, NULL);
	*state = sim;
	return 0;
}

static inline int set_up_sampled(void **state)
{
	struct sim *sim = malloc(sizeof(*sim));

	sim_init(sim, RATE);
	sim_start(sim, NULL);
	*state = sim;
	return 0;
}

static inline int tear_down(void **state)
{
	sim_deinit(*state);
	free(*state);
	return 0;
}

static inline struct cprof_heap_stats stats_of(struct sim *sim)
{
	struct cprof_heap_stats stats;

	cprof_heap_stats(sim->heap, &stats);
	assert_int_equal(stats.samples - stats.frees - stats.voided, stats.live_samples);
	return stats;
}

static inline struct cprof_profile *profile_of(struct sim *sim)
{
	struct cprof_naming *naming = NULL;
	struct cprof_profile *profile;

	assert_null(cprof_heap_copy(sim->heap, 0, &naming));
	profile = cprof_naming_take(naming);
	cprof_naming_destroy(naming);
	assert_null(cprof_profile_check(profile));
	return profile;
}

/* The values of the sample whose stack begins at `pc` - 1, or of the marker `name`; zeros if there
 * is none. */
static inline void values_of(const struct cprof_profile *profile, uint64_t pc, const char *name,
			     int64_t values[4])
{
	memset(values, 0, 4 * sizeof(*values));
	for (size_t i = 0; i < profile->sample_count; i++) {
		const struct cprof_profile_span *span = &profile->stacks[profile->samples[i].stack];
		const struct cprof_profile_location *first =
			&profile->locations[profile->stack_items[span->first]];
		bool same = first->address == pc - 1;

		if (name)
			same = first->line_count &&
			       !strcmp(profile->strings
					       [profile->functions[profile->lines[first->first_line]
									   .function]
							.name],
				       name);
		for (unsigned v = 0; same && v < 4; v++)
			values[v] += profile->values[4 * i + v];
	}
}

static inline void expect_values(struct sim *sim, uint64_t pc, const char *name, int64_t objects,
				 int64_t bytes, int64_t live, int64_t live_bytes)
{
	struct cprof_profile *profile = profile_of(sim);
	int64_t values[4];

	values_of(profile, pc, name, values);
	assert_int_equal(values[0], objects);
	assert_int_equal(values[1], bytes);
	assert_int_equal(values[2], live);
	assert_int_equal(values[3], live_bytes);
	cprof_profile_destroy(profile);
}

static inline bool has_comment(const struct cprof_profile *profile, const char *part)
{
	for (size_t i = 0; i < profile->comment_count; i++)
		if (strstr(profile->strings[profile->comments[i]], part))
			return true;
	return false;
}

#define TEST(name)    cmocka_unit_test_setup_teardown(name, set_up_exact, tear_down)
#define SAMPLED(name) cmocka_unit_test_setup_teardown(name, set_up_sampled, tear_down)

#endif
