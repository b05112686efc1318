/* SPDX-License-Identifier: MIT
 *
 * A session's life: attach, collect, stop, detach.
 */
#include "private.h"

#include <cprof/util.h>
#include <errno.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

#define RATE_DEFAULT 99
/* How long the collector sleeps: short until the first sample, then long enough to work in batches
 * and short enough that a ring does not fill. */
#define TICK_FIRST_MS 5
/* Where permitted the collector goes before others: with sixty busy threads on two CPUs at 499 Hz
 * a seventh of the samples was lost, at this priority none. It needs little time. */
#define COLLECTOR_NICE (-10)
#define TICK_MS        100
/* CPU time is told in ticks of 10 ms, and is read at another moment than the events. */
#define CPU_SLACK_NS 50000000ull

/* --- the collector ------------------------------------------------------------------------- */

static void drain(struct cprof_session *session, bool final)
{
	struct cprof_perf_stats stats;

	cprof_perf_drain(session->perf, final, cprof_session_record, session);
	cprof_perf_stats(session->perf, &stats);
	pthread_mutex_lock(&session->lock);
	session->stats.perf = stats;
	session->stats.lost = stats.lost;
	pthread_mutex_unlock(&session->lock);
}

/* Events can go away: the kernel takes a user's from a program that gains privileges by exec or
 * that cannot be read. And no clock ticks while interrupts are off: a program that switches and
 * idles 100,000 times a second is seen for four fifths of its time. The process's own account of
 * its CPU time still tells what was missed. Under the lock. */
static void count_unseen(struct cprof_session *session, uint64_t cpu_ns)
{
	struct cprof_perf_stats *perf = &session->stats.perf;
	uint64_t used = cpu_ns > session->cpu_ns ? cpu_ns - session->cpu_ns : 0;
	uint64_t known = perf->counted + CPU_SLACK_NS;

	if (!perf->period)
		return;
	if (perf->way == CPROF_PERF_CPU_WIDE) { /* beyond what chance can do to so many samples */
		double samples = (double)(session->stats.samples + perf->lost) + 1;

		known = (uint64_t)((samples + 4 * sqrt(samples)) * (double)perf->period) +
			used / 20 + CPU_SLACK_NS;
	}
	if (used > known)
		perf->counted = used;
}

static void *collect(void *context)
{
	struct cprof_session *session = context;
	uint64_t cpu_ns;
	struct pollfd fds[3] = {
		{.fd = session->stop_fd, .events = POLLIN},
		{.fd = cprof_target_pidfd(session->target), .events = POLLIN},
		{.fd = cprof_perf_fd(session->perf), .events = POLLIN},
	};

	setpriority(PRIO_PROCESS, 0, COLLECTOR_NICE); /* of this thread; may be refused */
	for (;;) {
		uint64_t samples = session->stats.samples;
		bool first = !session->stats.attach_ns;
		int woken = poll(fds, 3, first ? TICK_FIRST_MS : TICK_MS);

		if (woken < 0 && errno != EINTR)
			break;
		if (woken > 0 && (fds[0].revents || fds[1].revents))
			break;
		drain(session, false);
		/* A ring whose task is gone stays readable: then only the timer counts. */
		fds[2].fd = fds[2].revents && samples == session->stats.samples
				    ? -1
				    : cprof_perf_fd(session->perf);
	}
	cpu_ns = cprof_target_cpu_ns(session->target);
	cprof_perf_disable(session->perf);
	drain(session, true);
	pthread_mutex_lock(&session->lock);
	count_unseen(session, cpu_ns);
	session->ended_ns = cprof_now_ns();
	session->ended = !cprof_target_alive(session->target);
	pthread_mutex_unlock(&session->lock);
	return NULL;
}

/* Signals are for the main thread, but for those that an instruction of this one raises: a file
 * that shrinks under an image raises SIGBUS, which the image floor handles. */
static int start_thread(struct cprof_session *session)
{
	static const int own[] = {SIGBUS, SIGSEGV, SIGFPE, SIGILL, SIGTRAP};
	sigset_t all;
	sigset_t old;
	int error;

	sigfillset(&all);
	for (size_t i = 0; i < CPROF_COUNT(own); i++)
		sigdelset(&all, own[i]);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	error = pthread_create(&session->collector, NULL, collect, session);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return error;
}

struct cprof_error *cprof_session_start(struct cprof_session *session)
{
	int failed;

	CPROF_TRY(cprof_perf_enable(session->perf));
	session->cpu_ns = cprof_target_cpu_ns(session->target);
	session->started_ns = session->refreshed_ns = cprof_now_ns();
	cprof_builder_profile(session->builder)->time_ns = (int64_t)cprof_wall_ns();
	/* After enabling: a mapping is either listed here or told by a record. */
	CPROF_TRY(cprof_space_refresh(session->space));
	CPROF_TRY(cprof_session_scan_threads(session));
	if (!session->awaiting_exec)
		session->main_unknown = !cprof_builder_map_main(session->builder);
	failed = start_thread(session);
	if (failed)
		return cprof_error_errno(CPROF_FAILED, failed, NULL, "starting a thread");
	session->collecting = true;
	return NULL;
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

static struct cprof_error *source_snapshot(struct cprof_source *source, const char *kind,
					   struct cprof_profile **profile)
{
	if (kind && strcmp(kind, "cpu") != 0 && strcmp(kind, "cycles") != 0)
		return cprof_error_create(CPROF_USAGE, NULL, "%s: not a kind this session takes",
					  kind);
	return cprof_session_snapshot((struct cprof_session *)source, profile);
}

static bool source_live(struct cprof_source *source)
{
	struct cprof_session *session = (struct cprof_session *)source;
	bool live;

	pthread_mutex_lock(&session->lock);
	live = session->collecting && !session->ended_ns;
	pthread_mutex_unlock(&session->lock);
	return live;
}

static void source_destroy(struct cprof_source *source)
{
	cprof_session_destroy((struct cprof_session *)source);
}

static const struct cprof_source_ops source_ops = {
	.snapshot = source_snapshot,
	.live = source_live,
	.destroy = source_destroy,
};

static struct cprof_error *create_profile(struct cprof_session *session)
{
	struct cprof_profile *profile;

	CPROF_TRY(cprof_builder_create(session->modules, session->space, &session->builder));
	profile = cprof_builder_profile(session->builder);
	cprof_perf_stats(session->perf, &session->stats.perf);
	cprof_profile_add_type(profile, "samples", "count");
	if (session->config.clock == CPROF_PERF_CYCLES)
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

static struct cprof_error *open_all(struct cprof_session *session)
{
	const struct cprof_session_config *config = &session->config;
	const struct cprof_modules_options options = {.debug_dir = config->debug_dir};
	const struct cprof_perf_config perf = {
		.way = config->way,
		.clock = config->clock,
		.rate = config->rate ? config->rate : RATE_DEFAULT,
		.kernel = !config->no_kernel,
		.user_stack = true,
	};
	const struct cprof_unwinder_ops *ops =
		config->unwinder ? config->unwinder : &cprof_unwinder_cfi;

	CPROF_TRY(cprof_target_create(config->pid, &session->target));
	CPROF_TRY(cprof_modules_create(&options, &session->modules));
	CPROF_TRY(cprof_space_create(session->target, session->modules, &session->space));
	CPROF_TRY(ops->create(session->space, &session->unwinder));
	session->stop_fd = eventfd(0, EFD_CLOEXEC);
	if (session->stop_fd < 0)
		return cprof_error_errno(CPROF_FAILED, errno, NULL, "eventfd");
	CPROF_TRY(cprof_perf_create(session->target, &perf, &session->perf));
	return create_profile(session);
}

struct cprof_error *cprof_session_create(const struct cprof_session_config *config,
					 struct cprof_session **result)
{
	struct cprof_session *session = calloc(1, sizeof(*session));
	struct cprof_error *error;

	if (!session)
		return cprof_error_nomem();
	session->source.ops = &source_ops;
	session->config = *config;
	session->awaiting_exec = config->await_exec;
	session->stop_fd = -1;
	pthread_mutex_init(&session->lock, NULL);
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
	cprof_perf_destroy(session->perf);
	cprof_builder_destroy(session->builder);
	if (session->unwinder)
		session->unwinder->ops->destroy(session->unwinder);
	cprof_space_destroy(session->space);
	cprof_modules_destroy(session->modules);
	cprof_target_destroy(session->target);
	HASH_ITER(hh, session->threads, thread, next)
	{
		HASH_DEL(session->threads, thread);
		free(thread);
	}
	if (session->stop_fd >= 0)
		close(session->stop_fd);
	pthread_mutex_destroy(&session->lock);
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

void cprof_session_tell(struct cprof_session *session, struct cprof_session_stats *stats)
{
	*stats = session->stats;
	stats->target_ended = session->ended;
	if (session->started_ns)
		stats->duration_ns = (session->ended_ns ? session->ended_ns : cprof_now_ns()) -
				     session->started_ns;
}

void cprof_session_stats(struct cprof_session *session, struct cprof_session_stats *stats)
{
	pthread_mutex_lock(&session->lock);
	cprof_session_tell(session, stats);
	pthread_mutex_unlock(&session->lock);
}
