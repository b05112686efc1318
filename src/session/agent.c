/* SPDX-License-Identifier: MIT
 *
 * The agent in the target, looked after by the collector, and what it tells: the heap, locks.
 */
#include "private.h"

#include <cprof/util.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TICK_NS 100000000ull
#define LOOK_NS 1000000000ull /* how often names of threads are read again */
/* Longest pause between two drains; at rate 1 the target waits for room in the ring. */
#define WAIT_MS       50
#define WAIT_EXACT_MS 5

/* --- threads and memory, where no records tell of them ------------------------------------- */

static bool wanted(void *context, pid_t tid)
{
	return cprof_session_wants(context, tid);
}

static uint64_t read_rss(const struct cprof_target *target)
{
	CPROF_AUTO_FREE char *text = NULL;
	size_t length;
	unsigned long long pages;

	text = cprof_read_file_at(cprof_target_procfd(target), "statm", 256, &length);
	if (!text || sscanf(text, "%*u %llu", &pages) != 1)
		return 0;
	return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static void read_name(const struct cprof_session *session, char name[64])
{
	CPROF_AUTO_FREE char *text = NULL;
	size_t length = 0;

	text = cprof_read_file_at(cprof_target_procfd(session->target), "comm", 64, &length);
	name[0] = '\0';
	if (text && length)
		cprof_text_clean(text, length - 1, name, 64);
}

/* A program that is over before anybody looks again has only left its name. */
static void compare_names(struct cprof_session *session)
{
	char(*names)[64] = session->stats.agent_name;

	read_name(session, names[1]);
	if (strcmp(names[0], names[1]) == 0)
		names[1][0] = '\0';
}

static void look(struct cprof_session *session, uint64_t now)
{
	uint64_t rss = read_rss(session->target);

	if (rss)
		session->stats.rss = rss;
	if (session->perf || !session->config.threads || now < session->looked_ns + LOOK_NS)
		return;
	session->looked_ns = now;
	cprof_session_forget_threads(session);
}

/* --- life: under both locks ---------------------------------------------------------------- */

static unsigned agent_kinds(unsigned kinds)
{
	return (kinds & CPROF_KIND_HEAP ? (unsigned)CPROF_AGENT_KIND_HEAP : 0) |
	       (kinds & CPROF_KIND_MUTEX ? (unsigned)CPROF_AGENT_KIND_LOCKS : 0);
}

static struct cprof_agent_options agent_options(const struct cprof_session *session)
{
	return (struct cprof_agent_options){
		.kinds = agent_kinds(session->config.kinds),
		.heap_rate = session->config.heap_rate,
		.lock_every = session->config.mutex_rate,
		.seed = session->config.heap_seed,
	};
}

/* What was patched counts, also when it has been restored. */
static void count_agent(struct cprof_session *session)
{
	uint64_t patched = session->stats.agent.slots_patched;
	struct cprof_agent_stats *stats = &session->stats.agent;

	cprof_agent_stats(session->agent, stats);
	stats->slots_patched = CPROF_MAX(stats->slots_patched, patched);
}

static struct cprof_error *create_records(struct cprof_session *session)
{
	struct cprof_agent_records *records = calloc(1, sizeof(*records));

	if (!records)
		return cprof_error_nomem();
	session->records = records;
	records->shared = cprof_agent_shared(session->agent);
	records->space = session->space;
	records->modules = session->modules;
	records->unwinder = session->unwinder;
	records->wanted = session->config.threads && *session->config.threads ? wanted : NULL;
	records->context = session;
	return cprof_agent_bounds_create(&records->bounds);
}

/* Begins to account what is hooked and not accounted yet. */
static struct cprof_error *account(struct cprof_session *session)
{
	unsigned kinds = session->config.kinds;

	if (!session->records) {
		CPROF_TRY(create_records(session));
		session->agent_started_ns = cprof_now_ns();
		if (!session->stats.agent_name[0][0])
			read_name(session, session->stats.agent_name[0]);
		look(session, session->agent_started_ns);
	}
	count_agent(session);
	if (kinds & CPROF_KIND_HEAP && !session->heap)
		CPROF_TRY(cprof_heap_create(session->records, TICK_NS, &session->heap));
	if (kinds & CPROF_KIND_MUTEX && !session->contention)
		CPROF_TRY(cprof_contention_create(session->records, &session->contention));
	return NULL;
}

struct cprof_error *cprof_session_agent_start(struct cprof_session *session)
{
	const struct cprof_agent_options options = agent_options(session);

	if (session->agent)
		CPROF_TRY(cprof_agent_add(session->agent, options.kinds));
	else
		CPROF_TRY(cprof_agent_create(session->target, &options, &session->agent));
	return account(session);
}

struct cprof_error *cprof_session_plant(struct cprof_session *session, struct cprof_entry *entry)
{
	const struct cprof_agent_options options = agent_options(session);
	struct cprof_error *error;

	pthread_mutex_lock(&session->tracing);
	pthread_mutex_lock(&session->lock);
	error = cprof_target_reload(session->target);
	if (!error)
		error = cprof_space_refresh(session->space);
	/* While it is held: once it is let go it may be another program at once. */
	read_name(session, session->stats.agent_name[0]);
	if (!error)
		error = cprof_entry_plant(entry, session->target, &options, &session->agent);
	if (!error)
		error = account(session);
	session->stats.agent_ended = error; /* the other kinds go on */
	pthread_mutex_unlock(&session->lock);
	pthread_mutex_unlock(&session->tracing);
	return error;
}

/* How full the fuller ring was. */
static double drain_all(struct cprof_session *session)
{
	double heap = session->heap ? cprof_heap_drain(session->heap) : 0;
	double locks = session->contention ? cprof_contention_drain(session->contention) : 0;

	return CPROF_MAX(heap, locks);
}

static void end(struct cprof_session *session, const char *why)
{
	struct cprof_session_stats *stats = &session->stats;

	if (why && !stats->agent_problem[0])
		snprintf(stats->agent_problem, sizeof(stats->agent_problem), "%s", why);
	if (!stats->agent_ns)
		stats->agent_ns = cprof_now_ns() - session->agent_started_ns;
}

void cprof_session_agent_lose(struct cprof_session *session, const char *why)
{
	if (!session->agent || session->stats.agent_ended)
		return;
	drain_all(session);
	if (session->heap)
		cprof_heap_void(session->heap);
	cprof_session_agent_count(session);
	session->stats.agent_ended = true;
	end(session, why);
}

/* --- the collector ------------------------------------------------------------------------- */

static void count_locks(struct cprof_session *session)
{
	struct cprof_session_stats *stats = &session->stats;

	cprof_contention_stats(session->contention, &stats->contention);
	stats->mutex_counts = (struct cprof_session_counts){
		.samples = stats->contention.samples,
		.lost = stats->contention.lost,
		.frames = stats->contention.frames,
	};
	memcpy(stats->mutex_counts.ends, stats->contention.ends, sizeof(stats->contention.ends));
}

static void count_heap(struct cprof_session *session)
{
	struct cprof_session_stats *stats = &session->stats;
	double peak = stats->heap.peak_bytes;

	cprof_heap_stats(session->heap, &stats->heap);
	stats->heap.peak_bytes = CPROF_MAX(peak, stats->heap.peak_bytes);
	stats->heap_counts = (struct cprof_session_counts){
		.samples = stats->heap.samples,
		.lost = stats->heap.lost,
		.frames = stats->heap.frames,
	};
	memcpy(stats->heap_counts.ends, stats->heap.ends, sizeof(stats->heap.ends));
}

void cprof_session_agent_count(struct cprof_session *session)
{
	struct cprof_session_stats *stats = &session->stats;

	if (session->heap)
		count_heap(session);
	if (session->contention)
		count_locks(session);
	if (stats->heap.samples + stats->contention.samples && !stats->attach_ns)
		stats->attach_ns = cprof_now_ns() - session->config.started_ns;
}

/* A ring that fills up is emptied sooner. */
static int next_wait(int wait_ms, int most_ms, double full)
{
	if (full > 0.5)
		return 0;
	if (full > 0.2)
		return wait_ms / 2;
	return full < 0.05 ? CPROF_MIN(wait_ms * 2 + 1, most_ms) : wait_ms;
}

static void drain(struct cprof_session *session)
{
	int most_ms = session->config.heap_rate == 1 ? WAIT_EXACT_MS : WAIT_MS;
	double full;

	pthread_mutex_lock(&session->lock);
	if (session->stats.agent_ended) {
		session->agent_wait_ms = WAIT_MS;
	} else if (session->agent) {
		full = drain_all(session);
		session->agent_wait_ms = next_wait(session->agent_wait_ms, most_ms, full);
		cprof_session_agent_count(session);
	}
	pthread_mutex_unlock(&session->lock);
}

/* Not while a dump is taken: one tracer at a time. The hooks do not miss it, since a drain tells
 * them as well that we live. */
static void tick(struct cprof_session *session, uint64_t now)
{
	struct cprof_error *error;

	if (now < session->ticked_ns + TICK_NS || pthread_mutex_trylock(&session->tracing))
		return;
	session->ticked_ns = now;
	pthread_mutex_lock(&session->lock);
	if (session->agent && !session->stats.agent_ended) {
		error = cprof_agent_tick(session->agent);
		count_agent(session);
		if (error && cprof_target_alive(session->target))
			cprof_session_agent_lose(session, error->status == CPROF_NO_PROCESS
								  ? CPROF_SESSION_EXEC
								  : error->message);
		cprof_error_destroy(error);
		look(session, now);
	}
	pthread_mutex_unlock(&session->lock);
	pthread_mutex_unlock(&session->tracing);
}

void cprof_session_agent_work(struct cprof_session *session)
{
	drain(session);
	tick(session, cprof_now_ns());
}

/* The hooks go first, so that what they have told by then is all there will be. */
void cprof_session_agent_finish(struct cprof_session *session)
{
	struct cprof_error *error = NULL;

	pthread_mutex_lock(&session->tracing);
	pthread_mutex_lock(&session->lock);
	if (session->agent) {
		error = cprof_agent_detach(session->agent);
		count_agent(session);
	}
	if (session->agent && !session->stats.agent_ended) {
		drain_all(session);
		if (session->heap)
			cprof_heap_scan(session->heap);
		cprof_session_agent_count(session);
		if (!cprof_target_alive(session->target))
			compare_names(session);
		end(session, error && cprof_target_alive(session->target) ? error->message : NULL);
	}
	pthread_mutex_unlock(&session->lock);
	pthread_mutex_unlock(&session->tracing);
	cprof_error_destroy(error);
}

void cprof_session_agent_modules(struct cprof_session *session,
				 void (*each)(void *context,
					      const struct cprof_agent_module *module),
				 void *context)
{
	const struct cprof_agent_module *modules;
	size_t count = 0;

	pthread_mutex_lock(&session->lock);
	modules = session->agent ? cprof_agent_modules(session->agent, &count) : NULL;
	for (size_t i = 0; i < count; i++)
		each(context, &modules[i]);
	pthread_mutex_unlock(&session->lock);
}
