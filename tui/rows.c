/* SPDX-License-Identifier: MIT
 *
 * The rows of a page, in their order; and what is selected, which stays so wherever it moves.
 */
#include "ui.h"

#include <cprof/util.h>
#include <regex.h>
#include <string.h>

static uint64_t hash_of(const char *text)
{
	return cprof_hash_bytes(text, strlen(text)) | 1;
}

/* Rows of a list are functions in one view and threads in the other. */
static bool lists_threads(const struct cprof_model *model)
{
	return model->view == CPROF_VIEW_THREADS && model->page == CPROF_PAGE_LIST;
}

static bool lists_functions(const struct cprof_model *model)
{
	return model->view < CPROF_VIEW_PROFILES && model->page == CPROF_PAGE_LIST &&
	       model->analysis;
}

/* --- order --------------------------------------------------------------------------------- */

static int by_size(double a, double b)
{
	return (a < b) - (a > b);
}

static int compare_functions(const struct cprof_ui *ui, uint32_t a, uint32_t b)
{
	const struct cprof_model *model = ui->model;
	const struct cprof_analysis_row *x = &model->analysis->rows[a];
	const struct cprof_analysis_row *y = &model->analysis->rows[b];
	const struct cprof_tab *tab = &ui->tabs[ui->view];
	size_t type = model->type;
	int order = 0;

	switch (tab->sort) {
	case CPROF_COLUMN_CUM:
		order = by_size((double)llabs(x->cum[type]), (double)llabs(y->cum[type]));
		break;
	case CPROF_COLUMN_GROWTH:
		if (model->growth)
			order = by_size(model->growth[a], model->growth[b]);
		break;
	case CPROF_COLUMN_OTHER:
		if (tab->sort_type < model->profile->type_count)
			order = by_size((double)llabs(x->flat[tab->sort_type]),
					(double)llabs(y->flat[tab->sort_type]));
		break;
	case CPROF_COLUMN_MODULE:
		order = strcmp(x->module, y->module);
		break;
	case CPROF_COLUMN_NAME:
		order = strcmp(x->name, y->name);
		break;
	default:
		break;
	}
	/* As `report top`: ties go by name, then by the other number. */
	if (!order && tab->sort != CPROF_COLUMN_CUM)
		order = by_size((double)llabs(x->flat[type]), (double)llabs(y->flat[type]));
	if (!order)
		order = strcmp(x->name, y->name);
	return order ? order : (a > b) - (a < b);
}

static int compare_threads(const struct cprof_ui *ui, uint32_t a, uint32_t b)
{
	const struct cprof_view_thread *x = &ui->model->threads[a], *y = &ui->model->threads[b];
	int order = 0;

	switch (ui->tabs[ui->view].sort) {
	case CPROF_COLUMN_CPU:
		order = by_size(x->cpu, y->cpu);
		break;
	case CPROF_COLUMN_TIME:
		order = by_size((double)x->cpu_ns, (double)y->cpu_ns);
		break;
	case CPROF_COLUMN_VALUE:
		order = by_size((double)llabs(x->value), (double)llabs(y->value));
		break;
	case CPROF_COLUMN_THREAD:
		order = strcmp(x->name, y->name);
		break;
	case CPROF_COLUMN_STATE:
		order = (x->state > y->state) - (x->state < y->state);
		break;
	case CPROF_COLUMN_WAIT:
		order = strcmp(x->wait, y->wait);
		break;
	case CPROF_COLUMN_DETAIL:
		order = strcmp(x->detail, y->detail);
		break;
	case CPROF_COLUMN_TOP:
		order = strcmp(x->top, y->top);
		break;
	default:
		break;
	}
	if (!order)
		order = (x->tid > y->tid) - (x->tid < y->tid);
	return order ? order : (a > b) - (a < b);
}

static int compare(const void *a, const void *b, void *context)
{
	const struct cprof_ui *ui = context;
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	int order =
		lists_threads(ui->model) ? compare_threads(ui, x, y) : compare_functions(ui, x, y);

	return ui->tabs[ui->view].reverse ? -order : order;
}

static bool function_shown(const struct cprof_model *model, uint32_t row)
{
	const struct cprof_analysis_row *values = &model->analysis->rows[row];

	if (!values->flat[model->type] && !values->cum[model->type])
		return false;
	return !model->matches || model->matches[row];
}

static bool thread_matches(const struct cprof_view_thread *thread, const regex_t *regex)
{
	char tid[24];

	snprintf(tid, sizeof(tid), "%lld", (long long)thread->tid);
	return !regexec(regex, thread->name, 0, NULL, 0) || !regexec(regex, tid, 0, NULL, 0) ||
	       !regexec(regex, thread->wait, 0, NULL, 0) ||
	       !regexec(regex, thread->detail, 0, NULL, 0) ||
	       !regexec(regex, thread->top, 0, NULL, 0);
}

static void make_order(struct cprof_ui *ui)
{
	const struct cprof_model *model = ui->model;
	bool threads = lists_threads(model);
	size_t count = threads ? model->thread_count : 0;
	bool filtered = false, without = *ui->filter == '!';
	regex_t regex;

	ui->order_count = 0;
	if (lists_functions(model))
		count = model->analysis->count;
	if (!cprof_grow(&ui->order, &ui->order_capacity, count, sizeof(*ui->order)))
		return;
	if (threads && *ui->filter)
		filtered = !regcomp(&regex, ui->filter + without, REG_EXTENDED | REG_NOSUB);
	for (uint32_t i = 0; i < count; i++)
		if (threads ? !filtered || thread_matches(&model->threads[i], &regex) != without
			    : function_shown(model, i))
			ui->order[ui->order_count++] = i;
	if (filtered)
		regfree(&regex);
	if (ui->order_count)
		qsort_r(ui->order, ui->order_count, sizeof(*ui->order), compare, ui);
}

/* --- rows ---------------------------------------------------------------------------------- */

int cprof_rows_count(const struct cprof_ui *ui)
{
	const struct cprof_model *model = cprof_ui_page(ui);

	if (!model)
		return 0;
	switch (model->page) {
	case CPROF_PAGE_LIST:
		if (model->view == CPROF_VIEW_MEMTRACE)
			return (int)model->line_count;
		return (int)ui->order_count;
	case CPROF_PAGE_PEEK:
		if (model->row == UINT32_MAX)
			return 0;
		return (int)(model->peek.caller_count + model->peek.callee_count) + 1;
	case CPROF_PAGE_SOURCE:
	case CPROF_PAGE_CODE:
		return model->listing ? (int)model->listing->count : 0;
	case CPROF_PAGE_STACK:
		return (int)model->line_count;
	default:
		return 0;
	}
}

/* The function's row in the analysis, or UINT32_MAX. */
static uint32_t function_row(const struct cprof_ui *ui, int row)
{
	const struct cprof_model *model = cprof_ui_page(ui);
	size_t i = (size_t)row;

	if (!model || row < 0 || row >= cprof_rows_count(ui))
		return UINT32_MAX;
	if (lists_functions(model))
		return ui->order[i];
	if (model->page != CPROF_PAGE_PEEK)
		return UINT32_MAX;
	if (i < model->peek.caller_count)
		return model->peek.callers[i].row;
	i -= model->peek.caller_count;
	return i ? model->peek.callees[i - 1].row : model->row;
}

const char *cprof_rows_function(const struct cprof_ui *ui, int row)
{
	const struct cprof_model *model = cprof_ui_page(ui);
	const struct cprof_tab *tab = &ui->tabs[ui->view];
	uint32_t id = function_row(ui, row);

	if (id != UINT32_MAX)
		return model->analysis->rows[id].name;
	if (model && model->page == CPROF_PAGE_FLAME)
		return cprof_flame_function(ui);
	return tab->levels[tab->depth].function;
}

const struct cprof_view_thread *cprof_rows_thread(const struct cprof_ui *ui, int row)
{
	const struct cprof_model *model = cprof_ui_page(ui);

	if (!model || !lists_threads(model) || row < 0 || row >= (int)ui->order_count)
		return NULL;
	return &model->threads[ui->order[row]];
}

bool cprof_rows_match(const struct cprof_ui *ui, int row)
{
	const struct cprof_model *model = cprof_ui_page(ui);
	uint32_t id = function_row(ui, row);
	const char *text = "";
	regex_t regex;
	bool matches;

	if (id != UINT32_MAX)
		return model->matches && model->matches[id];
	if (!model || !*ui->filter || *ui->filter == '!' ||
	    regcomp(&regex, ui->filter, REG_EXTENDED | REG_NOSUB))
		return false;
	if (model->listing && row < (int)model->listing->count)
		text = model->listing->rows[row].text;
	else if (row < (int)model->line_count)
		text = model->lines[row].text;
	matches = !regexec(&regex, text, 0, NULL, 0);
	regfree(&regex);
	return matches;
}

/* What tells a row from others, whatever its place; 0: its place only. */
static uint64_t mark_of(const struct cprof_ui *ui, int row)
{
	const struct cprof_view_thread *thread = cprof_rows_thread(ui, row);
	const struct cprof_model *model = cprof_ui_page(ui);
	uint32_t id = function_row(ui, row);

	if (thread)
		return thread->tid ? (uint64_t)thread->tid : hash_of(thread->name);
	if (id == UINT32_MAX)
		return 0;
	return hash_of(model->analysis->rows[id].name) +
	       (model->page == CPROF_PAGE_PEEK ? (row < (int)model->peek.caller_count   ? 2
						  : row > (int)model->peek.caller_count ? 4
											: 0)
					       : 0);
}

/* Who has not moved stays at the top, or in lines that keep coming at the end. */
void cprof_rows_select(struct cprof_ui *ui, int row)
{
	struct cprof_level *level = cprof_ui_level(ui);

	level->selected = row;
	level->mark = row ? mark_of(ui, row) : 0;
	level->placed = ui->view == CPROF_VIEW_MEMTRACE ? row + 1 < cprof_rows_count(ui) : true;
}

static void find_selection(struct cprof_ui *ui)
{
	struct cprof_level *level = cprof_ui_level(ui);
	const struct cprof_model *model = cprof_ui_page(ui);
	int count = cprof_rows_count(ui);

	if (!model)
		return;
	if (model->listing && !level->placed) {
		level->selected = (int)model->listing->hottest;
		level->top = CPROF_MAX(level->selected - ui->body_rows / 2, 0);
		level->placed = true;
	} else if (model->page == CPROF_PAGE_PEEK && !level->placed && count) {
		level->selected = (int)model->peek.caller_count;
		level->placed = true;
		level->mark = mark_of(ui, level->selected);
	} else if (model->view == CPROF_VIEW_MEMTRACE && !level->placed) {
		level->selected = count - 1;
	} else if (level->mark && mark_of(ui, level->selected) != level->mark) {
		for (int i = 0; i < count; i++)
			if (mark_of(ui, i) == level->mark) {
				level->selected = i;
				break;
			}
	}
	level->selected = CPROF_MAX(CPROF_MIN(level->selected, count - 1), 0);
}

void cprof_rows_update(struct cprof_ui *ui)
{
	const struct cprof_model *model = cprof_ui_page(ui);

	if (!model)
		return;
	cprof_columns_make(ui);
	make_order(ui);
	if (model->page == CPROF_PAGE_FLAME)
		cprof_flame_update(ui);
	else
		find_selection(ui);
}
