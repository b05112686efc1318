/* SPDX-License-Identifier: MIT
 *
 * What the verbs that take something share: the name of the file, and what is told on stderr.
 */
#include "private.h"

#include <cprof/outfile.h>
#include <stdarg.h>
#include <string.h>
#include <time.h>

#define BYPASS_TOLD 8 /* so many modules by name */

void cprof_note(const struct cprof_options *options, const char *format, ...)
{
	va_list arguments;

	if (options->quiet)
		return;
	fputs("cprof-attach: note: ", stderr);
	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	va_end(arguments);
	putc('\n', stderr);
}

struct cprof_error *cprof_output_name(const struct cprof_options *options, const char *kind,
				      pid_t pid, const char *comm, char **path)
{
	static const char *const extensions[] = {"pb.gz", "folded", "txt", "json"};
	struct cprof_outname name = {
		.event = kind,
		.comm = comm,
		.pid = pid,
		.wall_s = time(NULL),
		.extension = extensions[CPROF_MAX(options->format, 0)],
		.several = options->kinds & (options->kinds - 1),
	};

	if (options->output && !strcmp(options->output, "-")) {
		if (name.several)
			return cprof_usage_error(options->verb,
						 "-o -: several kinds cannot go to one place (name "
						 "the files with %%e)");
		*path = strdup("-");
		return *path ? NULL : cprof_error_nomem();
	}
	return cprof_outfile_name(options->output, &name, path);
}

/* "41 KB" */
static void format_size(size_t bytes, char *text, size_t size)
{
	if (bytes < 1024)
		snprintf(text, size, "%zu B", bytes);
	else if (bytes < 1024 * 1024)
		snprintf(text, size, "%zu KB", (bytes + 512) / 1024);
	else
		snprintf(text, size, "%.1f MB", (double)bytes / (1024 * 1024));
}

const struct cprof_session_counts *cprof_kind_counts(const struct cprof_session_stats *stats,
						     enum cprof_kind kind)
{
	if (kind == CPROF_KIND_HEAP)
		return &stats->heap_counts;
	if (kind == CPROF_KIND_MUTEX)
		return &stats->mutex_counts;
	if (kind == CPROF_KIND_BLOCK)
		return &stats->block_counts;
	if (kind == CPROF_KIND_THREADCREATE)
		return &stats->births_counts;
	return kind == CPROF_KIND_THREADS ? &stats->dump : &stats->cpu;
}

/* What lives is an estimate, of what was allocated since the attach. */
static void tell_live(const struct cprof_session_stats *stats)
{
	char live[32], rss[32];

	format_size((size_t)stats->heap.live_bytes, live, sizeof(live));
	format_size(stats->rss, rss, sizeof(rss));
	fprintf(stderr, "%s live since attach%s%s%s, %llu modules covered", live,
		stats->rss ? " of " : "", stats->rss ? rss : "", stats->rss ? " RSS" : "",
		(unsigned long long)stats->agent.modules_covered);
	if (stats->agent.modules_bypassing)
		fprintf(stderr, ", %llu bypassing",
			(unsigned long long)stats->agent.modules_bypassing);
}

static void tell_contention(const struct cprof_session_stats *stats)
{
	const struct cprof_contention_stats *contention = &stats->contention;

	fprintf(stderr, "%.0f contentions, %.3g s waited, %llu locks, %llu modules covered",
		contention->contended, contention->delay_ns / 1e9,
		(unsigned long long)contention->locks,
		(unsigned long long)stats->agent.modules_covered);
	if (stats->agent.modules_bypassing)
		fprintf(stderr, ", %llu bypassing",
			(unsigned long long)stats->agent.modules_bypassing);
}

void cprof_tell_result(const struct cprof_result *result, const struct cprof_session_stats *stats)
{
	const struct cprof_session_counts *counts = cprof_kind_counts(stats, result->kind);
	/* Rounded down: 100.0% means all. */
	uint64_t tenths =
		counts->samples ? counts->ends[CPROF_END_COMPLETE] * 1000 / counts->samples : 1000;
	CPROF_AUTO_FREE char *shown =
		cprof_text_clean_dup(strcmp(result->path, "-") ? result->path : "stdout");
	char size[32];

	format_size(result->length, size, sizeof(size));
	fprintf(stderr, "%s: %llu samples, %llu lost, %llu.%llu%% complete stacks, ",
		cprof_kind_name(result->kind), (unsigned long long)counts->samples,
		(unsigned long long)counts->lost, (unsigned long long)tenths / 10,
		(unsigned long long)tenths % 10);
	if (result->kind == CPROF_KIND_HEAP)
		tell_live(stats);
	else if (result->kind == CPROF_KIND_MUTEX)
		tell_contention(stats);
	else if (result->kind == CPROF_KIND_BLOCK)
		fprintf(stderr, "%llu switches, %llu threads",
			(unsigned long long)stats->block.switches,
			(unsigned long long)result->threads);
	else
		fprintf(stderr, "%llu threads", (unsigned long long)result->threads);
	fprintf(stderr, ", %.1f s -> %s (%s)\n", (double)stats->duration_ns / 1e9,
		shown ? shown : "?", size);
}

void cprof_tell_block(const struct cprof_options *options, const struct cprof_session_stats *stats)
{
	const struct cprof_perf_stats *perf = &stats->switches;

	if (stats->block_problem[0])
		cprof_note(options, "block: threads that sleep throughout have no stack: %s",
			   stats->block_problem);
	if (stats->block.unsure)
		cprof_note(options,
			   "block: %llu waits may not have been whole: %llu switch records were "
			   "lost",
			   (unsigned long long)stats->block.unsure,
			   (unsigned long long)perf->lost_records);
	if (options->verbose)
		cprof_note(options, "block: switches %s%s%s%s, %u bytes of stack a sample",
			   cprof_perf_way_name(perf->way), perf->way_reason ? " (" : "",
			   perf->way_reason ? perf->way_reason : "", perf->way_reason ? ")" : "",
			   perf->stack_bytes);
}

void cprof_tell_births(const struct cprof_options *options, const struct cprof_session_stats *stats)
{
	const struct cprof_perf_stats *perf = &stats->births;

	if (perf->lost_records)
		cprof_note(options,
			   "threadcreate: %llu records were lost: some threads may have been "
			   "created that are not told of",
			   (unsigned long long)perf->lost_records);
	if (options->verbose)
		cprof_note(options, "threadcreate: %s%s%s%s, %u bytes of stack a sample",
			   cprof_perf_way_name(perf->way), perf->way_reason ? " (" : "",
			   perf->way_reason ? perf->way_reason : "", perf->way_reason ? ")" : "",
			   perf->stack_bytes);
}

struct bypass {
	const struct cprof_options *options;
	const char *what;
	size_t told;
	size_t more;
};

static void tell_bypass(void *context, const struct cprof_agent_module *module)
{
	struct bypass *bypass = context;

	if (module->cover != CPROF_AGENT_COVER_BYPASS)
		return;
	if (bypass->told == BYPASS_TOLD) {
		bypass->more++;
		return;
	}
	bypass->told++;
	cprof_note(bypass->options, "%s: not all of %s is seen: it %s", bypass->what, module->path,
		   module->reason ? module->reason : "works by other means");
}

/* How it left, or why it did not stay. */
static void tell_end(const struct cprof_options *options, const char *what,
		     const struct cprof_session_stats *stats)
{
	const char *hint = options->verb->bit == CPROF_VERB_RUN
				   ? ": name the program, not what starts it"
				   : "";

	if (stats->agent_ended)
		cprof_note(options, "%s: ended after %.1f s%s: %s%s", what,
			   (double)stats->agent_ns / 1e9,
			   stats->heap.rate ? ", what was live is unknown" : "",
			   stats->agent_problem, hint);
	else if (stats->agent_name[1][0])
		cprof_note(options,
			   "%s: begun as %s, it ended as %s: what a program that it became by exec "
			   "did is not in the profile%s",
			   what, stats->agent_name[0], stats->agent_name[1], hint);
	else if (stats->agent_problem[0])
		cprof_note(options, "%s: something may be left in the process: %s (see detach)",
			   what, stats->agent_problem);
}

static void tell_heap(const struct cprof_options *options, const struct cprof_session_stats *stats)
{
	const struct cprof_heap_stats *heap = &stats->heap;
	uint64_t asked = options->heap_rate ? options->heap_rate : CPROF_HEAP_RATE_DEFAULT;

	if (heap->gaps && !stats->agent_ended)
		cprof_note(options,
			   "heap: the hooks were silent %llu times (this profiler was stopped): "
			   "what was live before is unknown",
			   (unsigned long long)heap->gaps);
	if (heap->rate > asked)
		cprof_note(options, "heap: too many samples: one every %llu KB by now",
			   (unsigned long long)heap->rate / 1024);
}

void cprof_tell_agent(const struct cprof_options *options, struct cprof_session *session,
		      unsigned kinds, const struct cprof_session_stats *stats)
{
	const char *what = !(kinds & CPROF_KIND_HEAP)    ? "mutex"
			   : !(kinds & CPROF_KIND_MUTEX) ? "heap"
							 : "heap, mutex";
	const struct cprof_agent_stats *agent = &stats->agent;
	struct bypass bypass = {.options = options, .what = what};

	cprof_session_agent_modules(session, tell_bypass, &bypass);
	if (bypass.more)
		cprof_note(options, "%s: nor of %zu more modules", what, bypass.more);
	tell_end(options, what, stats);
	if (kinds & CPROF_KIND_HEAP)
		tell_heap(options, stats);
	if (options->verbose)
		cprof_note(options,
			   "%s: %llu slots patched, %llu restored; a thread was held for %.2f "
			   "ms, %llu stops",
			   what, (unsigned long long)agent->slots_patched,
			   (unsigned long long)agent->slots_restored,
			   (double)agent->stopped_ns_max / 1e6, (unsigned long long)agent->stops);
}
