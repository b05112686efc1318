/* SPDX-License-Identifier: MIT
 *
 * What a key sets going, in the worker: files, baselines, the agent.
 */
#include "private.h"

#include <cprof/outfile.h>
#include <cprof/pprof.h>
#include <cprof/report.h>
#include <cprof/util.h>
#include <string.h>
#include <time.h>

/* "12:01:02" */
static void clock_text(uint64_t wall_ns, char *text, size_t size)
{
	time_t seconds = (time_t)(wall_ns / 1000000000);
	struct tm when;

	if (!localtime_r(&seconds, &when) || !strftime(text, size, "%H:%M:%S", &when))
		snprintf(text, size, "?");
}

/* --- files --------------------------------------------------------------------------------- */

static int64_t pid_label(const struct cprof_profile *profile)
{
	for (size_t i = 0; i < profile->label_item_count; i++)
		if (!strcmp(profile->strings[profile->label_items[i].key], "pid"))
			return profile->label_items[i].number;
	return 0;
}

static struct cprof_error *write_bytes(const struct cprof_worker *worker, const char *event,
				       const char *extension, const struct cprof_profile *profile,
				       const void *bytes, size_t length, char **path)
{
	const char *program = "";
	struct cprof_outname name = {
		.event = event,
		.comm = worker->figures.comm,
		.extension = extension,
		.pid = (int)worker->figures.pid,
		.wall_s = (long long)(cprof_wall_ns() / 1000000000),
	};

	if (profile && !*worker->figures.comm) {
		if (profile->mapping_count > 1)
			program = profile->strings[profile->mappings[1].file];
		if (strrchr(program, '/'))
			program = strrchr(program, '/') + 1;
		name.comm = *program ? program : "saved";
		name.pid = (int)pid_label(profile);
	}
	CPROF_TRY(cprof_outfile_name(NULL, &name, path));
	return cprof_outfile_write(*path, bytes, length);
}

static const char *event_of(const struct cprof_worker *worker, const struct cprof_model *model)
{
	enum cprof_view_id view = model->view;

	if (view >= CPROF_VIEW_PROFILES && worker->saved_view != CPROF_VIEWS)
		view = worker->saved_view;
	return cprof_worker_kind(worker, view);
}

/* Symbols that are still being looked up have to be there first: then it is the picture with the
 * names that is written, and shown. */
static struct cprof_model *name_model(struct cprof_worker *worker)
{
	struct cprof_model *model;

	worker->named = true;
	model = cprof_worker_build(worker, false);
	worker->named = false;
	if (!model)
		return NULL;
	model->period_ns = worker->period_ns;
	return model;
}

static struct cprof_error *write_profile(struct cprof_worker *worker,
					 const struct cprof_model *shown, char *text, size_t size)
{
	CPROF_AUTO_FREE void *bytes = NULL;
	CPROF_AUTO_FREE char *path = NULL;
	struct cprof_model *named = NULL;
	struct cprof_error *error;
	size_t length;

	if (!shown || !shown->profile)
		return cprof_error_create(CPROF_FAILED, NULL,
					  "there is no profile here to be written");
	if (shown->unnamed) {
		named = name_model(worker);
		if (named && named->profile)
			shown = named;
	}
	error = cprof_pprof_encode(shown->profile, &bytes, &length);
	if (!error)
		error = write_bytes(worker, event_of(worker, shown), "pb.gz", shown->profile, bytes,
				    length, &path);
	if (!error)
		snprintf(text, size, "written: %s (%zu bytes)", path, length);
	if (named)
		cprof_worker_publish(worker, named);
	return error;
}

static struct cprof_error *write_dump(struct cprof_worker *worker, char *text, size_t size)
{
	struct cprof_source *source = worker->source;
	const struct cprof_report_dump_options options = {0};
	CPROF_AUTO_FREE char *bytes = NULL;
	CPROF_AUTO_FREE char *path = NULL;
	struct cprof_error *error;
	struct cprof_dump *dump;
	size_t length, threads;
	uint64_t stopped_ns;
	FILE *out;

	if (!source->ops->dump)
		return cprof_error_create(CPROF_FAILED, NULL,
					  "no thread dump: this is a saved profile");
	error = source->ops->dump(source, 0, &dump);
	if (error && error->status == CPROF_NO_PROCESS) {
		cprof_error_destroy(error);
		error = cprof_error_create(CPROF_NO_PROCESS, NULL,
					   "no thread dump: the process has ended");
	}
	CPROF_TRY(error);
	threads = dump->count;
	stopped_ns = dump->stopped_ns;
	out = open_memstream(&bytes, &length);
	error = out ? cprof_report_dump(dump, &options, out) : cprof_error_nomem();
	if (out && fclose(out) && !error)
		error = cprof_error_nomem();
	cprof_dump_destroy(dump);
	CPROF_TRY(error);
	CPROF_TRY(write_bytes(worker, "threads", "txt", NULL, bytes, length, &path));
	snprintf(text, size, "%zu thread%s dumped: %s (held for %.1f ms)", threads,
		 threads == 1 ? "" : "s", path, (double)stopped_ns / 1e6);
	return NULL;
}

/* --- baselines ----------------------------------------------------------------------------- */

/* Of what is on the screen: the view's profile with its window, before thread and filter. */
static struct cprof_error *set_base(struct cprof_worker *worker, enum cprof_view_id view,
				    char *text, size_t size)
{
	struct cprof_held *held;
	struct cprof_profile *base = NULL;
	char when[16];

	if (view >= CPROF_VIEW_PROFILES && worker->saved_view != CPROF_VIEWS)
		view = worker->saved_view;
	if (view >= CPROF_VIEW_PROFILES || !worker->held[view].profile)
		return cprof_error_create(CPROF_FAILED, NULL, "there is no profile here yet");
	held = &worker->held[view];
	if (held->unnamed)
		CPROF_TRY(worker->source->ops->window(worker->source,
						      cprof_worker_kind(worker, view),
						      held->window_ns, false, &base));
	else
		CPROF_TRY(cprof_profile_clone(held->profile, &base));
	cprof_profile_destroy(worker->base[view]);
	worker->base[view] = base;
	clock_text(cprof_wall_ns(), when, sizeof(when));
	snprintf(worker->base_text[view], sizeof(worker->base_text[view]), "%s", when);
	snprintf(text, size, "baseline of %s: from now on the difference is shown (B: no more)",
		 when);
	return NULL;
}

static struct cprof_error *drop_base(struct cprof_worker *worker, enum cprof_view_id view,
				     char *text, size_t size)
{
	if (view >= CPROF_VIEW_PROFILES && worker->saved_view != CPROF_VIEWS)
		view = worker->saved_view;
	if (view >= CPROF_VIEW_PROFILES || !worker->base[view])
		return cprof_error_create(CPROF_FAILED, NULL, "there is no baseline");
	cprof_profile_destroy(cprof_take(worker->base[view]));
	snprintf(text, size, "no baseline any more");
	return NULL;
}

static struct cprof_error *reset(struct cprof_worker *worker, enum cprof_view_id view, char *text,
				 size_t size)
{
	struct cprof_profile *profile;
	char when[16];

	if (view >= CPROF_VIEW_PROFILES || worker->saved_view != CPROF_VIEWS)
		return cprof_error_create(CPROF_FAILED, NULL, "there is nothing to be reset here");
	CPROF_TRY(cprof_worker_snapshot(worker, view, &profile));
	cprof_profile_destroy(worker->reset[view]);
	worker->reset[view] = profile;
	worker->reset_ns[view] = cprof_now_ns();
	cprof_profile_destroy(cprof_take(worker->base[view]));
	cprof_profile_destroy(cprof_take(worker->held[view].profile));
	clock_text(cprof_wall_ns(), when, sizeof(when));
	snprintf(text, size, "reset at %s: \"since start\" counts from here%s", when,
		 view == CPROF_VIEW_HEAP ? ", what was freed is negative" : "");
	return NULL;
}

/* --- the agent ----------------------------------------------------------------------------- */

static struct cprof_error *begin(struct cprof_worker *worker, enum cprof_view_id view, char *text,
				 size_t size)
{
	struct cprof_source *source = worker->source;
	const char *kind = cprof_worker_kind(worker, view);

	if (!source->ops->begin)
		return cprof_error_create(CPROF_FAILED, NULL, "nothing can be started here");
	CPROF_TRY(source->ops->begin(source, kind));
	snprintf(text, size, "%s has begun", kind);
	return NULL;
}

void cprof_worker_do(struct cprof_worker *worker, const struct cprof_queued *queued, char *text,
		     size_t size)
{
	struct cprof_error *error = NULL;

	switch (queued->action) {
	case CPROF_ACTION_BEGIN:
		error = begin(worker, queued->view, text, size);
		break;
	case CPROF_ACTION_WRITE:
		error = write_profile(worker, queued->model, text, size);
		break;
	case CPROF_ACTION_DUMP:
		error = write_dump(worker, text, size);
		break;
	case CPROF_ACTION_BASE:
		error = set_base(worker, queued->view, text, size);
		break;
	case CPROF_ACTION_UNBASE:
		error = drop_base(worker, queued->view, text, size);
		break;
	case CPROF_ACTION_RESET:
		error = reset(worker, queued->view, text, size);
		break;
	}
	if (!error)
		return;
	snprintf(text, size, "! %s%s%s%s", error->message, error->remedy ? " (" : "",
		 error->remedy ? error->remedy : "", error->remedy ? ")" : "");
	cprof_error_destroy(error);
}
