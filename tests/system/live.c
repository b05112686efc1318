/* SPDX-License-Identifier: MIT
 *
 * What a live view asks of a session, asked without a screen: `live PID SECONDS [RATE [WINDOW]]`
 * prints a line of JSON a second: what the calls cost, and what they told.
 */
#include <cprof/locks.h>
#include <cprof/memtrace.h>
#include <cprof/session.h>
#include <cprof/util.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int fail(struct cprof_error *error)
{
	cprof_error_print(error, stderr);
	return error->status;
}

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
	CPROF_TRY(source->ops->threads(source, &threads));
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
	       profile->stack_count, unnamed(profile), threads->count, threads->deadlock,
	       line_count, (double)figures.uptime_ns / 1e9, figures.ended, figures.ended_how);
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
	return NULL;
}

int main(int argc, char **argv)
{
	struct cprof_session_config config = {
		.kinds = CPROF_KIND_CPU, .live = true, .started_ns = cprof_now_ns()};
	struct cprof_session *session;
	struct cprof_error *error;

	if (argc < 3) {
		fprintf(stderr, "usage: live PID SECONDS [RATE [WINDOW]]\n");
		return 2;
	}
	config.pid = (pid_t)strtol(argv[1], NULL, 10);
	config.rate = argc > 3 ? (unsigned)strtoul(argv[3], NULL, 10) : 0;
	error = cprof_session_create(&config, &session);
	if (error)
		return fail(error);
	error = watch(session, (int)strtol(argv[2], NULL, 10),
		      (argc > 4 ? strtoull(argv[4], NULL, 10) : 10) * 1000000000u);
	cprof_session_destroy(session);
	return error ? fail(error) : 0;
}
