/* SPDX-License-Identifier: MIT
 *
 * `memtrace`: one line an interval about a process's memory, and warnings.
 */
#include "private.h"

#include <cprof/attach.h>
#include <cprof/memtrace.h>
#include <cprof/outfile.h>

#define DEFAULT_INTERVAL_NS 1000000000ull

struct tracing {
	const struct cprof_options *options;
	struct cprof_session *session;
	struct cprof_memtrace *memtrace;
	uint64_t started_ns; /* when sampling began */
	bool heap;           /* an agent tells of allocations */
};

/* --- lines --------------------------------------------------------------------------------- */

/* Open for signals: a pipe may have no reader. What a Ctrl-C cuts off is no failure. */
static struct cprof_error *write_line(const struct cprof_memtrace_line *line)
{
	CPROF_AUTO_FREE char *text = NULL;
	struct cprof_error *error;
	size_t length;
	FILE *out = open_memstream(&text, &length);

	if (!out)
		return cprof_error_nomem();
	error = cprof_report_memtrace(line, out);
	if (fclose(out) && !error)
		error = cprof_error_nomem();
	CPROF_TRY(error);
	cprof_signals_open(false);
	error = cprof_outfile_write("-", text, length);
	cprof_signals_close();
	if (error && cprof_signals_stopped()) {
		cprof_error_destroy(error);
		return NULL;
	}
	return error;
}

static void write_warnings(const struct tracing *tracing, const struct cprof_memtrace_line *line,
			   unsigned warnings)
{
	for (unsigned bit = 1; bit <= warnings; bit <<= 1) {
		if (!(warnings & bit) || tracing->options->quiet)
			continue;
		fputs("cprof-attach: warning: ", stderr);
		cprof_error_destroy(cprof_report_memtrace_warning(line, bit, stderr));
	}
}

/* What the session says now; an agent that is lost on the way is told of once. */
static void read_stats(struct tracing *tracing, struct cprof_session_stats *stats)
{
	cprof_session_stats(tracing->session, stats);
	if (!tracing->heap || !stats->agent_ended)
		return;
	tracing->heap = false;
	cprof_note(tracing->options, "allocations are no longer seen: %s", stats->agent_problem);
}

static struct cprof_error *trace_interval(struct tracing *tracing)
{
	struct cprof_source *source = cprof_session_source(tracing->session);
	struct cprof_memtrace_process process;
	struct cprof_session_stats stats;
	struct cprof_memtrace_line line;
	struct cprof_profile *profile;
	struct cprof_error *error;
	uint64_t now = cprof_now_ns();
	unsigned warnings;

	cprof_memtrace_process(cprof_session_target(tracing->session), &process);
	cprof_signals_open(true); /* naming a big program for the first time takes a while */
	error = source->ops->snapshot(source, "cpu", &profile);
	cprof_signals_close();
	CPROF_TRY(error);
	read_stats(tracing, &stats);
	error = cprof_memtrace_step(tracing->memtrace, now, profile,
				    tracing->heap ? &stats.heap : NULL, &process, &line, &warnings);
	cprof_profile_destroy(profile);
	CPROF_TRY(error);
	line.kernel_unknown = !stats.perf.kernel || stats.kernel_unnamed;
	CPROF_TRY(write_line(&line));
	write_warnings(tracing, &line, warnings);
	return NULL;
}

/* Until there are enough lines, the target ends (with a last, shorter interval), or a signal. */
static struct cprof_error *trace(struct tracing *tracing)
{
	const struct cprof_options *options = tracing->options;
	uint64_t interval = options->interval_ns ? options->interval_ns : DEFAULT_INTERVAL_NS;
	uint64_t next = tracing->started_ns + interval;
	uint64_t lines = 0;

	while (!cprof_signals_stopped() && (!options->lines || lines < options->lines)) {
		bool ended = cprof_signals_poll(cprof_session_ended_fd(tracing->session), next);
		uint64_t now = cprof_now_ns();

		if (cprof_signals_stopped() || (!ended && now < next))
			continue;
		if (ended)
			cprof_session_stop(tracing->session); /* takes in what is left */
		CPROF_TRY(trace_interval(tracing));
		lines++;
		if (ended)
			return NULL;
		/* Lines that are late do not move those that follow. */
		now = cprof_now_ns();
		next += interval * (1 + (now > next ? (now - next) / interval : 0));
	}
	return NULL;
}

/* --- a session ----------------------------------------------------------------------------- */

static struct cprof_error *open_session(struct tracing *tracing, pid_t pid, bool await_exec)
{
	const struct cprof_options *options = tracing->options;
	struct cprof_session_config config = {
		.pid = pid,
		.kinds = CPROF_KIND_CPU | (tracing->heap ? CPROF_KIND_HEAP : 0),
		.heap_rate = options->heap_rate,
		.rate = (unsigned)options->rate,
		.debug_dir = options->debug_dir,
		.started_ns = cprof_now_ns(),
		.no_inlines = true, /* symbols are enough to know an allocator */
		.no_lines = true,
		.await_exec = await_exec,
	};
	struct cprof_error *error = cprof_session_create(&config, &tracing->session);

	if (!error)
		error = cprof_session_start(tracing->session);
	if (error) {
		cprof_session_destroy(tracing->session);
		tracing->session = NULL;
	}
	return error;
}

/* Lines are wanted all the more where no agent can be put in; the rule is told. Frees `error`. */
static void go_without_heap(struct tracing *tracing, struct cprof_error *error)
{
	tracing->heap = false;
	cprof_note(tracing->options, "allocations are not seen: %s%s%s%s", error->message,
		   error->remedy ? " (" : "", error->remedy ? error->remedy : "",
		   error->remedy ? ")" : "");
	cprof_error_destroy(error);
}

static struct cprof_error *begin(struct tracing *tracing, pid_t pid, bool await_exec)
{
	struct cprof_memtrace_config config = {
		.leak_threads = tracing->options->leak_threads,
		.leak_bytes = tracing->options->leak_bytes,
	};
	struct cprof_error *refused;
	struct cprof_error *error;

	tracing->heap = !tracing->options->no_inject;
	error = open_session(tracing, pid, await_exec);
	if (error && tracing->heap && error->status != CPROF_NO_PROCESS) {
		refused = error;
		tracing->heap = false;
		error = open_session(tracing, pid, await_exec);
		if (error)
			cprof_error_destroy(refused);
		else
			go_without_heap(tracing, refused);
	}
	CPROF_TRY(error);
	tracing->started_ns = config.started_ns = cprof_now_ns();
	return cprof_memtrace_create(&config, &tracing->memtrace);
}

/* Lets the command go; if allocations are wanted, with an agent that is planted at its entry
 * point. */
static struct cprof_error *release(struct tracing *tracing, struct cprof_command *command,
				   int *status)
{
	const char *name = tracing->options->arguments[0];
	struct cprof_entry *entry = NULL;
	struct cprof_error *refused = NULL;
	struct cprof_error *error;

	if (tracing->heap)
		refused = cprof_entry_create(command->pid, &entry);
	error = cprof_command_release(command, name, status);
	if (!error && entry) {
		refused = cprof_entry_wait(entry);
		if (!refused)
			refused = cprof_session_plant(tracing->session, entry);
	}
	cprof_entry_destroy(entry);
	if (refused)
		go_without_heap(tracing, refused);
	return error;
}

static void end(struct tracing *tracing)
{
	cprof_session_destroy(tracing->session);
	cprof_memtrace_destroy(tracing->memtrace);
}

static struct cprof_error *trace_process(struct tracing *tracing)
{
	const struct cprof_options *options = tracing->options;
	const struct cprof_target_info *info;
	struct cprof_session_stats stats;

	CPROF_TRY(begin(tracing, options->pid, false));
	info = cprof_target_info(cprof_session_target(tracing->session));
	if (info->pid != options->pid)
		cprof_note(options, "%d is a thread of process %d, which is traced",
			   (int)options->pid, (int)info->pid);
	CPROF_TRY(trace(tracing));
	cprof_session_stop(tracing->session);
	cprof_session_stats(tracing->session, &stats);
	if (stats.target_ended)
		cprof_note(options, "process %d ended by itself", (int)info->pid);
	if (stats.target_stopped)
		cprof_note(options, "process %d is stopped (SIGSTOP or Ctrl-Z)", (int)info->pid);
	return NULL;
}

static struct cprof_error *trace_command(struct tracing *tracing, int *status)
{
	struct cprof_command command = {.go = -1, .failed = -1};
	struct cprof_error *error;

	CPROF_TRY(cprof_command_start(tracing->options->arguments, &command));
	cprof_signals_forward(command.pid);
	error = begin(tracing, command.pid, true);
	if (error) {
		cprof_command_await(&command); /* it was not released: it exits */
		return error;
	}
	error = release(tracing, &command, status);
	if (error) {
		cprof_command_await(&command);
		return error;
	}
	error = trace(tracing);
	cprof_session_stop(tracing->session);
	*status = cprof_command_await(&command);
	return error;
}

struct cprof_error *cprof_verb_memtrace(const struct cprof_options *options, int *status)
{
	CPROF_CLEANUP(end) struct tracing tracing = {.options = options};

	*status = CPROF_OK;
	if (options->pid && options->argument_count)
		return cprof_usage_error(options->verb,
					 "memtrace: either -p or a command, not both");
	if (!options->pid && (!options->argument_count || !*options->arguments[0]))
		return cprof_usage_error(options->verb,
					 "memtrace: which process? neither -p nor a command");
	cprof_signals_init();
	if (options->pid)
		return trace_process(&tracing);
	return trace_command(&tracing, status);
}
