/* SPDX-License-Identifier: MIT
 *
 * `threads`: one dump, or two to see who has not moved.
 */
#include "private.h"

#include <cprof/outfile.h>
#include <string.h>

struct dumping {
	const struct cprof_options *options;
	struct cprof_target *target;
	struct cprof_dump *dump;    /* the last one */
	struct cprof_dump *earlier; /* --watch: the first of two; NULL */
	uint64_t started_ns;
	uint64_t stopped_ns; /* longest */
	uint64_t stops;
	enum cprof_format format;
};

static void dumping_deinit(struct dumping *dumping)
{
	cprof_dump_destroy(dumping->dump);
	cprof_dump_destroy(dumping->earlier);
	cprof_target_destroy(dumping->target);
}

static struct cprof_error *open_target(struct dumping *dumping)
{
	const struct cprof_options *options = dumping->options;
	const struct cprof_target_info *info;

	if (!options->pid)
		return cprof_usage_error(options->verb, "%s: which process? -p is missing",
					 options->verb->name);
	if (options->argument_count)
		return cprof_usage_error(options->verb, "%s: what is `%s`?", options->verb->name,
					 options->arguments[0]);
	CPROF_TRY(cprof_target_create(options->pid, &dumping->target));
	info = cprof_target_info(dumping->target);
	if (info->pid != options->pid)
		cprof_note(options, "%d is a thread of process %d, whose threads are dumped",
			   (int)options->pid, (int)info->pid);
	return NULL;
}

/* Text and JSON go to stdout if nothing else is asked for, files are for profiles. */
static struct cprof_error *output_path(const struct dumping *dumping, char **path)
{
	const struct cprof_target_info *info = cprof_target_info(dumping->target);
	struct cprof_options options = *dumping->options;

	options.format = (int)dumping->format;
	if (!options.output && options.verb->bit == CPROF_VERB_THREADS &&
	    dumping->format != CPROF_FORMAT_PPROF)
		options.output = "-";
	return cprof_output_name(&options, "threads", info->pid, info->comm, path);
}

static struct cprof_error *check_outputs(const struct dumping *dumping)
{
	CPROF_AUTO_FREE char *path = NULL;

	CPROF_TRY(output_path(dumping, &path));
	CPROF_TRY(cprof_outfile_check(path));
	return dumping->options->stats ? cprof_outfile_check(dumping->options->stats) : NULL;
}

/* --- taking -------------------------------------------------------------------------------- */

static struct cprof_error *take(struct dumping *dumping, struct cprof_dump **dump)
{
	const struct cprof_options *options = dumping->options;
	const struct cprof_dump_options how = {
		.threads = options->threads,
		.debug_dir = options->debug_dir,
		.no_inlines = options->no_inlines,
		.no_lines = options->no_lines,
	};
	struct cprof_error *error;

	cprof_signals_open(true); /* naming a big program takes a while */
	error = cprof_dump_take(dumping->target, &how, dump);
	cprof_signals_close();
	CPROF_TRY(error);
	dumping->stops += (*dump)->stops;
	dumping->stopped_ns = CPROF_MAX(dumping->stopped_ns, (*dump)->stopped_ns);
	return NULL;
}

/* Until the time (0: no limit) is over, a signal, or the target's end. */
static void wait_for(const struct dumping *dumping, uint64_t ns)
{
	uint64_t end = ns ? cprof_now_ns() + ns : UINT64_MAX;

	while (!cprof_signals_stopped() && cprof_now_ns() < end)
		if (cprof_signals_poll(cprof_target_pidfd(dumping->target), end))
			return;
}

/* The first dump is what there is, if the process ends before the second. */
static struct cprof_error *take_all(struct dumping *dumping)
{
	struct cprof_error *error;

	CPROF_TRY(take(dumping, &dumping->dump));
	if (!dumping->options->watch_ns)
		return NULL;
	wait_for(dumping, dumping->options->watch_ns);
	dumping->earlier = cprof_take(dumping->dump);
	error = take(dumping, &dumping->dump);
	if (!error || error->status != CPROF_NO_PROCESS)
		return error;
	cprof_error_destroy(error);
	dumping->dump = cprof_take(dumping->earlier);
	cprof_note(dumping->options, "process %d ended by itself: this is the first of two dumps",
		   (int)dumping->dump->pid);
	return NULL;
}

/* --- writing ------------------------------------------------------------------------------- */

static bool want_color(const struct cprof_options *options, const char *path)
{
	const char *no_color = getenv("NO_COLOR");

	if (options->color) /* as `colors` in options.c: auto, always, never */
		return options->color == 1;
	return !strcmp(path, "-") && isatty(STDOUT_FILENO) && !(no_color && *no_color);
}

static struct cprof_error *format_text(const struct cprof_dump *dump,
				       const struct cprof_report_dump_options *options, bool json,
				       void **bytes, size_t *length)
{
	struct cprof_error *error;
	char *text = NULL;
	FILE *out = open_memstream(&text, length);

	if (!out)
		return cprof_error_nomem();
	if (json)
		error = cprof_report_dump_json(dump, options->earlier, out);
	else
		error = cprof_report_dump(dump, options, out);
	if (fclose(out) && !error)
		error = cprof_error_nomem();
	if (error)
		free(text);
	else
		*bytes = text;
	return error;
}

struct cprof_error *cprof_format_dump(const struct cprof_dump *dump,
				      const struct cprof_dump *earlier,
				      const struct cprof_options *options, enum cprof_format format,
				      const char *path, void **bytes, size_t *length)
{
	const struct cprof_report_dump_options text = {
		.earlier = earlier,
		.all = options->all,
		.color = want_color(options, path),
	};
	const struct cprof_report_options report = {0};
	struct cprof_profile *profile;
	struct cprof_error *error;

	if (format == CPROF_FORMAT_TEXT || format == CPROF_FORMAT_JSON)
		return format_text(dump, &text, format == CPROF_FORMAT_JSON, bytes, length);
	CPROF_TRY(cprof_dump_profile(dump, &profile));
	error = cprof_format_profile(profile, format, &report, bytes, length);
	cprof_profile_destroy(profile);
	return error;
}

static struct cprof_error *write_all(const struct dumping *dumping)
{
	const struct cprof_options *options = dumping->options;
	CPROF_AUTO_FREE void *bytes = NULL;
	CPROF_AUTO_FREE char *path = NULL;
	struct cprof_session_stats stats = {
		.threads = dumping->dump->count,
		.duration_ns = cprof_now_ns() - dumping->started_ns,
		.dump_stopped_ns = dumping->stopped_ns,
		.dump_stops = dumping->stops,
	};
	struct cprof_error *error;
	size_t length;

	cprof_session_count_dump(dumping->dump, &stats.dump);
	stats.all = stats.dump;
	CPROF_TRY(output_path(dumping, &path));
	CPROF_TRY(cprof_format_dump(dumping->dump, dumping->earlier, options, dumping->format, path,
				    &bytes, &length));
	cprof_signals_open(false);
	error = cprof_outfile_write(path, bytes, length);
	cprof_signals_close();
	CPROF_TRY(error);
	if (strcmp(path, "-") != 0 && !options->quiet)
		cprof_tell_result(&(struct cprof_result){.kind = CPROF_KIND_THREADS,
							 .threads = dumping->dump->count,
							 .path = path,
							 .length = length},
				  &stats);
	if (options->verbose)
		cprof_note(options, "held for %.1f ms, %llu stops",
			   (double)dumping->stopped_ns / 1e6, (unsigned long long)dumping->stops);
	return options->stats ? cprof_stats_write(&stats, CPROF_KIND_THREADS, options->stats)
			      : NULL;
}

struct cprof_error *cprof_verb_threads(const struct cprof_options *options, int *status)
{
	CPROF_CLEANUP(dumping_deinit)
	struct dumping dumping = {
		.options = options,
		.started_ns = cprof_now_ns(),
		.format = CPROF_FORMAT_TEXT,
	};

	*status = CPROF_OK;
	if (options->format >= 0)
		dumping.format = (enum cprof_format)options->format;
	CPROF_TRY(open_target(&dumping));
	CPROF_TRY(check_outputs(&dumping));
	cprof_signals_init();
	CPROF_TRY(take_all(&dumping));
	return write_all(&dumping);
}
