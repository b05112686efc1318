/* SPDX-License-Identifier: MIT
 *
 * Which kinds a live session takes, and starting one while the others go on.
 */
#include "live.h"

#include <cprof/util.h>
#include <string.h>

#define PERF_KINDS (CPROF_KIND_CPU | CPROF_KIND_CYCLES)

/* --- what there is to say ------------------------------------------------------------------ */

struct coverage {
	size_t covered;
	size_t bypassing;
	char first[160];
};

static void count_module(void *context, const struct cprof_agent_module *module)
{
	struct coverage *coverage = context;
	const char *slash = strrchr(module->path, '/');

	coverage->covered += module->cover == CPROF_AGENT_COVER_HOOKED;
	if (module->cover != CPROF_AGENT_COVER_BYPASS)
		return;
	if (!coverage->bypassing++)
		snprintf(coverage->first, sizeof(coverage->first), "%.60s %.90s",
			 slash ? slash + 1 : module->path,
			 module->reason ? module->reason : "is not covered");
}

static void tell_coverage(struct cprof_session *session, struct cprof_source_kind *result)
{
	struct coverage coverage = {0};

	cprof_session_agent_modules(session, count_module, &coverage);
	if (coverage.bypassing > 1)
		snprintf(result->detail, sizeof(result->detail),
			 "%zu modules covered; %zu bypass the hooks: %s, ...", coverage.covered,
			 coverage.bypassing, coverage.first);
	else if (coverage.bypassing)
		snprintf(result->detail, sizeof(result->detail), "%zu modules covered; %s",
			 coverage.covered, coverage.first);
	else
		snprintf(result->detail, sizeof(result->detail), "%zu modules covered",
			 coverage.covered);
}

static void tell_off(const struct cprof_session_live *live, enum cprof_kind kind,
		     struct cprof_source_kind *result)
{
	const char *problem = live->problem[cprof_kind_index(kind)];
	const char *what = "starts sampling";

	if (kind == CPROF_KIND_HEAP)
		what = "maps a small agent into the process and leads its calls of malloc and free "
		       "through it; one thread is held for less than a millisecond; leaving takes "
		       "it out again";
	else if (kind == CPROF_KIND_MUTEX)
		what = "maps a small agent into the process and leads its calls of the C library's "
		       "locks through it; one thread is held for less than a millisecond; leaving "
		       "takes it out again";
	else if (kind == CPROF_KIND_BLOCK)
		what = "records where threads wait; all threads are stopped once, for some "
		       "milliseconds; nothing is put into the process";
	else if (kind == CPROF_KIND_THREADCREATE)
		what = "records who creates threads; nothing is put into the process";
	if (problem[0])
		snprintf(result->detail, sizeof(result->detail), "could not be started: %.190s",
			 problem);
	else
		snprintf(result->detail, sizeof(result->detail), "%s", what);
}

static void tell_ended(enum cprof_source_state *state, char *detail, size_t size, const char *why)
{
	*state = CPROF_SOURCE_ENDED;
	snprintf(detail, size, "%s", why);
}

static void tell_kind(struct cprof_session *session, enum cprof_kind kind, bool ended,
		      const struct cprof_session_stats *stats, struct cprof_source_kind *result)
{
	unsigned kinds = session->config.kinds;

	if (!(kinds & kind) && kind != CPROF_KIND_THREADS) {
		if (ended || (kind & PERF_KINDS && kinds & PERF_KINDS)) {
			snprintf(result->detail, sizeof(result->detail), "%s",
				 ended ? "the process has ended" : "another clock is sampled");
			return;
		}
		if (kind == CPROF_KIND_THREADCREATE) {
			snprintf(result->detail, sizeof(result->detail),
				 "it is taken from the start or not at all");
			return;
		}
		result->state = CPROF_SOURCE_OFF;
		tell_off(session->live, kind, result);
		return;
	}
	result->state = CPROF_SOURCE_ON;
	if (kind & CPROF_SESSION_AGENT) {
		if (stats->agent_ended || ended)
			tell_ended(&result->state, result->detail, sizeof(result->detail),
				   stats->agent_problem);
		else
			tell_coverage(session, result);
	} else if (ended) {
		result->state =
			kind == CPROF_KIND_THREADS ? CPROF_SOURCE_ABSENT : CPROF_SOURCE_ENDED;
		snprintf(result->detail, sizeof(result->detail), "the process has ended");
	} else if (kind == CPROF_KIND_BLOCK) {
		snprintf(result->detail, sizeof(result->detail), "%s", stats->block_problem);
	} else if (kind & PERF_KINDS && !stats->perf.kernel && !session->config.no_kernel) {
		snprintf(result->detail, sizeof(result->detail),
			 "without kernel time: kernel.perf_event_paranoid does not permit it");
	}
}

void cprof_live_kind(struct cprof_source *source, const char *kind,
		     struct cprof_source_kind *result)
{
	struct cprof_session *session = (struct cprof_session *)source;
	enum cprof_kind which = cprof_kind_find(kind);
	struct cprof_session_stats stats;
	bool ended;

	*result = (struct cprof_source_kind){.state = CPROF_SOURCE_ABSENT};
	if (!which) {
		snprintf(result->detail, sizeof(result->detail), "not a kind there is here");
		return;
	}
	pthread_mutex_lock(&session->lock);
	cprof_session_tell(session, &stats);
	ended = session->ended_ns;
	pthread_mutex_unlock(&session->lock);
	tell_kind(session, which, ended, &stats, result);
}

/* --- starting: the collector is away ------------------------------------------------------- */

static struct cprof_error *begin_perf(struct cprof_session *session)
{
	struct cprof_error *error;

	pthread_mutex_lock(&session->lock);
	error = cprof_session_open_perf(session);
	if (!error)
		error = cprof_session_start_perf(session);
	if (!error)
		cprof_builder_map_main(session->builder);
	if (error) {
		cprof_perf_destroy(cprof_take(session->perf));
		cprof_builder_destroy(cprof_take(session->builder));
	}
	pthread_mutex_unlock(&session->lock);
	return error;
}

static struct cprof_error *begin_block(struct cprof_session *session)
{
	struct cprof_error *error;

	pthread_mutex_lock(&session->tracing);
	pthread_mutex_lock(&session->lock);
	error = cprof_session_block_open(session);
	if (!error)
		error = cprof_perf_enable(session->switches);
	if (!error) {
		cprof_builder_map_main(session->block_builder);
		cprof_session_block_start(session);
	} else {
		cprof_perf_destroy(cprof_take(session->switches));
		cprof_builder_destroy(cprof_take(session->block_builder));
		cprof_block_destroy(cprof_take(session->block));
	}
	pthread_mutex_unlock(&session->lock);
	pthread_mutex_unlock(&session->tracing);
	return error;
}

static struct cprof_error *begin_births(struct cprof_session *session)
{
	struct cprof_error *error;

	pthread_mutex_lock(&session->lock);
	error = cprof_session_births_open(session);
	if (!error)
		error = cprof_session_births_start(session);
	if (!error)
		cprof_builder_map_main(session->births.builder);
	else
		cprof_session_births_close(session);
	pthread_mutex_unlock(&session->lock);
	return error;
}

static struct cprof_error *begin_agent(struct cprof_session *session)
{
	struct cprof_error *error;

	pthread_mutex_lock(&session->tracing);
	pthread_mutex_lock(&session->lock);
	error = cprof_target_reload(session->target);
	if (!error)
		error = cprof_space_refresh(session->space);
	if (!error)
		error = cprof_session_agent_start(session);
	if (error && !session->heap && !session->contention)
		cprof_agent_destroy(cprof_take(session->agent));
	pthread_mutex_unlock(&session->lock);
	pthread_mutex_unlock(&session->tracing);
	return error;
}

static struct cprof_error *begin(struct cprof_session *session, enum cprof_kind kind)
{
	if (kind & CPROF_SESSION_AGENT)
		return begin_agent(session);
	if (kind == CPROF_KIND_BLOCK)
		return begin_block(session);
	if (kind == CPROF_KIND_THREADCREATE)
		return begin_births(session);
	return begin_perf(session);
}

struct cprof_error *cprof_live_begin(struct cprof_source *source, const char *kind)
{
	struct cprof_session *session = (struct cprof_session *)source;
	enum cprof_kind which = cprof_kind_find(kind);
	unsigned kinds = session->config.kinds;
	struct cprof_source_kind state;
	struct cprof_error *error;
	struct cprof_error *lost;

	cprof_live_kind(source, kind, &state);
	if (state.state == CPROF_SOURCE_ON)
		return NULL;
	if (state.state != CPROF_SOURCE_OFF)
		return cprof_error_create(CPROF_FAILED, NULL, "%s: %s", kind,
					  state.detail[0] ? state.detail : "cannot be started");
	if (!cprof_session_pause(session))
		return cprof_error_create(CPROF_NO_PROCESS, NULL, "%s: the process has ended",
					  kind);
	session->config.kinds |= which; /* what begins it asks */
	error = begin(session, which);
	if (error) {
		session->config.kinds = kinds;
		snprintf(session->live->problem[cprof_kind_index(which)],
			 sizeof(session->live->problem[0]), "%s", error->message);
	}
	lost = cprof_session_collect(session);
	if (error)
		cprof_error_destroy(lost);
	return error ? error : lost;
}
