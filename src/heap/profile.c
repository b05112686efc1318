/* SPDX-License-Identifier: MIT
 *
 * The accounts as a profile, laid out as Go's heap profile.
 */
#include "private.h"

#include <cprof/util.h>
#include <inttypes.h>
#include <math.h>

struct cprof_error *cprof_heap_describe(struct cprof_heap *heap)
{
	struct cprof_profile *profile = cprof_builder_profile(heap->builder);

	cprof_profile_add_type(profile, "alloc_objects", "count");
	cprof_profile_add_type(profile, "alloc_space", "bytes");
	cprof_profile_add_type(profile, "inuse_objects", "count");
	cprof_profile_add_type(profile, "inuse_space", "bytes");
	profile->period_type.type = cprof_profile_string(profile, "space");
	profile->period_type.unit = cprof_profile_string(profile, "bytes");
	cprof_builder_map_main(heap->builder);
	return cprof_profile_check(profile);
}

/* Whole numbers whose sums over stacks are unbiased: each stack rounds up from a fraction of its
 * own, always the same, so that equal values stay equal from one profile to the next. */
static int64_t rounded(double value, uint32_t stack)
{
	uint64_t mixed = cprof_hash_u64(cprof_hash_u64(stack + 1ull) + 0x632be59bd9b4e019ull);
	double whole = floor(value + (double)(mixed >> 11) * 0x1p-53);

	if (!(whole > 0))
		return 0;
	return whole < 0x1p63 ? (int64_t)whole : INT64_MAX;
}

static void add_values(struct cprof_profile *profile, uint32_t stack,
		       const struct cprof_heap_account *account)
{
	int64_t values[4] = {
		rounded(account->alloc_objects, stack), rounded(account->alloc_bytes, stack),
		rounded(account->live_objects, stack), rounded(account->live_bytes, stack)};

	/* The same sums, added up in another order. */
	values[2] = CPROF_MIN(values[2], values[0]);
	values[3] = CPROF_MIN(values[3], values[1]);
	if (values[0] || values[1] || values[2] || values[3])
		cprof_profile_add(profile, stack, 0, values);
}

/* What was lost is somewhere: its number is known; in sampled mode each counts as the others did on
 * average. Nothing is known of its end. */
static void add_lost(struct cprof_heap *heap, struct cprof_profile *profile, uint64_t lost)
{
	const struct cprof_heap_stats *stats = &heap->stats;
	double each = stats->samples ? (double)lost / (double)stats->samples : 0;
	struct cprof_heap_account account = {.alloc_objects = (double)lost,
					     .alloc_bytes = (double)heap->lost_bytes};
	uint32_t marker;

	if (!lost)
		return;
	if (!heap->exact) {
		account.alloc_objects = stats->alloc_objects * each;
		account.alloc_bytes = stats->alloc_bytes * each;
	}
	marker = cprof_profile_marker(profile, "[lost samples]");
	add_values(profile, cprof_profile_stack(profile, &marker, 1), &account);
}

static void add_comments(struct cprof_profile *profile, const struct cprof_heap_stats *stats,
			 uint64_t rss)
{
	char text[160];
	char of[48] = "";

	if (rss)
		snprintf(of, sizeof(of), " of %.1f MB RSS", (double)rss * 0x1p-20);
	snprintf(text, sizeof(text), "%.1f MB live since attach%s; the rest predates attach",
		 stats->live_bytes * 0x1p-20, of);
	cprof_profile_add_comment(profile, text);
	if (stats->lost) {
		snprintf(text, sizeof(text),
			 "%" PRIu64 " samples lost beside %" PRIu64
			 ": in alloc as [lost samples], not in inuse",
			 stats->lost, stats->samples);
		cprof_profile_add_comment(profile, text);
	}
	if (stats->gaps) {
		snprintf(text, sizeof(text),
			 "%" PRIu64 " gaps without sampling: what was live before is not in inuse",
			 stats->gaps);
		cprof_profile_add_comment(profile, text);
	}
}

/* In sampled mode what lives is added up anew each time, so that nothing is left of what has been
 * freed. */
static void sum_live(struct cprof_heap *heap)
{
	for (size_t i = 0; i < heap->account_count; i++)
		heap->accounts[i].live_objects = heap->accounts[i].live_bytes = 0;
	for (size_t i = 0; i < heap->samples.capacity; i++) {
		const struct cprof_heap_sample *sample = &heap->samples.slots[i];

		if (!sample->id)
			continue;
		heap->accounts[sample->stack].live_objects += sample->objects;
		heap->accounts[sample->stack].live_bytes += sample->bytes;
	}
}

struct cprof_error *cprof_heap_copy(struct cprof_heap *heap, uint64_t rss,
				    struct cprof_naming **naming)
{
	struct cprof_heap_stats stats;
	struct cprof_profile *profile;

	*naming = NULL;
	cprof_heap_scan(heap);
	stats = heap->stats;
	CPROF_TRY(cprof_builder_copy(heap->builder, naming));
	profile = cprof_naming_profile(*naming);
	stats.lost += heap->ring.lost;
	if (!heap->exact)
		sum_live(heap);
	for (size_t i = 0; i < heap->account_count; i++)
		add_values(profile, (uint32_t)i, &heap->accounts[i]);
	add_lost(heap, profile, stats.lost);
	add_comments(profile, &stats, rss);
	profile->period = (int64_t)CPROF_MAX(heap->stats.rate, 1ull);
	profile->time_ns = (int64_t)cprof_wall_ns();
	return NULL;
}
