/* SPDX-License-Identifier: MIT
 *
 * Plants the agent and leaves again, so many times: `inject PID [COUNT [TICK_MS [keep]]]`; prints
 * figures as JSON. `keep` ends without leaving, as a killed profiler would. `inject find PID` and
 * `inject clean PID` tell and remove what is left. The exit status is the error's.
 */
#include <cprof/attach.h>
#include <cprof/util.h>
#include <stdio.h>
#include <string.h>

struct figures {
	size_t count;
	uint64_t *held_ns;
	uint64_t stops_max;
	uint64_t threads_max;
	uint64_t slots;
	uint64_t left;
	size_t adopted;
	size_t resident;
	uint64_t samples;
};

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a;
	uint64_t y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static void note(struct figures *figures, struct cprof_agent *agent, size_t index)
{
	struct cprof_agent_stats stats;

	cprof_agent_stats(agent, &stats);
	figures->held_ns[index] = stats.attach_stopped_ns;
	figures->stops_max = CPROF_MAX(figures->stops_max, stats.attach_stops);
	figures->threads_max = CPROF_MAX(figures->threads_max, stats.stopped_threads);
	figures->slots += stats.slots_restored;
	figures->left += stats.slots_left;
	figures->adopted += stats.adopted;
	figures->resident += stats.resident;
	figures->samples += cprof_agent_shared(agent)->allocs;
}

static struct cprof_error *once(struct cprof_target *target, unsigned ticks, bool keep,
				struct figures *figures, size_t index)
{
	const char *kinds = getenv("INJECT_KINDS"); /* enum cprof_agent_kind */
	const struct cprof_agent_options options = {
		.kinds = kinds ? (unsigned)atoi(kinds) : 0,
		.heap_rate = 4096,
	};
	struct cprof_agent *agent;
	struct cprof_error *error;

	CPROF_TRY(cprof_agent_create(target, &options, &agent));
	error = cprof_agent_tick(agent);
	for (unsigned i = 0; i < ticks && !error; i++) {
		usleep(1000);
		error = cprof_agent_tick(agent);
	}
	if (keep)
		_exit(0);
	if (!error)
		error = cprof_agent_detach(agent);
	note(figures, agent, index);
	cprof_agent_destroy(agent);
	return error;
}

static struct cprof_error *repeat(struct cprof_target *target, unsigned ticks, bool keep,
				  struct figures *figures)
{
	for (size_t i = 0; i < figures->count; i++)
		CPROF_TRY(once(target, ticks, keep, figures, i));
	qsort(figures->held_ns, figures->count, sizeof(*figures->held_ns), compare);
	printf("{\"count\": %zu, \"held_us_p50\": %.1f, \"held_us_p99\": %.1f, \"held_us_max\": "
	       "%.1f, \"stops_max\": %lu, \"threads_max\": %lu, \"slots\": %lu, \"left\": %lu, "
	       "\"adopted\": %zu, \"resident\": %zu, \"samples\": %lu}\n",
	       figures->count, (double)figures->held_ns[figures->count / 2] / 1e3,
	       (double)figures->held_ns[figures->count * 99 / 100] / 1e3,
	       (double)figures->held_ns[figures->count - 1] / 1e3, figures->stops_max,
	       figures->threads_max, figures->slots, figures->left, figures->adopted,
	       figures->resident, figures->samples);
	return NULL;
}

static struct cprof_error *tell(struct cprof_target *target, bool clean)
{
	struct cprof_agent_remains remains;

	CPROF_TRY(clean ? cprof_agent_clean(target, &remains) : cprof_agent_find(target, &remains));
	printf("{\"base\": %lu, \"hooked\": %d, \"mapped\": %d, \"memfd\": %d, \"in_use\": %d, "
	       "\"host_pid\": %d, \"slots\": %lu}\n",
	       remains.base, remains.hooked, remains.mapped, remains.memfd, remains.in_use,
	       remains.host_pid, remains.slots);
	return NULL;
}

int main(int argc, char **argv)
{
	bool find = argc > 2 && strcmp(argv[1], "find") == 0;
	bool clean = argc > 2 && strcmp(argv[1], "clean") == 0;
	struct figures figures = {.count = argc > 2 ? strtoul(argv[2], NULL, 10) : 1};
	unsigned ticks = argc > 3 ? (unsigned)atoi(argv[3]) : 0;
	struct cprof_target *target = NULL;
	struct cprof_error *error;
	int status;

	if (argc < 2)
		return 2;
	figures.held_ns = calloc(figures.count + 1, sizeof(*figures.held_ns));
	error = cprof_target_create(atoi(argv[find || clean ? 2 : 1]), &target);
	if (!error)
		error = find || clean ? tell(target, clean)
				      : repeat(target, ticks, argc > 4, &figures);
	status = error ? (int)error->status : 0;
	if (error)
		cprof_error_print(error, stderr);
	cprof_error_destroy(error);
	cprof_target_destroy(target);
	free(figures.held_ns);
	return status;
}
