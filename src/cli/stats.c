/* SPDX-License-Identifier: MIT
 *
 * --stats: what a run did, as one JSON object.
 */
#include "private.h"

#include <cprof/outfile.h>
#include <jansson.h>
#include <string.h>
#include <sys/resource.h>

#define AGENT_KINDS (CPROF_KIND_HEAP | CPROF_KIND_MUTEX)

static void set_number(json_t *object, const char *key, uint64_t value)
{
	json_object_set_new(object, key, json_integer((json_int_t)CPROF_MIN(value, INT64_MAX)));
}

static void set_counts(json_t *object, const struct cprof_session_counts *counts)
{
	set_number(object, "samples", counts->samples);
	set_number(object, "lost", counts->lost);
	for (int end = 0; end < CPROF_ENDS; end++)
		set_number(object, cprof_end_name((enum cprof_end)end), counts->ends[end]);
	set_number(object, "frames", counts->frames);
}

/* The CPU time of the tracers, which have ended, is the profiler's too. */
static uint64_t children_cpu_ns(void)
{
	struct rusage usage;

	if (getrusage(RUSAGE_CHILDREN, &usage))
		return 0;
	return (uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000000 +
	       (uint64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1000;
}

/* What all kinds have. */
static json_t *build(const struct cprof_session_stats *stats, unsigned kinds)
{
	json_t *root = json_object(), *each = json_object();

	set_counts(root, &stats->all);
	set_number(root, "profiler_cpu_ns", cprof_own_cpu_ns() + children_cpu_ns());
	set_number(root, "profiler_rss_bytes", cprof_own_peak_rss());
	set_number(root, "duration_ns", stats->duration_ns);
	set_number(root, "threads", stats->threads);
	for (unsigned kind = 1; kind <= kinds; kind <<= 1) {
		json_t *counts;

		if (!(kinds & kind))
			continue;
		counts = json_object();
		set_counts(counts, cprof_kind_counts(stats, (enum cprof_kind)kind));
		json_object_set_new(each, cprof_kind_name((enum cprof_kind)kind), counts);
	}
	json_object_set_new(root, "kinds", each);
	return root;
}

static void add_perf(json_t *root, const struct cprof_perf_stats *perf)
{
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
}

static void add_block(json_t *root, const struct cprof_session_stats *stats)
{
	const struct cprof_block_stats *block = &stats->block;
	json_t *object = json_object();

	set_number(object, "switches", block->switches);
	json_object_set_new(object, "weight", json_real(block->weight));
	set_number(object, "preempted", block->preempted);
	set_number(object, "stacks", block->samples);
	set_number(object, "broken", block->broken);
	set_number(object, "unsure", block->unsure);
	set_number(object, "blocked_ns", block->blocked_ns);
	set_number(object, "runq_ns", block->runq_ns);
	set_number(object, "lost_records", stats->switches.lost_records);
	set_number(object, "stack_bytes", stats->switches.stack_bytes);
	json_object_set_new(root, "block", object);
}

static void add_births(json_t *root, const struct cprof_session_stats *stats)
{
	const struct cprof_session_counts *counts = &stats->births_counts;
	json_t *object = json_object();

	set_number(object, "created", counts->samples + counts->lost);
	set_number(object, "lost_records", stats->births.lost_records);
	set_number(object, "stack_bytes", stats->births.stack_bytes);
	json_object_set_new(root, "threadcreate", object);
}

/* Of dumps and of the agent together. */
static void add_stops(json_t *root, const struct cprof_session_stats *stats)
{
	const struct cprof_agent_stats *agent = &stats->agent;

	set_number(root, "stopped_ns_max",
		   CPROF_MAX(stats->dump_stopped_ns, agent->stopped_ns_max));
	set_number(root, "stopped_threads", CPROF_MAX(stats->dump.samples, agent->stopped_threads));
	set_number(root, "ptrace_stops", stats->dump_stops + agent->stops);
}

static void add_agent(json_t *object, const struct cprof_agent_stats *agent)
{
	set_number(object, "modules_covered", agent->modules_covered);
	set_number(object, "modules_bypassing", agent->modules_bypassing);
	set_number(object, "attach_stops", agent->attach_stops);
	set_number(object, "attach_stopped_ns", agent->attach_stopped_ns);
	json_object_set_new(object, "adopted", json_boolean(agent->adopted));
}

static void add_slots(json_t *root, const struct cprof_agent_stats *agent)
{
	set_number(root, "slots_patched", agent->slots_patched);
	set_number(root, "slots_restored", agent->slots_restored);
	set_number(root, "slots_left", agent->slots_left);
}

static void add_heap(json_t *root, const struct cprof_session_stats *stats)
{
	const struct cprof_agent_stats *agent = &stats->agent;
	const struct cprof_heap_stats *heap = &stats->heap;
	json_t *object = json_object();

	set_number(object, "rate", heap->rate);
	set_number(object, "allocs_seen", heap->samples);
	set_number(object, "frees_seen", heap->frees);
	set_number(object, "lost", heap->lost);
	set_number(object, "voided", heap->voided);
	set_number(object, "missed", heap->missed);
	set_number(object, "gaps", heap->gaps);
	set_number(object, "malformed", heap->malformed);
	set_number(object, "live_samples", heap->live_samples);
	json_object_set_new(object, "alloc_objects", json_real(heap->alloc_objects));
	json_object_set_new(object, "alloc_bytes", json_real(heap->alloc_bytes));
	json_object_set_new(object, "live_objects", json_real(heap->live_objects));
	json_object_set_new(object, "live_bytes", json_real(heap->live_bytes));
	if (stats->rss)
		set_number(object, "rss_bytes", stats->rss);
	add_agent(object, agent);
	json_object_set_new(root, "heap", object);
}

static void add_mutex(json_t *root, const struct cprof_session_stats *stats)
{
	const struct cprof_contention_stats *contention = &stats->contention;
	json_t *object = json_object();

	json_object_set_new(object, "contended", json_real(contention->contended));
	json_object_set_new(object, "delay_ns", json_real(contention->delay_ns));
	set_number(object, "timed", contention->timed);
	set_number(object, "locks", contention->locks);
	set_number(object, "lost", contention->lost);
	set_number(object, "malformed", contention->malformed);
	add_agent(object, &stats->agent);
	json_object_set_new(root, "mutex", object);
}

/* Takes `root` over. */
static struct cprof_error *write_json(json_t *root, const char *path)
{
	CPROF_AUTO_FREE char *text = json_dumps(root, JSON_INDENT(2));
	CPROF_AUTO_FREE char *line = NULL;
	int length = -1;

	json_decref(root);
	if (text)
		length = asprintf(&line, "%s\n", text);
	if (length < 0)
		return cprof_error_nomem();
	return cprof_outfile_write(path, line, (size_t)length);
}

struct cprof_error *cprof_stats_write(const struct cprof_session_stats *stats, unsigned kinds,
				      const char *path)
{
	json_t *root = build(stats, kinds);

	if (stats->unwind_ns)
		set_number(root, "unwind_ns", stats->unwind_ns);
	if (stats->symbolize_ns)
		set_number(root, "symbolize_ns", stats->symbolize_ns);
	if (stats->attach_ns)
		set_number(root, "attach_ns", stats->attach_ns);
	if (kinds & (CPROF_KIND_CPU | CPROF_KIND_CYCLES))
		add_perf(root, &stats->perf);
	else if (kinds & CPROF_KIND_BLOCK)
		add_perf(root, &stats->switches);
	else if (kinds & CPROF_KIND_THREADCREATE)
		add_perf(root, &stats->births);
	if (kinds & CPROF_KIND_BLOCK)
		add_block(root, stats);
	if (kinds & CPROF_KIND_THREADCREATE)
		add_births(root, stats);
	if (kinds & CPROF_KIND_HEAP)
		add_heap(root, stats);
	if (kinds & CPROF_KIND_MUTEX)
		add_mutex(root, stats);
	if (kinds & AGENT_KINDS)
		add_slots(root, &stats->agent);
	if (kinds & (CPROF_KIND_THREADS | CPROF_KIND_BLOCK | AGENT_KINDS))
		add_stops(root, stats);
	return write_json(root, path);
}
