/* SPDX-License-Identifier: MIT
 *
 * What a live view asks of a session, asked without a screen:
 *   live PID SECONDS [RATE [WINDOW]]  a line of JSON a second: what the calls cost and told
 *   live PID waits                    the list of threads beside a dump
 *   live PID begin KIND TYPE          a kind that is begun while CPU is sampled
 */
#include <cprof/locks.h>
#include <cprof/memtrace.h>
#include <cprof/session.h>
#include <cprof/util.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t unnamed(const struct cprof_profile *profile)
{
	uint64_t count = 0;

	for (size_t i = 1; i < profile->location_count; i++)
		count += !profile->locations[i].named;
	return count;
}

static struct cprof_error *refresh(struct cprof_source *source, uint64_t window_ns)
{
	static struct cprof_memtrace_line lines[8];
	static uint64_t from = 1;
	struct cprof_source_threads *threads = NULL;
	struct cprof_source_figures figures;
	struct cprof_profile *profile;
	uint64_t times[4];
	size_t line_count;

	times[0] = cprof_thread_cpu_ns();
	CPROF_TRY(source->ops->window(source, "cpu", window_ns, true, &profile));
	times[1] = cprof_thread_cpu_ns();
	cprof_error_destroy(source->ops->threads(source, &threads)); /* it may have ended */
	times[2] = cprof_thread_cpu_ns();
	source->ops->figures(source, &figures);
	source->ops->memtrace(source, from, lines, CPROF_COUNT(lines), &line_count);
	from += line_count;
	times[3] = cprof_thread_cpu_ns();
	printf("{\"window_us\":%" PRIu64 ",\"threads_us\":%" PRIu64 ",\"figures_us\":%" PRIu64
	       ",\"own_cpu\":%.4f,\"own_rss\":%" PRIu64 ",\"cpu\":%.3f,\"samples\":%" PRIu64
	       ",\"lost\":%" PRIu64 ",\"complete\":%.4f,\"window_samples\":%zu,\"stacks\":%zu,"
	       "\"unnamed\":%" PRIu64 ",\"threads\":%zu,\"deadlock\":\"%s\",\"lines\":%zu,"
	       "\"uptime\":%.1f,\"ended\":%d,\"how\":\"%s\"}\n",
	       (times[1] - times[0]) / 1000, (times[2] - times[1]) / 1000,
	       (times[3] - times[2]) / 1000, figures.own_cpu, figures.own_rss_bytes, figures.cpu,
	       figures.samples, figures.lost, figures.complete, profile->sample_count,
	       profile->stack_count, unnamed(profile), threads ? threads->count : 0,
	       threads ? threads->deadlock : "", line_count, (double)figures.uptime_ns / 1e9,
	       figures.ended, figures.ended_how);
	fflush(stdout);
	cprof_profile_destroy(profile);
	cprof_source_threads_destroy(threads);
	return NULL;
}

static struct cprof_error *watch(struct cprof_session *session, int seconds, uint64_t window_ns)
{
	struct cprof_source *source = cprof_session_source(session);
	uint64_t next = cprof_now_ns() + 1000000000u;

	CPROF_TRY(cprof_session_start(session));
	for (int i = 0; i < seconds && source->ops->live(source); i++) {
		uint64_t now = cprof_now_ns();

		if (now < next)
			usleep((useconds_t)((next - now) / 1000));
		next += 1000000000u;
		CPROF_TRY(refresh(source, window_ns));
	}
	return source->ops->live(source) ? NULL : refresh(source, window_ns);
}

/* Waits of the list beside those of a dump, a line a thread. */
static struct cprof_error *compare_waits(struct cprof_session *session)
{
	struct cprof_source *source = cprof_session_source(session);
	struct cprof_source_threads *threads;
	struct cprof_dump *dump;
	size_t at = 0;

	CPROF_TRY(source->ops->threads(source, &threads));
	CPROF_TRY(source->ops->dump(source, 0, &dump));
	for (size_t i = 0; i < dump->count; i++) {
		const struct cprof_dump_thread *dumped = &dump->threads[i];
		const struct cprof_source_thread *listed;

		while (at < threads->count && threads->threads[at].tid < dumped->tid)
			at++;
		if (at >= threads->count || threads->threads[at].tid != dumped->tid)
			continue;
		listed = &threads->threads[at];
		printf("%s|%c|%s|%s|%d|%s|%s|%s\n", listed->name, listed->state, listed->wait,
		       cprof_wait_name(dumped->wait.kind), (int)dumped->wait.owner,
		       dumped->wait.detail ? dumped->wait.detail : "", listed->wait_detail,
		       listed->top);
	}
	printf("deadlock: %s\n", threads->deadlock);
	printf("deadlocks: %zu\n", dump->deadlock_count);
	cprof_source_threads_destroy(threads);
	cprof_dump_destroy(dump);
	return NULL;
}

static void tell_kind(struct cprof_source *source, const char *kind)
{
	static const char *const states[] = {"absent", "off", "on", "ended"};
	struct cprof_source_kind state;

	source->ops->kind(source, kind, &state);
	printf("%s: %s: %s\n", kind, states[state.state], state.detail);
}

static int64_t sum_of(const struct cprof_profile *profile, const char *type)
{
	int index = cprof_profile_find_type(profile, type);
	int64_t sum = 0;

	for (size_t i = 0; i < profile->sample_count && index >= 0; i++)
		sum += profile->values[i * profile->type_count + (size_t)index];
	return sum;
}

/* Starts a kind while CPU is sampled, and tells what came of all. */
static struct cprof_error *begin_kind(struct cprof_session *session, const char *kind,
				      const char *type)
{
	struct cprof_source *source = cprof_session_source(session);
	struct cprof_profile *profile = NULL;
	struct cprof_error *error;

	sleep(1);
	tell_kind(source, kind);
	error = source->ops->begin(source, kind);
	if (error) {
		printf("refused: %s\n", error->message);
		cprof_error_destroy(error);
	} else {
		cprof_error_destroy(source->ops->begin(source, kind)); /* once more: harmless */
	}
	sleep(4);
	tell_kind(source, kind);
	tell_kind(source, "cpu");
	tell_kind(source, "threads");
	error = source->ops->window(source, kind, 0, false, &profile);
	if (!error)
		printf("%s: %lld\n", type, (long long)sum_of(profile, type));
	cprof_error_destroy(error);
	cprof_profile_destroy(profile);
	error = source->ops->window(source, kind, 1000000000, true, &profile);
	if (!error)
		printf("{\"window\": %.3f, \"sum\": %.3f}\n", (double)profile->duration_ns / 1e9,
		       (double)sum_of(profile, type) / 1e9);
	cprof_error_destroy(error);
	cprof_profile_destroy(profile);
	CPROF_TRY(source->ops->window(source, "cpu", 1000000000, false, &profile));
	printf("cpu of %.1f s: %.2f s, %llu unnamed\n", (double)profile->duration_ns / 1e9,
	       (double)sum_of(profile, "cpu") / 1e9, (unsigned long long)unnamed(profile));
	cprof_profile_destroy(profile);
	printf("live: %d\n", source->ops->live(source));
	return NULL;
}

static struct cprof_error *work(struct cprof_session *session, int argc, char **argv)
{
	if (!strcmp(argv[2], "waits")) {
		CPROF_TRY(cprof_session_start(session));
		return compare_waits(session);
	}
	if (!strcmp(argv[2], "begin") && argc > 4) {
		CPROF_TRY(cprof_session_start(session));
		return begin_kind(session, argv[3], argv[4]);
	}
	return watch(session, (int)strtol(argv[2], NULL, 10),
		     (argc > 4 ? strtoull(argv[4], NULL, 10) : 10) * 1000000000u);
}

int main(int argc, char **argv)
{
	struct cprof_session_config config = {
		.kinds = CPROF_KIND_CPU, .live = true, .started_ns = cprof_now_ns()};
	struct cprof_session *session;
	struct cprof_error *error;
	int status;

	if (argc < 3) {
		fprintf(stderr,
			"usage: live PID SECONDS [RATE [WINDOW]] | waits | begin KIND TYPE\n");
		return 2;
	}
	config.pid = (pid_t)strtol(argv[1], NULL, 10);
	if (argc > 3)
		config.rate = (unsigned)strtoul(argv[3], NULL, 10);
	error = cprof_session_create(&config, &session);
	if (!error) {
		error = work(session, argc, argv);
		cprof_session_destroy(session);
	}
	if (!error)
		return 0;
	cprof_error_print(error, stderr);
	status = error->status;
	cprof_error_destroy(error);
	return status;
}
