/* SPDX-License-Identifier: MIT
 *
 * A session's life: attach, collect, stop, detach.
 */
#include "private.h"

#include <cprof/util.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define RATE_DEFAULT  99
#define FIRST_WAIT_MS 5 /* nobody knows yet how fast the agent's ring fills */
#define PERF_KINDS    (CPROF_KIND_CPU | CPROF_KIND_CYCLES)

/* --- kinds --------------------------------------------------------------------------------- */

static const char *const kind_names[] = {"cpu",   "cycles", "heap",        "threads",
					 "block", "mutex",  "threadcreate"};

const char *cprof_kind_name(enum cprof_kind kind)
{
	for (size_t i = 0; i < CPROF_COUNT(kind_names); i++)
		if (kind == 1u << i)
			return kind_names[i];
	return NULL;
}

enum cprof_kind cprof_kind_find(const char *name)
{
	for (size_t i = 0; i < CPROF_COUNT(kind_names); i++)
		if (!strcmp(name, kind_names[i]))
			return (enum cprof_kind)(1u << i);
	return (enum cprof_kind)0;
}

/* --- sampling ------------------------------------------------------------------------------ */

/* The order is that of time: events, then what is there already. */
struct cprof_error *cprof_session_start_perf(struct cprof_session *session)
{
	CPROF_TRY(cprof_perf_enable(session->perf));
	session->cpu_ns = cprof_target_cpu_ns(session->target);
	cprof_builder_profile(session->builder)->time_ns = (int64_t)cprof_wall_ns();
	return NULL;
}

struct cprof_error *cprof_session_start(struct cprof_session *session)
{
	session->started_ns = session->refreshed_ns = cprof_now_ns();
	if (session->perf) {
		CPROF_TRY(cprof_session_start_perf(session));
		session->started_ns = session->refreshed_ns = cprof_now_ns();
	}
	if (session->switches) {
		CPROF_TRY(cprof_perf_enable(session->switches));
		/* Of who awaits its exec, how soon that came is told too late to count from it. */
		if (session->awaiting_exec)
			cprof_perf_count_from(session->switches, cprof_now_ns());
	}
	if (session->births.perf)
		CPROF_TRY(cprof_session_births_start(session));
	/* After enabling: a mapping is either listed here or told by a record. */
	CPROF_TRY(cprof_space_refresh(session->space));
	CPROF_TRY(cprof_session_scan_threads(session));
	if (!session->awaiting_exec)
		session->main_unknown = !cprof_session_map_main(session);
	if (session->switches && !session->awaiting_exec)
		cprof_session_block_start(session);
	if (session->config.kinds & CPROF_SESSION_AGENT && !session->awaiting_exec)
		CPROF_TRY(cprof_session_agent_start(session));
	return cprof_session_collect(session);
}

void cprof_session_stop(struct cprof_session *session)
{
	if (!session->collecting)
		return;
	eventfd_write(session->stop_fd, 1);
	pthread_join(session->collector, NULL);
	session->collecting = false;
	session->stats.target_stopped = cprof_target_state(session->target) == 'T';
}

/* --- life ---------------------------------------------------------------------------------- */

struct cprof_error *cprof_session_source_snapshot(struct cprof_source *source, const char *kind,
						  struct cprof_profile **profile)
{
	struct cprof_session *session = (struct cprof_session *)source;
	unsigned kinds = session->config.kinds;
	enum cprof_kind which = kind ? cprof_kind_find(kind) : (enum cprof_kind)(kinds & -kinds);

	if (!(which & kinds))
		return cprof_error_create(CPROF_USAGE, NULL, "%s: not a kind this session takes",
					  kind);
	return cprof_session_snapshot(session, which, 0, false, profile);
}

bool cprof_session_source_live(struct cprof_source *source)
{
	struct cprof_session *session = (struct cprof_session *)source;
	bool live;

	pthread_mutex_lock(&session->lock);
	live = session->collecting && !session->ended_ns;
	pthread_mutex_unlock(&session->lock);
	return live;
}

void cprof_session_source_destroy(struct cprof_source *source)
{
	cprof_session_destroy((struct cprof_session *)source);
}

static const struct cprof_source_ops source_ops = {
	.snapshot = cprof_session_source_snapshot,
	.live = cprof_session_source_live,
	.destroy = cprof_session_source_destroy,
};

static struct cprof_error *create_profile(struct cprof_session *session)
{
	struct cprof_profile *profile;

	CPROF_TRY(cprof_builder_create(session->modules, session->space, &session->builder));
	profile = cprof_builder_profile(session->builder);
	cprof_perf_stats(session->perf, &session->stats.perf);
	cprof_profile_add_type(profile, "samples", "count");
	if (session->config.kinds & CPROF_KIND_CYCLES)
		cprof_profile_add_type(profile, "cycles", "count");
	else
		cprof_profile_add_type(profile, "cpu", "nanoseconds");
	profile->period_type = profile->types[1];
	profile->default_type = profile->types[1].type;
	profile->period = (int64_t)session->stats.perf.period;
	session->key_thread = cprof_profile_string(profile, "thread");
	session->key_tid = cprof_profile_string(profile, "tid");
	return cprof_profile_check(profile);
}

unsigned cprof_session_rate(const struct cprof_session *session)
{
	return session->config.rate ? session->config.rate : RATE_DEFAULT;
}

struct cprof_error *cprof_session_open_perf(struct cprof_session *session)
{
	const struct cprof_session_config *config = &session->config;
	const struct cprof_perf_config perf = {
		.way = config->way,
		.clock = config->kinds & CPROF_KIND_CYCLES ? CPROF_PERF_CYCLES
							   : CPROF_PERF_CPU_CLOCK,
		.rate = cprof_session_rate(session),
		.kernel = !config->no_kernel,
		.user_stack = true,
	};

	CPROF_TRY(cprof_perf_create(session->target, &perf, &session->perf));
	return create_profile(session);
}

static struct cprof_error *open_all(struct cprof_session *session)
{
	const struct cprof_session_config *config = &session->config;
	const struct cprof_modules_options options = {.debug_dir = config->debug_dir};
	const struct cprof_unwinder_ops *ops =
		config->unwinder ? config->unwinder : &cprof_unwinder_cfi;

	CPROF_TRY(cprof_target_create(config->pid, &session->target));
	CPROF_TRY(cprof_modules_create(&options, &session->modules));
	CPROF_TRY(cprof_space_create(session->target, session->modules, &session->space));
	CPROF_TRY(ops->create(session->space, &session->unwinder));
	session->stop_fd = eventfd(0, EFD_CLOEXEC);
	if (session->stop_fd < 0)
		return cprof_error_errno(CPROF_FAILED, errno, NULL, "eventfd");
	if (config->kinds & PERF_KINDS)
		CPROF_TRY(cprof_session_open_perf(session));
	if (config->kinds & CPROF_KIND_BLOCK)
		CPROF_TRY(cprof_session_block_open(session));
	if (config->kinds & CPROF_KIND_THREADCREATE)
		CPROF_TRY(cprof_session_births_open(session));
	if (config->live || config->kinds & (CPROF_KIND_THREADS | CPROF_KIND_BLOCK))
		CPROF_TRY(cprof_target_create(config->pid, &session->dump_target));
	return config->live ? cprof_session_live_open(session) : NULL;
}

struct cprof_error *cprof_session_create(const struct cprof_session_config *config,
					 struct cprof_session **result)
{
	struct cprof_session *session = calloc(1, sizeof(*session));
	struct cprof_error *error;

	if (!session)
		return cprof_error_nomem();
	session->source.ops = config->live ? &cprof_session_live_ops : &source_ops;
	session->config = *config;
	if (!config->kinds)
		session->config.kinds = CPROF_KIND_CPU;
	session->awaiting_exec = config->await_exec;
	session->stop_fd = -1;
	session->agent_wait_ms = FIRST_WAIT_MS;
	pthread_mutex_init(&session->lock, NULL);
	pthread_mutex_init(&session->tracing, NULL);
	error = open_all(session);
	if (error) {
		cprof_session_destroy(session);
		return error;
	}
	*result = session;
	return NULL;
}

void cprof_session_destroy(struct cprof_session *session)
{
	struct cprof_session_thread *thread;
	struct cprof_session_thread *next;

	if (!session)
		return;
	cprof_session_stop(session);
	cprof_session_live_destroy(session);
	cprof_heap_destroy(session->heap);
	cprof_contention_destroy(session->contention);
	if (session->records)
		cprof_agent_bounds_destroy(session->records->bounds);
	free(session->records);
	cprof_agent_destroy(session->agent);
	cprof_perf_destroy(session->perf);
	cprof_perf_destroy(session->switches);
	cprof_block_destroy(session->block);
	cprof_session_births_close(session);
	cprof_builder_destroy(session->builder);
	cprof_builder_destroy(session->block_builder);
	if (session->unwinder)
		session->unwinder->ops->destroy(session->unwinder);
	cprof_space_destroy(session->space);
	cprof_modules_destroy(session->modules);
	cprof_target_destroy(session->target);
	cprof_target_destroy(session->dump_target);
	HASH_ITER(hh, session->threads, thread, next)
	{
		HASH_DEL(session->threads, thread);
		free(thread);
	}
	if (session->stop_fd >= 0)
		close(session->stop_fd);
	pthread_mutex_destroy(&session->lock);
	pthread_mutex_destroy(&session->tracing);
	free(session);
}

struct cprof_source *cprof_session_source(struct cprof_session *session)
{
	return &session->source;
}

const struct cprof_target *cprof_session_target(const struct cprof_session *session)
{
	return session->target;
}

int cprof_session_ended_fd(const struct cprof_session *session)
{
	return cprof_target_pidfd(session->target);
}

static void add_counts(struct cprof_session_counts *sum, const struct cprof_session_counts *more)
{
	sum->samples += more->samples;
	sum->lost += more->lost;
	sum->frames += more->frames;
	for (int end = 0; end < CPROF_ENDS; end++)
		sum->ends[end] += more->ends[end];
}

void cprof_session_tell(struct cprof_session *session, struct cprof_session_stats *stats)
{
	*stats = session->stats;
	add_counts(&stats->all, &stats->cpu);
	add_counts(&stats->all, &stats->heap_counts);
	add_counts(&stats->all, &stats->block_counts);
	add_counts(&stats->all, &stats->births_counts);
	add_counts(&stats->all, &stats->mutex_counts);
	add_counts(&stats->all, &stats->dump);
	stats->unwind_ns += stats->heap.unwind_ns + stats->contention.unwind_ns;
	stats->target_ended = session->ended;
	if (session->started_ns)
		stats->duration_ns = (session->ended_ns ? session->ended_ns : cprof_now_ns()) -
				     session->started_ns;
}

void cprof_session_stats(struct cprof_session *session, struct cprof_session_stats *stats)
{
	pthread_mutex_lock(&session->lock);
	cprof_session_tell(session, stats);
	session->stats.heap.peak_bytes = session->stats.heap.live_bytes;
	pthread_mutex_unlock(&session->lock);
}
