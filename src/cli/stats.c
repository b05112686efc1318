/* SPDX-License-Identifier: MIT
 *
 * --stats: what a run did, as one JSON object.
 */
#include "private.h"

#include <cprof/outfile.h>
#include <jansson.h>
#include <string.h>

static void set_number(json_t *object, const char *key, uint64_t value)
{
	json_object_set_new(object, key, json_integer((json_int_t)CPROF_MIN(value, INT64_MAX)));
}

static void set_counts(json_t *object, const struct cprof_session_stats *stats)
{
	set_number(object, "samples", stats->samples);
	set_number(object, "lost", stats->lost);
	for (int end = 0; end < CPROF_ENDS; end++)
		set_number(object, cprof_end_name((enum cprof_end)end), stats->ends[end]);
	set_number(object, "frames", stats->frames);
}

static json_t *build(const struct cprof_session_stats *stats, const char *kind)
{
	json_t *root = json_object(), *kinds = json_object(), *counts = json_object();
	const struct cprof_perf_stats *perf = &stats->perf;

	set_counts(root, stats);
	set_number(root, "unwind_ns", stats->unwind_ns);
	set_number(root, "symbolize_ns", stats->symbolize_ns);
	set_number(root, "profiler_cpu_ns", cprof_own_cpu_ns());
	set_number(root, "profiler_rss_bytes", cprof_own_peak_rss());
	set_number(root, "duration_ns", stats->duration_ns);
	set_number(root, "threads", stats->threads);
	if (stats->attach_ns)
		set_number(root, "attach_ns", stats->attach_ns);
	json_object_set_new(root, "sampling", json_string(cprof_perf_way_name(perf->way)));
	if (perf->way_reason)
		json_object_set_new(root, "sampling_reason", json_string(perf->way_reason));
	if (perf->clock)
		json_object_set_new(root, "clock", json_string(perf->clock));
	json_object_set_new(root, "kernel", json_boolean(perf->kernel));
	set_number(root, "period", perf->period);
	set_number(root, "lost_records", perf->lost_records);
	set_number(root, "malformed", perf->malformed);
	set_number(root, "stack_bytes", perf->stack_bytes);
	set_number(root, "events", perf->events);
	set_number(root, "ring_bytes", perf->ring_bytes);
	set_counts(counts, stats);
	json_object_set_new(kinds, kind, counts);
	json_object_set_new(root, "kinds", kinds);
	return root;
}

struct cprof_error *cprof_stats_write(const struct cprof_session_stats *stats, const char *kind,
				      const char *path)
{
	CPROF_AUTO_FREE char *text = NULL;
	CPROF_AUTO_FREE char *line = NULL;
	json_t *root = build(stats, kind);
	int length = -1;

	text = json_dumps(root, JSON_INDENT(2));
	json_decref(root);
	if (text)
		length = asprintf(&line, "%s\n", text);
	if (length < 0)
		return cprof_error_nomem();
	return cprof_outfile_write(path, line, (size_t)length);
}
