/* SPDX-License-Identifier: MIT
 *
 * The live view of a process (`-p PID` without a verb), and `view`: the same on a saved profile.
 */
#include "private.h"

#include <cprof/pprof.h>
#include <cprof/view.h>
#include <string.h>

/* "100x30": columns, then rows, as terminals are called. */
bool cprof_parse_geometry(const char *text, int *columns, int *rows)
{
	const char *by = strchr(text, 'x');
	char first[8];
	uint64_t wide, high;

	if (!by || (size_t)(by - text) >= sizeof(first))
		return false;
	snprintf(first, sizeof(first), "%.*s", (int)(by - text), text);
	if (!cprof_parse_number(first, 1, CPROF_VIEW_MAX, &wide) ||
	    !cprof_parse_number(by + 1, 1, CPROF_VIEW_MAX, &high))
		return false;
	*columns = (int)wide;
	*rows = (int)high;
	return true;
}

static struct cprof_view_config view_config(const struct cprof_options *options)
{
	return (struct cprof_view_config){
		.source_path = options->source_path,
		.sample_index = options->sample_index,
		.focus = options->focus,
		.refresh_ns = options->refresh_ns,
		.color = (enum cprof_view_color)options->color,
		.rows = options->screen_rows,
		.columns = options->screen_columns,
		.keys = options->keys,
		.frames = options->frames,
		.out = stdout,
	};
}

/* --- live ---------------------------------------------------------------------------------- */

/* The clock is sampled from the start, everything else is begun by the view. */
static struct cprof_error *choose_kinds(const struct cprof_options *options,
					struct cprof_view_config *config, unsigned *kinds)
{
	size_t count = 0;

	if (options->kinds & CPROF_KIND_THREADCREATE)
		return cprof_error_create(CPROF_USAGE, "use record -e threadcreate, then view FILE",
					  "--event threadcreate: the live view does not have it");
	*kinds = options->kinds & CPROF_KIND_CYCLES ? CPROF_KIND_CYCLES : CPROF_KIND_CPU;
	config->cpu_kind = cprof_kind_name((enum cprof_kind) * kinds);
	for (unsigned kind = 1; kind <= options->kinds; kind <<= 1)
		if (options->kinds & kind && !(kind & *kinds) &&
		    count + 1 < CPROF_COUNT(config->begin))
			config->begin[count++] = cprof_kind_name((enum cprof_kind)kind);
	return NULL;
}

static void tell_left(const struct cprof_options *options, struct cprof_session *session)
{
	struct cprof_session_stats stats;

	cprof_session_stats(session, &stats);
	if (stats.agent_problem[0] && !stats.agent_ended)
		cprof_note(options, "something may be left in the process: %s (see detach)",
			   stats.agent_problem);
}

struct cprof_error *cprof_verb_live(const struct cprof_options *options, int *status)
{
	struct cprof_view_config view = view_config(options);
	struct cprof_session_config config = {
		.pid = options->pid,
		.rate = (unsigned)options->rate,
		.heap_rate = options->heap_rate,
		.block_rate = (unsigned)options->block_rate,
		.block_min_ns = options->block_min_ns,
		.mutex_rate = (uint32_t)options->mutex_rate,
		.mutex_waiters = options->mutex_side == CPROF_CONTENTION_WAITER,
		.way = (enum cprof_perf_way)options->way,
		.unwinder = options->unwinder,
		.threads = options->threads,
		.debug_dir = options->debug_dir,
		.started_ns = cprof_now_ns(),
		.no_kernel = options->no_kernel,
		.no_inlines = options->no_inlines,
		.no_lines = options->no_lines,
		.live = true,
	};
	struct cprof_session *session;
	struct cprof_error *error;

	*status = CPROF_OK;
	if (options->argument_count)
		return cprof_usage_error(options->verb, "what is `%s`?", options->arguments[0]);
	CPROF_TRY(choose_kinds(options, &view, &config.kinds));
	CPROF_TRY(cprof_view_check(&view));
	cprof_view_block_signals();
	CPROF_TRY(cprof_session_create(&config, &session));
	error = cprof_session_start(session);
	if (!error)
		error = cprof_view_run(cprof_session_source(session), &view);
	cprof_session_stop(session);
	if (!error)
		tell_left(options, session);
	cprof_session_destroy(session);
	return error;
}

/* --- saved --------------------------------------------------------------------------------- */

/* Types that differ are told before a screen is opened. */
static struct cprof_error *read_base(const char *path, const struct cprof_profile *profile,
				     struct cprof_profile **base)
{
	struct cprof_profile *trial;
	struct cprof_error *error;

	CPROF_TRY(cprof_pprof_read(path, base));
	error = cprof_profile_clone(profile, &trial);
	if (error)
		return error;
	error = cprof_profile_merge(trial, *base, -1);
	cprof_profile_destroy(trial);
	return error;
}

struct cprof_error *cprof_verb_view(const struct cprof_options *options, int *status)
{
	struct cprof_view_config view = view_config(options);
	struct cprof_profile *profile = NULL, *base = NULL;
	struct cprof_source *source = NULL;
	struct cprof_error *error = NULL;

	*status = CPROF_OK;
	if (options->argument_count != 1)
		return cprof_usage_error(options->verb, options->argument_count
								? "view: one file at a time"
								: "view: which file?");
	CPROF_TRY(cprof_view_check(&view));
	view.file = options->arguments[0];
	CPROF_TRY(cprof_pprof_read(view.file, &profile));
	if (options->base)
		error = read_base(options->base, profile, &base);
	if (!error && options->sample_index &&
	    cprof_profile_find_type(profile, options->sample_index) < 0)
		error = cprof_usage_error(options->verb, "--sample-index %s: no such type in it",
					  options->sample_index);
	view.base = base;
	if (error)
		cprof_profile_destroy(profile);
	else
		error = cprof_source_create_saved(profile, &source);
	if (!error)
		error = cprof_view_run(source, &view);
	cprof_source_destroy(source);
	cprof_profile_destroy(base);
	return error;
}
