/* SPDX-License-Identifier: MIT
 *
 * Snapshots: a copy, named without holding up the collector.
 */
#include "private.h"

#include <cprof/util.h>

static void add_marker(struct cprof_profile *profile, const char *name, int64_t samples,
		       int64_t weight)
{
	uint32_t location = cprof_profile_marker(profile, name);
	int64_t values[2] = {samples, weight};

	cprof_profile_add(profile, cprof_profile_stack(profile, &location, 1), 0, values);
}

/* What was lost has a weight too; so has CPU time that the events counted but never sampled. */
uint64_t cprof_session_add_loss(const struct cprof_session *session,
				const struct cprof_session_loss *loss,
				struct cprof_profile *profile)
{
	uint64_t seen = (loss->samples + loss->lost) * loss->period;
	uint64_t unseen;

	if (session->config.threads)
		return 0; /* nobody knows whose it was */
	if (loss->lost)
		add_marker(profile, "[lost samples]", (int64_t)loss->lost,
			   (int64_t)(loss->lost * loss->period));
	if (session->config.no_kernel) /* what is in the kernel is counted, but not wanted */
		return 0;
	if (loss->counted <= seen + 2 * loss->period)
		return 0;
	unseen = loss->counted - seen;
	if (unseen <= loss->counted / 100)
		return 0;
	add_marker(profile, "[not sampled]", 0, (int64_t)unseen);
	return unseen;
}

static unsigned name_flags(const struct cprof_session *session)
{
	return (session->config.no_inlines ? CPROF_NAMES_NO_INLINES : 0u) |
	       (session->config.no_lines ? CPROF_NAMES_NO_LINES : 0u);
}

/* Without the lock: the collector goes on. */
static struct cprof_error *name_now(struct cprof_session *session, struct cprof_naming *naming,
				    struct cprof_builder *builder)
{
	uint64_t before = cprof_now_ns();
	bool kernel_unnamed;

	CPROF_TRY(cprof_naming_run(naming, name_flags(session), &kernel_unnamed));
	pthread_mutex_lock(&session->lock);
	cprof_naming_give_back(naming, builder);
	session->stats.symbolize_ns += cprof_now_ns() - before;
	session->stats.kernel_unnamed |= kernel_unnamed;
	pthread_mutex_unlock(&session->lock);
	return NULL;
}

struct cprof_error *cprof_session_name(struct cprof_session *session, enum cprof_kind kind,
				       struct cprof_naming *naming, bool unnamed)
{
	if (!unnamed)
		return name_now(session, naming, cprof_session_builder(session, kind));
	cprof_naming_leave(naming);
	if (session->live && cprof_naming_unnamed(naming)) {
		pthread_mutex_lock(&session->lock);
		cprof_session_live_want_names(session, kind);
		pthread_mutex_unlock(&session->lock);
	}
	return NULL;
}

struct cprof_builder *cprof_session_builder(struct cprof_session *session, enum cprof_kind kind)
{
	if (kind == CPROF_KIND_HEAP)
		return session->heap ? cprof_heap_builder(session->heap) : NULL;
	if (kind == CPROF_KIND_THREADCREATE)
		return session->births.builder;
	if (kind == CPROF_KIND_MUTEX)
		return session->contention ? cprof_contention_builder(session->contention) : NULL;
	return kind == CPROF_KIND_BLOCK ? session->block_builder : session->builder;
}

static struct cprof_error *perf_snapshot(struct cprof_session *session, bool unnamed,
					 struct cprof_profile **result)
{
	struct cprof_session_stats stats;
	struct cprof_naming *naming;
	struct cprof_error *error;

	pthread_mutex_lock(&session->lock);
	error = cprof_builder_copy(session->builder, &naming);
	cprof_session_tell(session, &stats);
	pthread_mutex_unlock(&session->lock);
	if (!error)
		error = cprof_session_name(session, CPROF_KIND_CPU, naming, unnamed);
	if (!error) {
		struct cprof_profile *profile = cprof_naming_profile(naming);

		const struct cprof_session_loss loss = {
			.samples = stats.cpu.samples,
			.lost = stats.cpu.lost,
			.counted = stats.perf.counted,
			.period = stats.perf.period,
		};
		uint64_t unseen;

		profile->duration_ns = (int64_t)stats.duration_ns;
		unseen = cprof_session_add_loss(session, &loss, profile);
		if (unseen) {
			pthread_mutex_lock(&session->lock);
			session->stats.unseen_ns = unseen;
			pthread_mutex_unlock(&session->lock);
		}
		error = cprof_profile_check(profile);
	}
	*result = error ? NULL : cprof_naming_take(naming);
	cprof_naming_destroy(naming);
	return error;
}

static struct cprof_error *births_snapshot(struct cprof_session *session, bool unnamed,
					   struct cprof_profile **result)
{
	struct cprof_session_stats stats;
	struct cprof_naming *naming;
	struct cprof_error *error;

	pthread_mutex_lock(&session->lock);
	error = cprof_builder_copy(session->births.builder, &naming);
	cprof_session_tell(session, &stats);
	pthread_mutex_unlock(&session->lock);
	if (!error)
		error = cprof_session_name(session, CPROF_KIND_THREADCREATE, naming, unnamed);
	if (!error)
		cprof_naming_profile(naming)->duration_ns = (int64_t)stats.duration_ns;
	*result = error ? NULL : cprof_naming_take(naming);
	cprof_naming_destroy(naming);
	return error;
}

/* What is waited for is told by names: the samples come after the naming. */
static struct cprof_error *block_snapshot(struct cprof_session *session, uint64_t window_ns,
					  bool unnamed, struct cprof_profile **result)
{
	struct cprof_block_rows *rows = NULL;
	struct cprof_naming *naming = NULL;
	struct cprof_error *error;
	uint64_t begun, until;

	pthread_mutex_lock(&session->lock);
	begun = session->block_begun_ns;
	until = CPROF_MAX(session->block_until_ns, begun);
	error = cprof_block_rows(session->block, until, &rows);
	if (!error && !cprof_session_live_since(session, window_ns, rows, NULL, until, &begun))
		error = cprof_error_nomem();
	if (!error)
		error = cprof_builder_copy(session->block_builder, &naming);
	pthread_mutex_unlock(&session->lock);
	if (!error)
		error = cprof_session_name(session, CPROF_KIND_BLOCK, naming, unnamed);
	if (!error) {
		struct cprof_profile *profile = cprof_naming_profile(naming);

		profile->duration_ns = (int64_t)(until - begun);
		error = cprof_block_fill(rows, session->config.no_kernel, profile);
	}
	*result = error ? NULL : cprof_naming_take(naming);
	cprof_naming_destroy(naming);
	cprof_block_rows_destroy(rows);
	return error;
}

/* Who waits is told by names: the samples come after the naming. */
static struct cprof_error *mutex_snapshot(struct cprof_session *session, uint64_t window_ns,
					  bool unnamed, struct cprof_profile **result)
{
	const enum cprof_contention_side side =
		session->config.mutex_waiters ? CPROF_CONTENTION_WAITER : CPROF_CONTENTION_HOLDER;
	struct cprof_contention_rows *rows = NULL;
	struct cprof_naming *naming = NULL;
	struct cprof_error *error = NULL;
	uint64_t begun, until;

	pthread_mutex_lock(&session->lock);
	begun = session->agent_started_ns;
	until = session->stats.agent_ns ? begun + session->stats.agent_ns : cprof_now_ns();
	if (!session->contention)
		error = cprof_error_create(CPROF_FAILED, NULL, "mutex: nothing has been planted");
	if (!error)
		error = cprof_contention_rows(session->contention, until, &rows);
	if (!error && !cprof_session_live_since(session, window_ns, NULL, rows, until, &begun))
		error = cprof_error_nomem();
	if (!error)
		error = cprof_builder_copy(cprof_contention_builder(session->contention), &naming);
	pthread_mutex_unlock(&session->lock);
	if (!error)
		error = cprof_session_name(session, CPROF_KIND_MUTEX, naming, unnamed);
	if (!error) {
		struct cprof_profile *profile = cprof_naming_profile(naming);

		profile->time_ns = (int64_t)cprof_wall_ns();
		profile->duration_ns = (int64_t)(until - begun);
		error = cprof_contention_fill(rows, side, profile);
	}
	*result = error ? NULL : cprof_naming_take(naming);
	cprof_naming_destroy(naming);
	cprof_contention_rows_destroy(rows);
	return error;
}

static struct cprof_error *heap_snapshot(struct cprof_session *session, bool unnamed,
					 struct cprof_profile **result)
{
	struct cprof_naming *naming = NULL;
	struct cprof_error *error = NULL;

	*result = NULL;
	pthread_mutex_lock(&session->lock);
	if (session->heap)
		error = cprof_heap_copy(session->heap, session->stats.rss, &naming);
	pthread_mutex_unlock(&session->lock);
	if (!naming && !error)
		error = cprof_error_create(CPROF_FAILED, NULL, "heap: nothing has been planted");
	if (!error)
		error = cprof_session_name(session, CPROF_KIND_HEAP, naming, unnamed);
	if (!error)
		*result = cprof_naming_take(naming);
	cprof_naming_destroy(naming);
	return error;
}

/* --- dumps --------------------------------------------------------------------------------- */

static void count_dump(struct cprof_session *session, const struct cprof_dump *dump)
{
	struct cprof_session_stats *stats = &session->stats;

	pthread_mutex_lock(&session->lock);
	cprof_session_count_dump(dump, &stats->dump);
	stats->threads = CPROF_MAX(stats->threads, dump->count);
	stats->dump_stops += dump->stops;
	stats->dump_stopped_ns = CPROF_MAX(stats->dump_stopped_ns, dump->stopped_ns);
	pthread_mutex_unlock(&session->lock);
}

void cprof_session_count_dump(const struct cprof_dump *dump, struct cprof_session_counts *counts)
{
	*counts = (struct cprof_session_counts){0};
	for (size_t i = 0; i < dump->count; i++) {
		const struct cprof_dump_thread *thread = &dump->threads[i];

		if (!thread->held)
			continue;
		counts->samples++;
		counts->ends[thread->end]++;
		for (size_t j = 0; j < thread->frame_count; j++)
			counts->frames += !thread->frames[j].inlined;
	}
}

struct cprof_error *cprof_session_dump(struct cprof_session *session, struct cprof_dump **dump)
{
	return cprof_session_dump_of(session, session->config.threads, dump);
}

struct cprof_error *cprof_session_dump_of(struct cprof_session *session, const char *const *threads,
					  struct cprof_dump **dump)
{
	const struct cprof_session_config *config = &session->config;
	const struct cprof_dump_options how = {
		.threads = threads,
		.debug_dir = config->debug_dir,
		.no_inlines = config->no_inlines,
		.no_lines = config->no_lines,
	};
	struct cprof_error *error;

	pthread_mutex_lock(&session->tracing);
	error = cprof_dump_take(session->dump_target, &how, dump);
	pthread_mutex_unlock(&session->tracing);
	if (!error)
		count_dump(session, *dump);
	return error;
}

static struct cprof_error *dump_snapshot(struct cprof_session *session,
					 struct cprof_profile **profile)
{
	struct cprof_dump *dump;
	struct cprof_error *error;

	CPROF_TRY(cprof_session_dump(session, &dump));
	error = cprof_dump_profile(dump, profile);
	cprof_dump_destroy(dump);
	return error;
}

struct cprof_error *cprof_session_snapshot(struct cprof_session *session, enum cprof_kind kind,
					   uint64_t window_ns, bool unnamed,
					   struct cprof_profile **profile)
{
	if (kind == CPROF_KIND_THREADS)
		return dump_snapshot(session, profile);
	if (kind == CPROF_KIND_HEAP)
		return heap_snapshot(session, unnamed, profile);
	if (kind == CPROF_KIND_MUTEX)
		return mutex_snapshot(session, window_ns, unnamed, profile);
	if (kind == CPROF_KIND_BLOCK)
		return block_snapshot(session, window_ns, unnamed, profile);
	if (kind == CPROF_KIND_THREADCREATE)
		return births_snapshot(session, unnamed, profile);
	return perf_snapshot(session, unnamed, profile);
}
