/* SPDX-License-Identifier: MIT
 *
 * The collector thread: drains what has arrived, until it is told to stop or the target ends.
 */
#include "private.h"

#include <cprof/util.h>
#include <errno.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/resource.h>

/* How long the collector sleeps: short until the first sample, then long enough to work in batches
 * and short enough that a ring does not fill. */
#define TICK_FIRST_MS 5
/* Where permitted the collector goes before others: with sixty busy threads on two CPUs at 499 Hz
 * a seventh of the samples was lost, at this priority none. It needs little time. */
#define COLLECTOR_NICE (-10)
#define TICK_MS        100
#define IDLE_MOST      3
#define MARGIN_MS      1 /* what is younger is left in its ring, see perf.c */
/* CPU time is told in ticks of 10 ms, and is read at another moment than the events. */
#define CPU_SLACK_NS 50000000ull

/* --- the collector ------------------------------------------------------------------------- */

static void drain_samples(struct cprof_session *session, bool final)
{
	struct cprof_perf_stats stats;

	cprof_perf_drain(session->perf, final, cprof_session_record, session);
	cprof_perf_stats(session->perf, &stats);
	pthread_mutex_lock(&session->lock);
	session->stats.perf = stats;
	session->stats.cpu.lost = stats.lost;
	pthread_mutex_unlock(&session->lock);
	if (session->live)
		cprof_session_live_drained(session);
}

static void drain(struct cprof_session *session)
{
	if (session->perf)
		drain_samples(session, false);
	if (session->switches)
		cprof_session_block_drain(session, false);
	if (session->births.perf)
		cprof_session_births_drain(session, false);
	if (session->live) {
		pthread_mutex_lock(&session->lock);
		cprof_session_live_mark(session);
		pthread_mutex_unlock(&session->lock);
	}
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
		double samples = (double)(session->stats.cpu.samples + perf->lost) + 1;

		known = (uint64_t)((samples + 4 * sqrt(samples)) * (double)perf->period) +
			used / 20 + CPU_SLACK_NS;
	}
	if (used > known)
		perf->counted = used;
}

static int wait_ms(const struct cprof_session *session)
{
	int wait = -1;

	if (session->perf || session->switches)
		wait = session->stats.attach_ns ? TICK_MS : TICK_FIRST_MS;
	else if (session->births.perf) /* whose first may be far */
		wait = TICK_MS;
	if (session->config.kinds & CPROF_SESSION_AGENT)
		wait = session->agent_wait_ms;
	return wait;
}

static void finish(struct cprof_session *session)
{
	uint64_t cpu_ns = cprof_target_cpu_ns(session->target);

	if (session->perf) {
		cprof_perf_disable(session->perf);
		drain_samples(session, true);
	}
	if (session->switches)
		cprof_session_block_finish(session);
	if (session->births.perf)
		cprof_session_births_finish(session);
	pthread_mutex_lock(&session->lock);
	count_unseen(session, cpu_ns);
	session->ended_ns = cprof_now_ns();
	session->ended = !cprof_target_alive(session->target);
	pthread_mutex_unlock(&session->lock);
	if (session->config.kinds & CPROF_SESSION_AGENT)
		cprof_session_agent_finish(session);
}

/* One session of events. A burst can fill a ring before anything in it is old enough to be handed
 * out: then it is looked at again at once. A ring whose task is gone stays readable for ever: only
 * the timer counts from then on. */
struct watch {
	int fd;
	const uint64_t *told; /* rises with what is handed out */
	uint64_t before;
	unsigned idle; /* times in a row that it woke us for nothing */
};

static struct watch watch_of(const struct cprof_perf *perf, const uint64_t *told)
{
	return (struct watch){.fd = perf ? cprof_perf_fd(perf) : -1, .told = told};
}

/* After a drain; true: once more, soon. */
static bool look(struct watch *watch, struct pollfd *polled)
{
	bool idle = polled->revents && *watch->told == watch->before;

	watch->before = *watch->told;
	watch->idle = idle ? watch->idle + 1 : 0;
	polled->fd = watch->idle > IDLE_MOST ? -1 : watch->fd;
	return idle && polled->fd >= 0;
}

static void *collect(void *context)
{
	struct cprof_session *session = context;
	struct watch watches[] = {
		watch_of(session->perf, &session->stats.cpu.samples),
		watch_of(session->switches, &session->block_records),
		watch_of(session->births.perf, &session->stats.births_counts.samples),
	};
	uint64_t drained_ns = 0;
	struct pollfd fds[2 + CPROF_COUNT(watches)] = {
		{.fd = session->stop_fd, .events = POLLIN},
		{.fd = cprof_target_pidfd(session->target), .events = POLLIN},
		{.fd = watches[0].fd, .events = POLLIN},
		{.fd = watches[1].fd, .events = POLLIN},
		{.fd = watches[2].fd, .events = POLLIN},
	};

	setpriority(PRIO_PROCESS, 0, COLLECTOR_NICE); /* of this thread; may be refused */
	for (;;) {
		bool again = false;
		int woken = poll(fds, CPROF_COUNT(fds), wait_ms(session));

		if (woken < 0 && errno != EINTR)
			break;
		if (woken > 0 && (fds[0].revents || fds[1].revents))
			break;
		if (session->config.kinds & CPROF_SESSION_AGENT)
			cprof_session_agent_work(session);
		/* The agent's ring may want us much oftener than this. */
		if (!fds[2].revents && !fds[3].revents && !fds[4].revents &&
		    cprof_now_ns() < drained_ns + TICK_FIRST_MS * 1000000ull)
			continue;
		drain(session);
		drained_ns = cprof_now_ns();
		for (size_t i = 0; i < CPROF_COUNT(watches); i++)
			again |= look(&watches[i], &fds[2 + i]);
		if (again)
			poll(NULL, 0, MARGIN_MS);
	}
	if (!__atomic_load_n(&session->pausing, __ATOMIC_RELAXED))
		finish(session);
	return NULL;
}

/* Signals are for the main thread, but for those that an instruction of this one raises: a file
 * that shrinks under an image raises SIGBUS, which the image floor handles. */
struct cprof_error *cprof_session_spawn(pthread_t *thread, void *(*run)(void *context),
					void *context)
{
	static const int own[] = {SIGBUS, SIGSEGV, SIGFPE, SIGILL, SIGTRAP};
	sigset_t all;
	sigset_t old;
	int error;

	sigfillset(&all);
	for (size_t i = 0; i < CPROF_COUNT(own); i++)
		sigdelset(&all, own[i]);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	error = pthread_create(thread, NULL, run, context);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return error ? cprof_error_errno(CPROF_FAILED, error, NULL, "starting a thread") : NULL;
}

struct cprof_error *cprof_session_collect(struct cprof_session *session)
{
	CPROF_TRY(cprof_session_spawn(&session->collector, collect, session));
	session->collecting = true;
	return NULL;
}

bool cprof_session_pause(struct cprof_session *session)
{
	eventfd_t ignored;

	if (!session->collecting)
		return false;
	__atomic_store_n(&session->pausing, true, __ATOMIC_RELAXED);
	eventfd_write(session->stop_fd, 1);
	pthread_join(session->collector, NULL);
	eventfd_read(session->stop_fd, &ignored);
	__atomic_store_n(&session->pausing, false, __ATOMIC_RELAXED);
	session->collecting = !session->ended_ns;
	return session->collecting;
}
