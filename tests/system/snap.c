/* SPDX-License-Identifier: MIT
 *
 * snap PID COUNT [PAUSE_US]: takes snapshots one after another; prints the pauses as JSON.
 */
#include <cprof/attach.h>
#include <cprof/util.h>
#include <stdio.h>
#include <stdlib.h>

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a;
	uint64_t y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
	unsigned long count = argc > 2 ? strtoul(argv[2], NULL, 10) : 1;
	uint64_t *pauses = calloc(count, sizeof(*pauses));
	struct cprof_target *target;
	struct cprof_snapshot *snapshot = NULL;
	struct cprof_error *error = NULL;
	size_t threads = 0;
	size_t unstoppable = 0;
	size_t bytes = 0;
	unsigned long done = 0;
	uint64_t began = cprof_now_ns();

	if (argc < 2 || !pauses || cprof_target_create(atoi(argv[1]), &target))
		return 2;
	for (; done < count && !error; done++) {
		error = cprof_snapshot_take(target, NULL, &snapshot);
		if (error)
			break;
		pauses[done] = snapshot->stopped_ns;
		threads = snapshot->count;
		unstoppable += snapshot->unstoppable;
		bytes = 0;
		for (size_t i = 0; i < snapshot->count; i++)
			bytes += snapshot->threads[i].stack_length;
		cprof_snapshot_destroy(snapshot);
		if (argc > 3)
			usleep((useconds_t)atoi(argv[3]));
	}
	if (error)
		cprof_error_print(error, stderr);
	if (!done)
		return 1;
	qsort(pauses, done, sizeof(*pauses), compare);
	printf("{\"snapshots\":%lu,\"threads\":%zu,\"unstoppable\":%zu,\"stack_bytes\":%zu,"
	       "\"stopped_ms_p50\":%.2f,\"stopped_ms_p99\":%.2f,\"stopped_ms_max\":%.2f,"
	       "\"total_ms_each\":%.2f}\n",
	       done, threads, unstoppable, bytes, (double)pauses[done / 2] / 1e6,
	       (double)pauses[done * 99 / 100] / 1e6, (double)pauses[done - 1] / 1e6,
	       (double)(cprof_now_ns() - began) / 1e6 / (double)done);
	cprof_target_destroy(target);
	free(pauses);
	return error ? (int)error->status : 0;
}
