/* SPDX-License-Identifier: MIT
 *
 * The last seconds of a live session, and what keeps a session that runs for days small.
 */
#include "live.h"

#include <cprof/util.h>
#include <malloc.h>
#include <string.h>

/* What a profile since the start may grow to before small stacks of long ago become one. */
#define SAMPLES_MOST   (48u << 10)
#define STACKS_MOST    (64u << 10)
#define LABELS_MOST    (16u << 10)
#define LOCATIONS_MOST (256u << 10)
#define FOLDED         "[older stacks]"

/* --- taking in: under the lock ------------------------------------------------------------- */

void cprof_session_live_sample(struct cprof_session *session,
			       const struct cprof_perf_record *record,
			       struct cprof_session_thread *thread, uint32_t stack, uint32_t labels)
{
	struct cprof_session_live *live = session->live;

	cprof_window_begin(&live->cpu, record->time, session->stats.cpu.lost,
			   session->stats.perf.counted);
	cprof_window_add(&live->cpu, stack, labels, 1, record->sample.period);
	thread->last_stack = stack;
}

/* --- forgetting: the collector, without the lock ------------------------------------------- */

/* A sample since the start, to be kept as it is, without its thread, or not by itself. */
struct old {
	struct cprof_profile_sample sample;
	int64_t values[2];
	bool recent;
};

static int compare_old(const void *a, const void *b)
{
	const struct old *x = a;
	const struct old *y = b;

	if (x->sample.stack != y->sample.stack)
		return x->sample.stack < y->sample.stack ? -1 : 1;
	return (x->sample.labels > y->sample.labels) - (x->sample.labels < y->sample.labels);
}

static int compare_values(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a;
	int64_t y = *(const int64_t *)b;

	return (x < y) - (x > y);
}

/* Label sets of threads that are still known. */
static bool *living_labels(const struct cprof_session *session, const struct cprof_profile *profile)
{
	bool *living = calloc(profile->label_set_count, sizeof(*living));

	for (const struct cprof_session_thread *thread = session->threads; thread && living;
	     thread = thread->hh.next)
		if (!thread->ended && thread->labels < profile->label_set_count)
			living[thread->labels] = true;
	return living;
}

/* All samples, those of threads that have ended without their labels; equal ones added up. */
static struct old *list_old(const struct cprof_session *session,
			    const struct cprof_profile *profile, size_t *count)
{
	CPROF_AUTO_FREE bool *living = living_labels(session, profile);
	struct old *list = calloc(profile->sample_count + 1, sizeof(*list));
	size_t kept = 0;

	if (!list || !living) {
		free(list);
		return NULL;
	}
	for (size_t i = 0; i < profile->sample_count; i++) {
		list[i].sample = profile->samples[i];
		memcpy(list[i].values, profile->values + 2 * i, sizeof(list[i].values));
		if (!living[list[i].sample.labels])
			list[i].sample.labels = 0;
	}
	qsort(list, profile->sample_count, sizeof(*list), compare_old);
	for (size_t i = 0; i < profile->sample_count; i++) {
		if (kept && compare_old(&list[kept - 1], &list[i]) == 0) {
			list[kept - 1].values[0] += list[i].values[0];
			list[kept - 1].values[1] += list[i].values[1];
		} else {
			list[kept++] = list[i];
		}
	}
	*count = kept;
	return list;
}

/* The weight below which samples are given up, so that `most` are left. */
static int64_t least_weight(const struct old *list, size_t count, size_t most)
{
	CPROF_AUTO_FREE int64_t *weights = calloc(count + 1, sizeof(*weights));

	if (!weights || count <= most)
		return 0;
	for (size_t i = 0; i < count; i++)
		weights[i] = list[i].values[1];
	qsort(weights, count, sizeof(*weights), compare_values);
	return weights[most] + 1;
}

/* Stacks of the last minutes stay: they are held in memory anyway. */
static void mark_recent(const struct cprof_profile_sample *references, size_t reference_count,
			size_t stack_count, struct old *list, size_t count)
{
	CPROF_AUTO_FREE bool *recent = calloc(stack_count, sizeof(*recent));

	for (size_t i = 0; i < reference_count && recent; i++)
		recent[references[i].stack] = true;
	for (size_t i = 0; i < count && recent; i++)
		list[i].recent = recent[list[i].sample.stack];
}

/* What is left, and the one stack that what is not goes to. */
static size_t fold(struct cprof_session *session, struct old *list, size_t count, uint32_t marker,
		   struct cprof_profile_sample *samples, int64_t *values)
{
	int64_t least = least_weight(list, count, SAMPLES_MOST / 2);
	int64_t rest[2] = {0, 0};
	size_t kept = 0;

	for (size_t i = 0; i < count; i++) {
		if (list[i].sample.stack == marker ||
		    (list[i].values[1] < least && !list[i].recent)) {
			session->live->folded += list[i].sample.stack != marker;
			rest[0] += list[i].values[0];
			rest[1] += list[i].values[1];
			continue;
		}
		samples[kept] = list[i].sample;
		memcpy(values + 2 * kept, list[i].values, sizeof(list[i].values));
		kept++;
	}
	if (rest[0] || rest[1]) {
		samples[kept] = (struct cprof_profile_sample){.stack = marker};
		memcpy(values + 2 * kept, rest, sizeof(rest));
		kept++;
	}
	return kept;
}

/* The smaller profile; `references` become the window's samples in it. */
static struct cprof_error *shrink(struct cprof_session *session, uint32_t marker,
				  struct cprof_profile_sample *references,
				  struct cprof_profile **less)
{
	struct cprof_profile *profile = cprof_builder_profile(session->builder);
	struct cprof_window *window = &session->live->cpu;
	size_t count = 0;
	CPROF_AUTO_FREE struct old *list = list_old(session, profile, &count);
	CPROF_AUTO_FREE struct cprof_profile_sample *samples = calloc(count + 1, sizeof(*samples));
	CPROF_AUTO_FREE int64_t *values = calloc(2 * (count + 1), sizeof(*values));

	if (!list || !samples || !values || !references)
		return cprof_error_nomem();
	cprof_window_list(window, references);
	mark_recent(references, window->entry_count, profile->stack_count, list, count);
	count = fold(session, list, count, marker, samples, values);
	return cprof_builder_less(session->builder, samples, values, count, references,
				  window->entry_count, less);
}

/* Under the lock. */
static struct cprof_profile *replace(struct cprof_session *session,
				     const struct cprof_profile_sample *references,
				     struct cprof_profile *less)
{
	struct cprof_profile *old = cprof_builder_replace(session->builder, less);

	cprof_window_renumber(&session->live->cpu, references);
	session->key_thread = cprof_profile_string(less, "thread");
	session->key_tid = cprof_profile_string(less, "tid");
	for (struct cprof_session_thread *thread = session->threads; thread;
	     thread = thread->hh.next)
		thread->labels = thread->last_stack = 0;
	return old;
}

/* It takes a tenth of a second where there is much, which no picture shall wait for: threads,
 * window and, while it is held, the profile are changed by the collector alone, which we are. */
static struct cprof_error *compact(struct cprof_session *session)
{
	CPROF_AUTO_FREE struct cprof_profile_sample *references =
		calloc(session->live->cpu.entry_count + 1, sizeof(*references));
	struct cprof_profile *less = NULL;
	struct cprof_profile *old = NULL;
	struct cprof_error *error;
	uint32_t location;
	uint32_t marker;

	pthread_mutex_lock(&session->lock);
	location = cprof_profile_marker(cprof_builder_profile(session->builder), FOLDED);
	marker = cprof_profile_stack(cprof_builder_profile(session->builder), &location, 1);
	cprof_builder_hold(session->builder, true);
	pthread_mutex_unlock(&session->lock);
	error = shrink(session, marker, references, &less);
	pthread_mutex_lock(&session->lock);
	cprof_builder_hold(session->builder, false);
	if (!error)
		old = replace(session, references, less);
	pthread_mutex_unlock(&session->lock);
	cprof_profile_destroy(old);
	return error;
}

static bool too_large(const struct cprof_session_live *live, const struct cprof_profile *profile)
{
	return profile->sample_count > live->compact_at || profile->stack_count > live->stacks_at ||
	       profile->label_set_count > live->labels_at ||
	       profile->location_count > live->locations_at;
}

void cprof_live_bounds(struct cprof_session_live *live)
{
	live->compact_at = SAMPLES_MOST;
	live->stacks_at = STACKS_MOST;
	live->labels_at = LABELS_MOST;
	live->locations_at = LOCATIONS_MOST;
}

void cprof_session_live_drained(struct cprof_session *session)
{
	struct cprof_session_live *live = session->live;
	const struct cprof_profile *profile = cprof_builder_profile(session->builder);

	pthread_mutex_lock(&session->lock);
	cprof_window_begin(&live->cpu, cprof_now_ns() - CPROF_WINDOW_SLICE_NS / 4,
			   session->stats.cpu.lost, session->stats.perf.counted);
	pthread_mutex_unlock(&session->lock);
	if (!too_large(live, profile))
		return;
	cprof_error_destroy(compact(session)); /* without memory: later */
	live->compactions++;
	profile = cprof_builder_profile(session->builder);
	/* What the last minutes need may be more than that: not again at once. */
	live->compact_at = CPROF_MAX(profile->sample_count * 3 / 2, SAMPLES_MOST);
	live->stacks_at = CPROF_MAX(profile->stack_count * 3 / 2, STACKS_MOST);
	live->labels_at = CPROF_MAX(profile->label_set_count * 3 / 2, LABELS_MOST);
	live->locations_at = CPROF_MAX(profile->location_count * 3 / 2, LOCATIONS_MOST);
	/* Two profiles were there at once, and pieces of windows lie between them: what is free
	 * goes back, or memory grows for an hour by what happens not to fit. */
	malloc_trim(0);
}

/* --- telling ------------------------------------------------------------------------------- */

/* Under the lock. */
static struct cprof_error *pick(struct cprof_session *session, uint64_t since, uint64_t until,
				struct cprof_window_sum *sum, struct cprof_naming **naming)
{
	*naming = NULL;
	if (!cprof_window_sum(&session->live->cpu, since, until, sum))
		return cprof_error_nomem();
	return cprof_builder_pick(session->builder, sum->samples, sum->values, sum->count, naming);
}

static struct cprof_error *perf_window(struct cprof_session *session, enum cprof_kind kind,
				       uint64_t window_ns, bool unnamed,
				       struct cprof_profile **result)
{
	CPROF_CLEANUP(cprof_window_sum_deinit) struct cprof_window_sum sum;
	struct cprof_session_loss loss = {0};
	struct cprof_naming *naming;
	struct cprof_error *error;
	uint64_t until;

	pthread_mutex_lock(&session->lock);
	until = session->ended_ns ? session->ended_ns : cprof_now_ns();
	error = pick(session, until > window_ns ? until - window_ns : 0, UINT64_MAX, &sum, &naming);
	loss.lost = session->stats.cpu.lost - CPROF_MIN(sum.lost, session->stats.cpu.lost);
	loss.counted = session->stats.perf.counted;
	loss.counted -= CPROF_MIN(sum.counted, loss.counted);
	loss.period = session->stats.perf.period;
	pthread_mutex_unlock(&session->lock);
	if (!error)
		error = cprof_session_name(session, kind, naming, unnamed);
	if (!error) {
		struct cprof_profile *profile = cprof_naming_profile(naming);

		for (size_t i = 0; i < sum.count; i++)
			loss.samples += (uint64_t)sum.values[2 * i];
		if (sum.from_ns) {
			profile->duration_ns =
				(int64_t)(until -
					  CPROF_MIN(CPROF_MAX(sum.from_ns, session->started_ns),
						    until));
			profile->time_ns = (int64_t)cprof_wall_ns() - profile->duration_ns;
		}
		cprof_session_add_loss(session, &loss, profile);
		error = cprof_profile_check(profile);
	}
	*result = error ? NULL : cprof_naming_take(naming);
	cprof_naming_destroy(naming);
	return error;
}

struct cprof_error *cprof_live_recent(struct cprof_session *session, uint64_t *from_ns,
				      struct cprof_profile **result)
{
	CPROF_CLEANUP(cprof_window_sum_deinit) struct cprof_window_sum sum;
	const struct cprof_window *window = &session->live->cpu;
	struct cprof_naming *naming;
	struct cprof_error *error;
	uint64_t until;

	pthread_mutex_lock(&session->lock);
	until = cprof_window_present_ns(window);
	error = pick(session, *from_ns, until, &sum, &naming);
	pthread_mutex_unlock(&session->lock);
	if (!error)
		error = cprof_session_name(session, CPROF_KIND_CPU, naming, false);
	if (!error)
		*from_ns = until;
	*result = error ? NULL : cprof_naming_take(naming);
	cprof_naming_destroy(naming);
	return error;
}

struct cprof_error *cprof_live_window(struct cprof_source *source, const char *kind,
				      uint64_t window_ns, bool unnamed,
				      struct cprof_profile **profile)
{
	struct cprof_session *session = (struct cprof_session *)source;
	unsigned kinds = session->config.kinds;
	enum cprof_kind which = kind ? cprof_kind_find(kind) : (enum cprof_kind)(kinds & -kinds);

	*profile = NULL;
	if (!(which & kinds))
		return cprof_error_create(CPROF_USAGE, NULL, "%s: not a kind this session takes",
					  kind);
	if (window_ns && which & (CPROF_KIND_CPU | CPROF_KIND_CYCLES))
		return perf_window(session, which, window_ns, unnamed, profile);
	return cprof_session_snapshot(session, which, window_ns, unnamed, profile);
}
