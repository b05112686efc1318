/* SPDX-License-Identifier: MIT
 *
 * What a live session does beside collecting, so that neither the collector nor a key waits for
 * it: naming, and a summary line a second.
 */
#include "live.h"

#include <cprof/util.h>
#include <errno.h>
#include <string.h>
#include <sys/resource.h>

#define BATCH       4096 /* locations named at once */
#define IDLE_NS     3000000000ull
#define INTERVAL_NS 1000000000ull
/* Somebody waits for the names, and a busy target would leave no time for them. */
#define WORKER_NICE (-5)

/* --- naming -------------------------------------------------------------------------------- */

/* Names a batch; true: there may be more. */
static bool name_batch(struct cprof_session *session, enum cprof_kind kind)
{
	struct cprof_session_live *live = session->live;
	unsigned index = cprof_kind_index(kind);
	struct cprof_naming *naming = NULL;
	struct cprof_builder *builder;
	struct cprof_error *error;
	size_t named = 0;
	bool found;

	pthread_mutex_lock(&session->lock);
	builder = cprof_session_builder(session, kind);
	error = builder ? cprof_builder_pick_unnamed(builder, &live->names_from[index], BATCH,
						     &naming)
			: NULL;
	pthread_mutex_unlock(&session->lock);
	found = naming && !error;
	if (found) {
		size_t before = cprof_naming_unnamed(naming);

		error = cprof_session_name(session, kind, naming, false);
		named = before - CPROF_MIN(before, cprof_naming_unnamed(naming));
	}
	if (found && !named)
		live->names_idle_ns[index] = cprof_now_ns() + IDLE_NS;
	cprof_error_destroy(error);
	cprof_naming_destroy(naming);
	return named;
}

/* A kind whose names are wanted; 0: none. A JIT's code may stay without names: it is not asked for
 * all the time. Under the lock. */
static enum cprof_kind next_kind(struct cprof_session_live *live, uint64_t now)
{
	for (unsigned i = 0; i < CPROF_COUNT(live->names_idle_ns); i++)
		if (live->names_wanted & 1u << i && now >= live->names_idle_ns[i])
			return (enum cprof_kind)(1u << i);
	return (enum cprof_kind)0;
}

void cprof_session_live_want_names(struct cprof_session *session, enum cprof_kind kind)
{
	if (kind == CPROF_KIND_CYCLES)
		kind = CPROF_KIND_CPU;
	session->live->names_wanted |= kind;
	pthread_cond_signal(&session->live->wake);
}

/* --- summary lines ------------------------------------------------------------------------- */

/* What one line needs to know from the one before. */
struct trace {
	struct cprof_memtrace *memtrace;
	struct cprof_memtrace_cpu total;
	uint64_t next_ns;
	uint64_t from_ns; /* samples since then are new */
};

/* Adds what the samples since the line before were spent on. */
static struct cprof_error *account(struct cprof_session *session, struct trace *trace)
{
	struct cprof_profile *profile;
	struct cprof_memtrace_cpu cpu;
	struct cprof_error *error;

	CPROF_TRY(cprof_live_recent(session, &trace->from_ns, &profile));
	error = cprof_memtrace_classify(profile, &cpu);
	cprof_profile_destroy(profile);
	if (!error)
		cprof_memtrace_cpu_add(&trace->total, &cpu);
	return error;
}

static void add_line(struct cprof_session *session, struct trace *trace, uint64_t now)
{
	struct cprof_session_live *live = session->live;
	struct cprof_memtrace_process process;
	struct cprof_session_stats stats;
	struct cprof_memtrace_line line;
	struct cprof_error *error;
	unsigned warnings;
	bool heap;

	cprof_memtrace_process(session->dump_target, &process);
	error = account(session, trace);
	pthread_mutex_lock(&session->lock);
	cprof_session_tell(session, &stats);
	session->stats.heap.peak_bytes = session->stats.heap.live_bytes;
	heap = session->heap && !stats.agent_ended;
	pthread_mutex_unlock(&session->lock);
	if (!error)
		error = cprof_memtrace_step_cpu(trace->memtrace, now, &trace->total,
						heap ? &stats.heap : NULL, &process, &line,
						&warnings);
	if (!error) {
		line.kernel_unknown = !stats.perf.kernel || stats.kernel_unnamed;
		pthread_mutex_lock(&session->lock);
		live->lines[live->line_count++ % CPROF_LIVE_LINES] = line;
		pthread_mutex_unlock(&session->lock);
	}
	cprof_error_destroy(error); /* the next line tells what this one could not */
}

static void trace_once(struct cprof_session *session, struct trace *trace)
{
	const struct cprof_memtrace_config config = {.started_ns = session->started_ns};
	uint64_t now = cprof_now_ns();

	if (!trace->memtrace) {
		cprof_error_destroy(cprof_memtrace_create(&config, &trace->memtrace));
		trace->next_ns = now;
	}
	if (!trace->memtrace || now < trace->next_ns)
		return;
	add_line(session, trace, now);
	trace->next_ns += INTERVAL_NS;
	if (trace->next_ns < now)
		trace->next_ns = now + INTERVAL_NS;
}

void cprof_live_memtrace(struct cprof_source *source, uint64_t from,
			 struct cprof_memtrace_line *lines, size_t most, size_t *count)
{
	struct cprof_session *session = (struct cprof_session *)source;
	struct cprof_session_live *live = session->live;
	uint64_t first;

	pthread_mutex_lock(&session->lock);
	if (!live->tracing) {
		live->tracing = true;
		pthread_cond_signal(&live->wake);
	}
	first = live->line_count > CPROF_LIVE_LINES ? live->line_count - CPROF_LIVE_LINES : 0;
	first = CPROF_MAX(first + 1, from);
	for (*count = 0; *count < most && first + *count <= live->line_count; ++*count)
		lines[*count] = live->lines[(first + *count - 1) % CPROF_LIVE_LINES];
	pthread_mutex_unlock(&session->lock);
}

/* --- the worker ---------------------------------------------------------------------------- */

/* Until something is to be done. Under the lock. */
static void wait(struct cprof_session *session, const struct trace *trace)
{
	struct cprof_session_live *live = session->live;
	uint64_t now = cprof_now_ns();
	uint64_t until = now + INTERVAL_NS;
	struct timespec time;

	if (live->tracing && trace->memtrace)
		until = CPROF_MIN(until, trace->next_ns);
	if (live->stopping || next_kind(live, now) || until <= now ||
	    (live->tracing && !trace->memtrace))
		return;
	time.tv_sec = (time_t)(until / 1000000000u);
	time.tv_nsec = (long)(until % 1000000000u);
	if (live->tracing || live->names_wanted)
		pthread_cond_timedwait(&live->wake, &session->lock, &time);
	else
		pthread_cond_wait(&live->wake, &session->lock);
}

static void *work(void *context)
{
	struct cprof_session *session = context;
	struct cprof_session_live *live = session->live;
	struct trace trace = {.from_ns = 0};

	setpriority(PRIO_PROCESS, 0, WORKER_NICE); /* of this thread; may be refused */
	for (;;) {
		enum cprof_kind kind;
		bool tracing;
		bool stopping;

		pthread_mutex_lock(&session->lock);
		wait(session, &trace);
		stopping = live->stopping;
		tracing = live->tracing && !session->ended_ns;
		kind = next_kind(live, cprof_now_ns());
		live->names_wanted &= ~(unsigned)kind;
		pthread_mutex_unlock(&session->lock);
		if (stopping)
			break;
		if (kind && name_batch(session, kind)) {
			pthread_mutex_lock(&session->lock);
			live->names_wanted |= kind;
			pthread_mutex_unlock(&session->lock);
		}
		if (tracing)
			trace_once(session, &trace);
	}
	cprof_memtrace_destroy(trace.memtrace);
	return NULL;
}

struct cprof_error *cprof_live_worker_start(struct cprof_session *session)
{
	CPROF_TRY(cprof_session_spawn(&session->live->worker, work, session));
	session->live->working = true;
	return NULL;
}

void cprof_live_worker_stop(struct cprof_session *session)
{
	struct cprof_session_live *live = session->live;

	if (!live->working)
		return;
	pthread_mutex_lock(&session->lock);
	live->stopping = true;
	pthread_cond_signal(&live->wake);
	pthread_mutex_unlock(&session->lock);
	pthread_join(live->worker, NULL);
	live->working = false;
}
