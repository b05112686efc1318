/* SPDX-License-Identifier: MIT
 *
 * Taking a profile: the part that `record` and `run` share, and `record`.
 */
#include "private.h"

#include <cprof/outfile.h>
#include <string.h>

#define DEFAULT_DURATION_NS (30 * 1000000000ull) /* as Go's /debug/pprof/profile */
#define PROGRESS_NS         500000000ull

unsigned cprof_kinds(const struct cprof_options *options)
{
	return options->kinds ? options->kinds : CPROF_KIND_CPU;
}

/* For the loops over all kinds: the next one after `kind` (0: the first), 0 at the end. */
static enum cprof_kind next_kind(const struct cprof_recording *recording, unsigned kind)
{
	unsigned rest = recording->kinds & ~((kind << 1) - (kind != 0));

	return (enum cprof_kind)(rest & -rest);
}

static struct cprof_error *output_path(const struct cprof_recording *recording,
				       enum cprof_kind kind, char **path)
{
	return cprof_output_name(recording->options, cprof_kind_name(kind), recording->pid,
				 recording->comm, path);
}

struct cprof_error *cprof_recording_check(const struct cprof_recording *recording)
{
	const struct cprof_options *options = recording->options;

	for (enum cprof_kind kind = next_kind(recording, 0); kind;
	     kind = next_kind(recording, kind)) {
		CPROF_AUTO_FREE char *path = NULL;

		CPROF_TRY(output_path(recording, kind, &path));
		if (!strcmp(path, "-") && options->snapshot_ns)
			return cprof_usage_error(options->verb,
						 "--snapshot-every: needs a file, not -o -");
		CPROF_TRY(cprof_outfile_check(path));
	}
	return options->stats ? cprof_outfile_check(options->stats) : NULL;
}

struct cprof_error *cprof_recording_create_session(struct cprof_recording *recording,
						   uint64_t started_ns)
{
	const struct cprof_options *options = recording->options;
	struct cprof_session_config config = {
		.pid = recording->pid,
		.kinds = recording->kinds,
		.rate = (unsigned)options->rate,
		.heap_rate = options->heap_rate,
		.block_rate = (unsigned)options->block_rate,
		.mutex_rate = (uint32_t)options->mutex_rate,
		.mutex_waiters = options->mutex_side == CPROF_CONTENTION_WAITER,
		.block_min_ns = options->block_min_ns,
		.way = (enum cprof_perf_way)options->way,
		.unwinder = options->unwinder,
		.threads = options->threads,
		.debug_dir = options->debug_dir,
		.started_ns = started_ns,
		.no_kernel = options->no_kernel,
		.no_inlines = options->no_inlines,
		.no_lines = options->no_lines,
		.await_exec = recording->await_exec,
	};
	struct cprof_error *error = cprof_session_create(&config, &recording->session);

	if (!error)
		error = cprof_session_start(recording->session);
	if (error) {
		cprof_session_destroy(recording->session);
		recording->session = NULL;
	}
	return error;
}

static void tell_perf_notes(const struct cprof_recording *recording,
			    const struct cprof_session_stats *stats)
{
	const struct cprof_options *options = recording->options;
	uint64_t seen_ns = stats->cpu.samples * stats->perf.period;

	if (stats->kernel_unnamed)
		cprof_note(options, "kernel functions have no names: their addresses are hidden "
				    "(kernel.kptr_restrict)");
	if (stats->unseen_ns > seen_ns / 10)
		cprof_note(options,
			   "%.1f s of CPU time could not be sampled: in threads of less than a "
			   "period, while interrupts were off, in the kernel without permission, "
			   "or in a program with privileges",
			   (double)stats->unseen_ns / 1e9);
	if (options->verbose)
		cprof_note(options, "sampling %s%s%s%s, clock %s, %u KB of stack a sample",
			   cprof_perf_way_name(stats->perf.way), stats->perf.way_reason ? " (" : "",
			   stats->perf.way_reason ? stats->perf.way_reason : "",
			   stats->perf.way_reason ? ")" : "",
			   stats->perf.clock ? stats->perf.clock : "?",
			   stats->perf.stack_bytes / 1024);
}

static void tell_notes(const struct cprof_recording *recording,
		       const struct cprof_session_stats *stats)
{
	const struct cprof_options *options = recording->options;
	unsigned kinds = recording->kinds;

	if (stats->target_ended && !recording->await_exec)
		cprof_note(options, "process %d ended by itself", (int)recording->pid);
	if (stats->target_stopped && kinds != CPROF_KIND_THREADS)
		cprof_note(
			options,
			"process %d is stopped (SIGSTOP or Ctrl-Z): it uses no CPU until SIGCONT",
			(int)recording->pid);
	if (options->threads && *options->threads && !stats->filter_matched)
		cprof_note(options, "no thread has a name or number asked for by --thread");
	if (options->verbose && stats->attach_ns)
		cprof_note(options, "first data after %.1f ms", (double)stats->attach_ns / 1e6);
	if (kinds & (CPROF_KIND_CPU | CPROF_KIND_CYCLES))
		tell_perf_notes(recording, stats);
	if (kinds & CPROF_KIND_BLOCK)
		cprof_tell_block(options, stats);
	if (kinds & CPROF_KIND_THREADCREATE)
		cprof_tell_births(options, stats);
	if (kinds & (CPROF_KIND_HEAP | CPROF_KIND_MUTEX))
		cprof_tell_agent(options, recording->session, kinds, stats);
	if (kinds & CPROF_KIND_THREADS && options->verbose)
		cprof_note(options, "held for %.1f ms, %llu stops",
			   (double)stats->dump_stopped_ns / 1e6,
			   (unsigned long long)stats->dump_stops);
}

/* --- writing ------------------------------------------------------------------------------- */

static struct cprof_error *format_kind(struct cprof_recording *recording,
				       struct cprof_result *result, void **bytes)
{
	struct cprof_source *source = cprof_session_source(recording->session);
	const struct cprof_options *options = recording->options;
	enum cprof_format format = (enum cprof_format)CPROF_MAX(options->format, 0);
	const struct cprof_report_options report = {0};
	struct cprof_profile *profile;
	struct cprof_dump *dump;
	struct cprof_error *error;

	if (result->kind == CPROF_KIND_THREADS) {
		CPROF_TRY(cprof_session_dump(recording->session, &dump));
		result->threads = dump->count;
		error = cprof_format_dump(dump, NULL, options, format, result->path, bytes,
					  &result->length);
		cprof_dump_destroy(dump);
		return error;
	}
	CPROF_TRY(source->ops->snapshot(source, cprof_kind_name(result->kind), &profile));
	error = cprof_format_profile(profile, format, &report, bytes, &result->length);
	cprof_profile_destroy(profile);
	return error;
}

static struct cprof_error *write_kind(struct cprof_recording *recording, enum cprof_kind kind,
				      bool last)
{
	struct cprof_result result = {.kind = kind};
	struct cprof_session_stats stats;
	CPROF_AUTO_FREE void *bytes = NULL;
	CPROF_AUTO_FREE char *path = NULL;
	struct cprof_error *error;

	CPROF_TRY(output_path(recording, kind, &path));
	result.path = path;
	if (last)
		cprof_signals_open(true); /* nothing is attached any more */
	error = format_kind(recording, &result, &bytes);
	if (last)
		cprof_signals_close();
	CPROF_TRY(error);
	cprof_signals_open(false); /* not in the middle of a temporary file */
	error = cprof_outfile_write(path, bytes, result.length);
	cprof_signals_close();
	CPROF_TRY(error);
	if (recording->options->quiet)
		return NULL;
	cprof_session_stats(recording->session, &stats);
	if (kind != CPROF_KIND_THREADS)
		result.threads = stats.threads;
	cprof_tell_result(&result, &stats);
	return NULL;
}

/* Names what was collected so far and writes it. Open for signals: naming a big program takes a
 * while, and a FIFO may have no reader. What goes wrong with one kind does not take the others
 * with it. */
static struct cprof_error *write_profiles(struct cprof_recording *recording, bool last)
{
	struct cprof_error *first = NULL;

	for (enum cprof_kind kind = next_kind(recording, 0); kind;
	     kind = next_kind(recording, kind)) {
		struct cprof_error *error = write_kind(recording, kind, last);

		if (error && error->status == CPROF_NO_PROCESS &&
		    recording->kinds != CPROF_KIND_THREADS) {
			cprof_note(recording->options, "no dump of threads: process %d has ended",
				   (int)recording->pid);
			cprof_error_destroy(cprof_take(error));
		}
		if (!error)
			continue;
		if (first)
			cprof_error_print(first, stderr);
		cprof_error_destroy(first);
		first = error;
	}
	return first;
}

static void show_progress(const struct cprof_recording *recording, bool clear)
{
	struct cprof_session_stats stats;

	if (recording->options->quiet || !isatty(STDERR_FILENO))
		return;
	fputs("\r\033[K", stderr);
	if (clear)
		return;
	cprof_session_stats(recording->session, &stats);
	for (enum cprof_kind kind = next_kind(recording, 0); kind;
	     kind = next_kind(recording, kind)) {
		const struct cprof_session_counts *counts = cprof_kind_counts(&stats, kind);

		if (kind != CPROF_KIND_THREADS)
			fprintf(stderr, "%s: %llu samples, %llu lost, ", cprof_kind_name(kind),
				(unsigned long long)counts->samples,
				(unsigned long long)counts->lost);
	}
	fprintf(stderr, "%.0f s", (double)stats.duration_ns / 1e9);
}

/* Until the time is over, the target ends, or a signal says so. */
static struct cprof_error *wait_for_end(struct cprof_recording *recording)
{
	uint64_t now = cprof_now_ns(), every = recording->options->snapshot_ns;
	uint64_t end = UINT64_MAX, snapshot = every ? now + every : UINT64_MAX;
	bool terminal = isatty(STDERR_FILENO);

	if (recording->duration_ns)
		end = now + recording->duration_ns;
	while (!cprof_signals_stopped() && now < end) {
		uint64_t wake = CPROF_MIN(end, snapshot);

		if (terminal)
			wake = CPROF_MIN(wake, now + PROGRESS_NS);
		if (cprof_signals_poll(cprof_session_ended_fd(recording->session), wake))
			return NULL;
		now = cprof_now_ns();
		if (now >= snapshot || cprof_signals_take_snapshot()) {
			show_progress(recording, true);
			CPROF_TRY(write_profiles(recording, false));
			now = cprof_now_ns();
			while (snapshot <= now && every)
				snapshot += every;
		}
		show_progress(recording, false);
	}
	return NULL;
}

struct cprof_error *cprof_recording_finish(struct cprof_recording *recording)
{
	struct cprof_session_stats stats;
	struct cprof_error *error = wait_for_end(recording);

	cprof_session_stop(recording->session);
	show_progress(recording, true);
	CPROF_TRY(error);
	cprof_session_stats(recording->session, &stats);
	if (stats.target_ended)
		cprof_signals_forward(0); /* a command of ours is over: Ctrl-C is for us */
	error = write_profiles(recording, true);
	cprof_session_stats(recording->session, &stats); /* naming has been added */
	tell_notes(recording, &stats);
	CPROF_TRY(error);
	return recording->options->stats
		       ? cprof_stats_write(&stats, recording->kinds, recording->options->stats)
		       : NULL;
}

/* Who the process is, for the file's name. */
static struct cprof_error *identify(struct cprof_recording *recording)
{
	const struct cprof_target_info *info;
	struct cprof_target *target;

	CPROF_TRY(cprof_target_create(recording->pid, &target));
	info = cprof_target_info(target);
	if (info->pid != recording->pid)
		cprof_note(recording->options, "%d is a thread of process %d, which is profiled",
			   (int)recording->pid, (int)info->pid);
	recording->pid = info->pid;
	snprintf(recording->comm, sizeof(recording->comm), "%s", info->comm);
	cprof_target_destroy(target);
	return NULL;
}

struct cprof_error *cprof_verb_record(const struct cprof_options *options, int *status)
{
	struct cprof_recording recording = {
		.options = options, .kinds = cprof_kinds(options), .pid = options->pid};
	uint64_t started_ns = cprof_now_ns();
	struct cprof_error *error;

	*status = CPROF_OK;
	if (!options->pid)
		return cprof_usage_error(options->verb, "record: which process? -p is missing");
	if (options->argument_count)
		return cprof_usage_error(options->verb, "record: what is `%s`?",
					 options->arguments[0]);
	recording.duration_ns = options->duration_ns == CPROF_DURATION_DEFAULT
					? DEFAULT_DURATION_NS
					: options->duration_ns;
	CPROF_TRY(identify(&recording));
	CPROF_TRY(cprof_recording_check(&recording));
	cprof_signals_init();
	CPROF_TRY(cprof_recording_create_session(&recording, started_ns));
	error = cprof_recording_finish(&recording);
	cprof_session_destroy(recording.session);
	return error;
}
