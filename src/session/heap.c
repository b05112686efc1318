/* SPDX-License-Identifier: MIT
 *
 * Heap accounting in a session: the agent in the target, looked after and drained by the collector.
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
	char(*names)[64] = session->stats.heap_name;

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

static struct cprof_agent_options agent_options(const struct cprof_session *session)
{
	return (struct cprof_agent_options){
		.heap_rate = session->config.heap_rate,
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

static struct cprof_error *account(struct cprof_session *session)
{
	bool filter = session->config.threads && *session->config.threads;
	const struct cprof_heap_config config = {
		.shared = cprof_agent_shared(session->agent),
		.space = session->space,
		.modules = session->modules,
		.unwinder = session->unwinder,
		.wanted = filter ? wanted : NULL,
		.context = session,
	};

	session->heap_started_ns = cprof_now_ns();
	read_name(session, session->stats.heap_name[0]);
	look(session, session->heap_started_ns);
	count_agent(session);
	return cprof_heap_create(&config, &session->heap);
}

struct cprof_error *cprof_session_heap_start(struct cprof_session *session)
{
	const struct cprof_agent_options options = agent_options(session);

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
	if (!error)
		error = cprof_entry_plant(entry, session->target, &options, &session->agent);
	if (!error)
		error = account(session);
	session->stats.heap_ended = error; /* the other kinds go on */
	pthread_mutex_unlock(&session->lock);
	pthread_mutex_unlock(&session->tracing);
	return error;
}

static void end(struct cprof_session *session, const char *why)
{
	struct cprof_session_stats *stats = &session->stats;

	if (why && !stats->heap_problem[0])
		snprintf(stats->heap_problem, sizeof(stats->heap_problem), "%s", why);
	if (!stats->heap_ns)
		stats->heap_ns = cprof_now_ns() - session->heap_started_ns;
}

void cprof_session_heap_lose(struct cprof_session *session, const char *why)
{
	if (!session->heap || session->stats.heap_ended)
		return;
	cprof_heap_drain(session->heap);
	cprof_heap_void(session->heap);
	cprof_session_heap_count(session);
	session->stats.heap_ended = true;
	end(session, why);
}

/* --- the collector ------------------------------------------------------------------------- */

void cprof_session_heap_count(struct cprof_session *session)
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
	if (stats->heap.samples && !stats->attach_ns)
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
	if (session->stats.heap_ended) {
		session->heap_wait_ms = WAIT_MS;
	} else if (session->heap) {
		full = cprof_heap_drain(session->heap);
		session->heap_wait_ms = next_wait(session->heap_wait_ms, most_ms, full);
		cprof_session_heap_count(session);
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
	if (session->heap && !session->stats.heap_ended) {
		error = cprof_agent_tick(session->agent);
		count_agent(session);
		if (error && cprof_target_alive(session->target))
			cprof_session_heap_lose(session, error->status == CPROF_NO_PROCESS
								 ? CPROF_SESSION_EXEC
								 : error->message);
		cprof_error_destroy(error);
		look(session, now);
	}
	pthread_mutex_unlock(&session->lock);
	pthread_mutex_unlock(&session->tracing);
}

void cprof_session_heap_work(struct cprof_session *session)
{
	drain(session);
	tick(session, cprof_now_ns());
}

/* The hooks go first, so that what they have told by then is all there will be. */
void cprof_session_heap_finish(struct cprof_session *session)
{
	struct cprof_error *error = NULL;

	pthread_mutex_lock(&session->tracing);
	pthread_mutex_lock(&session->lock);
	if (session->agent) {
		error = cprof_agent_detach(session->agent);
		count_agent(session);
	}
	if (session->heap && !session->stats.heap_ended) {
		cprof_heap_drain(session->heap);
		cprof_session_heap_count(session);
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
