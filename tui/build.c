/* SPDX-License-Identifier: MIT
 *
 * From what the source says to what is shown: the profile of a view, its window, what is subtracted
 * from it, what is left out of it, and the page that is made of it.
 */
#include "private.h"

#include <cprof/report.h>
#include <cprof/util.h>
#include <regex.h>
#include <string.h>

#define STACK_EVERY_NS 900000000ull
#define NAMING_LONG_NS 100000000ull
#define NAMING_PAUSE   10 /* refreshes */

const char *cprof_worker_kind(const struct cprof_worker *worker, enum cprof_view_id view)
{
	static const char *const kinds[CPROF_VIEWS] = {"cpu",   "heap",    "mutex",
						       "block", "threads", "memtrace"};

	if (view == CPROF_VIEW_CPU && worker->config->cpu_kind)
		return worker->config->cpu_kind;
	return kinds[view];
}

static bool is_saved(const struct cprof_worker *worker)
{
	return worker->saved_view != CPROF_VIEWS;
}

/* --- once a refresh ------------------------------------------------------------------------ */

static void push_history(struct cprof_history *history, const struct cprof_source_figures *figures)
{
	if (history->count == CPROF_HISTORY) {
		memmove(history->cpu, history->cpu + 1, sizeof(history->cpu) - sizeof(float));
		memmove(history->rss, history->rss + 1, sizeof(history->rss) - sizeof(float));
		memmove(history->live, history->live + 1, sizeof(history->live) - sizeof(float));
		history->count--;
	}
	history->cpu[history->count] = (float)figures->cpu;
	history->rss[history->count] =
		figures->rss_bytes == UINT64_MAX ? -1 : (float)figures->rss_bytes;
	history->live[history->count] = (float)figures->live_bytes;
	history->count++;
}

/* Keeps finished lines: the source forgets old ones. */
static void read_memtrace(struct cprof_worker *worker)
{
	struct cprof_source *source = worker->source;
	size_t got = 0;

	if (!source->ops->memtrace)
		return;
	if (!worker->lines)
		worker->lines = calloc(2 * CPROF_MEMTRACE_KEEP, sizeof(*worker->lines));
	if (!worker->lines)
		return;
	if (worker->line_count > CPROF_MEMTRACE_KEEP) {
		size_t extra = worker->line_count - CPROF_MEMTRACE_KEEP;

		memmove(worker->lines, worker->lines + extra,
			CPROF_MEMTRACE_KEEP * sizeof(*worker->lines));
		worker->line_count = CPROF_MEMTRACE_KEEP;
	}
	source->ops->memtrace(source, worker->line_next, worker->lines + worker->line_count,
			      2 * CPROF_MEMTRACE_KEEP - worker->line_count, &got);
	got = CPROF_MIN(got, 2 * CPROF_MEMTRACE_KEEP - worker->line_count);
	worker->line_count += got;
	if (got)
		worker->line_next = worker->lines[worker->line_count - 1].number + 1;
}

void cprof_worker_look(struct cprof_worker *worker)
{
	struct cprof_source *source = worker->source;

	if (source->ops->figures) {
		source->ops->figures(source, &worker->figures);
		push_history(&worker->history, &worker->figures);
	}
	read_memtrace(worker);
	if (is_saved(worker) || worker->ended)
		return;
	worker->ended = !source->ops->live(source) || worker->figures.ended;
	worker->ended_ns = cprof_now_ns();
}

/* --- profiles ------------------------------------------------------------------------------ */

/* Whether symbols of what is sampled are still being looked up. */
static bool has_unnamed(const struct cprof_profile *profile)
{
	CPROF_AUTO_FREE bool *seen = calloc(profile->stack_count + 1, sizeof(*seen));

	for (size_t i = 0; seen && i < profile->sample_count; i++) {
		const struct cprof_profile_span *stack =
			&profile->stacks[profile->samples[i].stack];

		if (seen[profile->samples[i].stack])
			continue;
		seen[profile->samples[i].stack] = true;
		for (uint32_t j = 0; j < stack->count; j++)
			if (!profile->locations[profile->stack_items[stack->first + j]].named)
				return true;
	}
	return false;
}

static bool is_sum(enum cprof_view_id view)
{
	return view != CPROF_VIEW_HEAP;
}

struct cprof_error *cprof_worker_snapshot(struct cprof_worker *worker, enum cprof_view_id view,
					  struct cprof_profile **profile)
{
	return worker->source->ops->snapshot(worker->source, cprof_worker_kind(worker, view),
					     profile);
}

/* The first pictures come with what names there are; later ones wait for the few that are missing,
 * unless that turns out to take long. */
static struct cprof_error *fetch_window(struct cprof_worker *worker, enum cprof_view_id view,
					uint64_t window_ns, struct cprof_profile **profile)
{
	struct cprof_source *source = worker->source;
	bool must = worker->now.frozen || worker->named || worker->config->rows;
	bool named = must || worker->frame >= worker->names_from;
	uint64_t before = cprof_now_ns();

	/* A script gets the same screen each time. */
	CPROF_TRY(source->ops->window(source, cprof_worker_kind(worker, view), window_ns, !named,
				      profile));
	if (named && !must && cprof_now_ns() - before > NAMING_LONG_NS)
		worker->names_from = worker->frame + NAMING_PAUSE;
	return NULL;
}

/* While another view was on the screen, this one's profile was not taken. */
static bool is_old(const struct cprof_worker *worker, const struct cprof_held *held)
{
	if (worker->ended)
		return held->taken_ns < worker->ended_ns;
	return cprof_now_ns() > held->taken_ns + worker->period_ns;
}

static struct cprof_error *fetch(struct cprof_worker *worker, enum cprof_view_id view, bool due)
{
	const struct cprof_want *want = &worker->now;
	struct cprof_source *source = worker->source;
	struct cprof_held *held = &worker->held[view];
	bool windowed = source->ops->window && is_sum(view);
	uint64_t window_ns = windowed ? want->window_ns : 0;
	bool fits = held->profile && held->window_ns == window_ns &&
		    !(held->unnamed && (want->frozen || worker->named));
	struct cprof_profile *profile;

	if (is_saved(worker) || (fits && (want->frozen || (!due && !is_old(worker, held)))))
		return NULL;
	if (windowed)
		CPROF_TRY(fetch_window(worker, view, window_ns, &profile));
	else
		CPROF_TRY(cprof_worker_snapshot(worker, view, &profile));
	cprof_profile_destroy(held->profile);
	*held = (struct cprof_held){
		.profile = profile,
		.window_ns = window_ns,
		.taken_ns = cprof_now_ns(),
		.taken_wall_ns = cprof_wall_ns(),
		.unnamed = windowed && has_unnamed(profile),
	};
	return NULL;
}

/* Both go through the same merge: equal locations become one, however they were named. */
static struct cprof_error *subtract(struct cprof_profile **profile,
				    const struct cprof_profile *base)
{
	struct cprof_profile *difference;
	int64_t duration_ns = (*profile)->duration_ns - base->duration_ns;
	struct cprof_error *error;

	CPROF_TRY(cprof_profile_create(&difference));
	error = cprof_profile_merge(difference, *profile, 1);
	if (!error)
		error = cprof_profile_merge(difference, base, -1);
	if (error) {
		cprof_profile_destroy(difference);
		return error;
	}
	if (duration_ns > 0)
		difference->duration_ns = duration_ns;
	cprof_profile_destroy(*profile);
	*profile = difference;
	return NULL;
}

static void tell_filter(struct cprof_profile *profile, const struct cprof_want *want)
{
	char text[CPROF_FILTER_MAX + 64];

	if (*want->filter) {
		if (*want->filter == '!')
			snprintf(text, sizeof(text), "only stacks without /%s/", want->filter + 1);
		else
			snprintf(text, sizeof(text), "only stacks with /%s/", want->filter);
		cprof_profile_add_comment(profile, text);
	}
	if (want->tid || *want->thread) {
		snprintf(text, sizeof(text), "only thread %lld %s", (long long)want->tid,
			 want->thread);
		cprof_profile_add_comment(profile, text);
	}
}

/* Thread first: a share is one of what this thread does. The filter leaves the whole as it is, as
 * `report top --focus` does. */
static struct cprof_error *choose_samples(struct cprof_model *model, const struct cprof_want *want)
{
	struct cprof_analysis_filter filter = {.tid = want->tid, .thread = want->thread};
	struct cprof_profile *selected;
	size_t type;

	CPROF_TRY(cprof_model_label_threads(model, model->profile,
					    cprof_analysis_type(model->profile, want->type)));
	if (want->tid || *want->thread) {
		CPROF_TRY(cprof_analysis_select(model->profile, &filter, &selected));
		cprof_profile_destroy(model->profile);
		model->profile = selected;
	}
	type = cprof_analysis_type(model->profile, want->type);
	for (size_t i = 0; i < model->profile->sample_count; i++) {
		int64_t value = model->profile->values[i * model->profile->type_count + type];

		if (__builtin_add_overflow(model->whole, value < 0 ? -value : value, &model->whole))
			model->whole = INT64_MAX;
	}
	if (*want->filter) {
		if (*want->filter == '!')
			filter = (struct cprof_analysis_filter){.ignore = want->filter + 1};
		else
			filter = (struct cprof_analysis_filter){.focus = want->filter};
		CPROF_TRY(cprof_analysis_select(model->profile, &filter, &selected));
		cprof_profile_destroy(model->profile);
		model->profile = selected;
	}
	tell_filter(model->profile, want);
	return NULL;
}

/* As the table of `report top` chooses it: of rows that it would show. */
static void choose_unit(struct cprof_model *model)
{
	const struct cprof_analysis *analysis = model->analysis;
	int64_t smallest = 0;
	double sum = 0;

	for (size_t i = 0; i < analysis->count; i++)
		sum += (double)analysis->rows[i].flat[model->type];
	for (size_t i = 0; i < analysis->count; i++) {
		int64_t flat = analysis->rows[i].flat[model->type];
		int64_t cum = analysis->rows[i].cum[model->type];
		int64_t value = llabs(flat ? flat : cum);

		if (value && (double)llabs(cum) >= (double)llabs((int64_t)(sum * 0.005)) &&
		    (!smallest || value < smallest))
			smallest = value;
	}
	model->output_unit = cprof_analysis_unit(smallest, model->whole, model->unit);
}

static void match_rows(struct cprof_model *model, const char *filter)
{
	const struct cprof_analysis *analysis = model->analysis;
	const struct cprof_profile *profile = model->profile;
	regex_t regex;

	if (!*filter || *filter == '!' || regcomp(&regex, filter, REG_EXTENDED | REG_NOSUB))
		return;
	model->matches = calloc(analysis->count + 1, sizeof(*model->matches));
	for (size_t i = 0; model->matches && i < analysis->count; i++) {
		const struct cprof_analysis_row *row = &analysis->rows[i];
		const char *file = profile->strings[profile->functions[row->function].file];

		model->matches[i] = !regexec(&regex, row->name, 0, NULL, 0) ||
				    !regexec(&regex, row->module, 0, NULL, 0) ||
				    !regexec(&regex, file, 0, NULL, 0);
	}
	regfree(&regex);
}

static int open_for_listing(void *context, const char *path)
{
	struct cprof_source *source = context;

	return source->ops->open(source, path);
}

static struct cprof_error *make_listing(struct cprof_worker *worker, struct cprof_model *model)
{
	struct cprof_source *source = worker->source;
	struct cprof_listing_options options = {
		.type = (int)model->type,
		.open = source->ops->open ? open_for_listing : NULL,
		.context = source,
		.source_path = worker->config->source_path,
	};
	uint32_t function = model->analysis->rows[model->row].function;

	if (!function)
		return cprof_error_create(CPROF_FAILED, NULL,
					  "nothing is known of this code but its module");
	if (model->page == CPROF_PAGE_SOURCE)
		return cprof_listing_source(model->profile, function, &options, &model->listing);
	return cprof_listing_code(model->profile, function, &options, &model->listing);
}

static struct cprof_error *make_page(struct cprof_worker *worker, struct cprof_model *model)
{
	const struct cprof_want *want = &worker->now;

	model->row = UINT32_MAX;
	for (uint32_t i = 0; want->function && i < model->analysis->count; i++)
		if (!strcmp(model->analysis->rows[i].name, want->function))
			model->row = i;
	if (model->page == CPROF_PAGE_FLAME)
		return cprof_analysis_tree(model->analysis, model->type, &model->tree);
	if (model->row == UINT32_MAX)
		return NULL;
	if (model->page == CPROF_PAGE_PEEK)
		return cprof_analysis_peek(model->analysis, model->row, model->type, &model->peek);
	if (model->page == CPROF_PAGE_SOURCE || model->page == CPROF_PAGE_CODE)
		return make_listing(worker, model);
	return NULL;
}

static struct cprof_error *make_profile(struct cprof_worker *worker, struct cprof_model *model,
					enum cprof_view_id view, bool due)
{
	const struct cprof_want *want = &worker->now;
	const struct cprof_held *held = &worker->held[view];
	uint64_t since_ns = worker->started_ns;

	CPROF_TRY(fetch(worker, view, due));
	CPROF_TRY(cprof_profile_clone(held->profile, &model->profile));
	model->unnamed = held->unnamed;
	model->taken_wall_ns = held->taken_wall_ns;
	if (worker->reset[view] && !held->window_ns) {
		CPROF_TRY(subtract(&model->profile, worker->reset[view]));
		since_ns = worker->reset_ns[view];
	}
	if (worker->base[view]) {
		CPROF_TRY(subtract(&model->profile, worker->base[view]));
		snprintf(model->base, sizeof(model->base), "%s", worker->base_text[view]);
	}
	if (is_saved(worker))
		model->span_ns = (uint64_t)CPROF_MAX(model->profile->duration_ns, 0);
	else if (held->taken_ns > since_ns)
		model->span_ns = held->taken_ns - since_ns;
	if (held->window_ns)
		model->span_ns = CPROF_MIN(model->span_ns, held->window_ns);
	if (!model->profile->type_count)
		return cprof_error_create(CPROF_FAILED, NULL, "the profile has no sample types");
	CPROF_TRY(choose_samples(model, want));
	CPROF_TRY(cprof_profile_check(model->profile));
	model->type = cprof_analysis_type(model->profile, want->type);
	model->unit = model->profile->strings[model->profile->types[model->type].unit];
	CPROF_TRY(cprof_analysis_create(model->profile, &model->analysis));
	choose_unit(model);
	match_rows(model, want->filter);
	if (view == CPROF_VIEW_HEAP && !is_saved(worker) && !*want->filter && !want->tid &&
	    !*want->thread && !worker->base[view])
		cprof_growth_step(worker->growth, model, held->taken_ns);
	return NULL;
}

/* --- the other views ----------------------------------------------------------------------- */

/* The thread is stopped for a moment, so not too often. */
static struct cprof_error *take_stack(struct cprof_worker *worker)
{
	const struct cprof_want *want = &worker->now;
	struct cprof_source *source = worker->source;
	uint64_t now = cprof_now_ns();
	struct cprof_dump *dump;
	struct cprof_error *error;

	if (worker->dump && worker->dump_tid == want->stack_tid &&
	    (want->frozen || worker->ended || now - worker->dump_ns < STACK_EVERY_NS))
		return NULL;
	if (!source->ops->dump)
		return cprof_error_create(CPROF_FAILED, NULL, "there are no stacks here");
	error = source->ops->dump(source, (pid_t)want->stack_tid, &dump);
	if (error && worker->dump && worker->dump_tid == want->stack_tid) {
		cprof_error_destroy(error); /* the last one stays */
		return NULL;
	}
	CPROF_TRY(error);
	cprof_dump_destroy(worker->dump);
	worker->dump = dump;
	worker->dump_tid = want->stack_tid;
	worker->dump_ns = now;
	return NULL;
}

/* Of a process that has ended the last list stays. */
static struct cprof_error *read_threads(struct cprof_worker *worker)
{
	struct cprof_source_threads *threads;
	struct cprof_error *error = worker->source->ops->threads(worker->source, &threads);

	if (error && worker->threads) {
		cprof_error_destroy(error);
		return NULL;
	}
	CPROF_TRY(error);
	cprof_source_threads_destroy(worker->threads);
	worker->threads = threads;
	return NULL;
}

static struct cprof_error *make_threads(struct cprof_worker *worker, struct cprof_model *model,
					bool due)
{
	const struct cprof_want *want = &worker->now;

	if (is_saved(worker)) {
		CPROF_TRY(make_profile(worker, model, worker->saved_view, due));
		if (want->page == CPROF_PAGE_STACK)
			return cprof_model_saved_stack(model, want);
		return NULL;
	}
	if (!worker->threads || (due && !want->frozen)) {
		CPROF_TRY(read_threads(worker));
	}
	CPROF_TRY(cprof_model_live_threads(model, worker->threads));
	if (want->page != CPROF_PAGE_STACK)
		return NULL;
	CPROF_TRY(take_stack(worker));
	return cprof_model_live_stack(model, worker->dump, want);
}

static struct cprof_error *make_memtrace(struct cprof_worker *worker, struct cprof_model *model)
{
	for (size_t i = 0; i < worker->line_count; i++) {
		struct cprof_error *error;
		char *text = NULL;
		size_t length;
		FILE *out = open_memstream(&text, &length);

		if (!out)
			return cprof_error_nomem();
		error = cprof_report_memtrace(&worker->lines[i], out);
		if (fclose(out) && !error)
			error = cprof_error_nomem();
		if (!error) {
			text[strcspn(text, "\n")] = '\0';
			if (!cprof_model_line(model, CPROF_STYLE_NORMAL, "%s", text))
				error = cprof_error_nomem();
		}
		free(text);
		CPROF_TRY(error);
	}
	return NULL;
}

static void read_kinds(struct cprof_worker *worker, struct cprof_model *model)
{
	struct cprof_source *source = worker->source;

	for (enum cprof_view_id view = 0; view < CPROF_VIEWS; view++) {
		struct cprof_source_kind *kind = &model->kinds[view];

		if (!is_saved(worker)) {
			source->ops->kind(source, cprof_worker_kind(worker, view), kind);
			/* These two need no kind of their own. */
			if ((view == CPROF_VIEW_THREADS && source->ops->threads) ||
			    (view == CPROF_VIEW_MEMTRACE && source->ops->memtrace))
				*kind = (struct cprof_source_kind){.state = CPROF_SOURCE_ON};
		} else if (view == worker->saved_view ||
			   (view == CPROF_VIEW_THREADS && worker->saved_threads)) {
			kind->state = CPROF_SOURCE_ON;
		} else {
			snprintf(kind->detail, sizeof(kind->detail), "%s",
				 view == CPROF_VIEW_THREADS
					 ? "the samples of this file do not name "
					   "threads"
				 : view == CPROF_VIEW_MEMTRACE
					 ? "a saved profile has no summary lines"
					 : "this file has no values of this kind");
		}
	}
}

static void set_problem(struct cprof_model *model, struct cprof_error *error)
{
	snprintf(model->problem, sizeof(model->problem), "%s%s%s%s", error->message,
		 error->remedy ? " (" : "", error->remedy ? error->remedy : "",
		 error->remedy ? ")" : "");
	cprof_error_destroy(error);
}

struct cprof_model *cprof_worker_build(struct cprof_worker *worker, bool due)
{
	const struct cprof_want *want = &worker->now;
	struct cprof_model *model = calloc(1, sizeof(*model));
	struct cprof_error *error = NULL;

	if (!model)
		return NULL;
	model->serial = want->serial;
	model->frame = worker->frame;
	model->view = want->view;
	model->page = want->page;
	model->frozen = want->frozen;
	model->live = !is_saved(worker) && !worker->ended;
	model->has_figures = worker->source->ops->figures;
	model->figures = worker->figures;
	model->history = worker->history;
	model->taken_wall_ns = cprof_wall_ns();
	model->row = UINT32_MAX;
	read_kinds(worker, model);
	if (want->view == CPROF_VIEW_THREADS)
		error = make_threads(worker, model, due);
	else if (want->view == CPROF_VIEW_MEMTRACE)
		error = make_memtrace(worker, model);
	else if (model->kinds[want->view].state == CPROF_SOURCE_ON ||
		 model->kinds[want->view].state == CPROF_SOURCE_ENDED)
		error = make_profile(worker, model, want->view, due);
	if (!error && model->analysis)
		error = make_page(worker, model);
	if (error)
		set_problem(model, error);
	return model;
}
