/* SPDX-License-Identifier: MIT
 *
 * What each request does.
 */
#include "ui.h"

#include <cprof/util.h>
#include <string.h>

#define WHEEL_ROWS 3
#define SHIFT_STEP 8

/* --- pages --------------------------------------------------------------------------------- */

unsigned cprof_ui_push(struct cprof_ui *ui, enum cprof_page page, const char *function)
{
	struct cprof_tab *tab = cprof_ui_tab(ui);
	char *copy = function ? strdup(function) : NULL;

	if (tab->depth + 1 == CPROF_LEVELS) { /* who has come so far needs the oldest least */
		free(tab->levels[1].function);
		memmove(&tab->levels[1], &tab->levels[2],
			(CPROF_LEVELS - 2) * sizeof(*tab->levels));
		tab->depth--;
	}
	tab->levels[++tab->depth] = (struct cprof_level){.page = page, .function = copy};
	return CPROF_CHANGED_SCREEN | CPROF_CHANGED_WANT;
}

unsigned cprof_ui_pop(struct cprof_ui *ui)
{
	struct cprof_tab *tab = cprof_ui_tab(ui);

	free(cprof_take(tab->levels[tab->depth].function));
	tab->depth--;
	return CPROF_CHANGED_SCREEN | CPROF_CHANGED_WANT;
}

static unsigned show_view(struct cprof_ui *ui, enum cprof_view_id view)
{
	ui->view = view;
	return CPROF_CHANGED_SCREEN | CPROF_CHANGED_WANT;
}

/* Enter on a view that is off starts it. */
static bool start_kind(struct cprof_ui *ui)
{
	const struct cprof_model *model = cprof_ui_page(ui);

	if (!model || model->kinds[ui->view].state != CPROF_SOURCE_OFF)
		return false;
	cprof_worker_act(ui->worker, CPROF_ACTION_BEGIN, ui->view, NULL);
	cprof_ui_say(ui, "starting %s ...", cprof_view_title(ui, ui->view));
	return true;
}

static unsigned enter(struct cprof_ui *ui)
{
	const struct cprof_level *level = cprof_ui_level(ui);
	const struct cprof_view_thread *thread;
	const char *function;

	if (start_kind(ui))
		return CPROF_CHANGED_SCREEN;
	if (level->page == CPROF_PAGE_FLAME && cprof_flame_zoom(ui))
		return CPROF_CHANGED_SCREEN;
	if (ui->view == CPROF_VIEW_THREADS && level->page == CPROF_PAGE_LIST) {
		thread = cprof_rows_thread(ui, level->selected);
		if (!thread)
			return CPROF_CHANGED_NOTHING;
		cprof_ui_push(ui, CPROF_PAGE_STACK, NULL);
		cprof_ui_level(ui)->tid = thread->tid;
		memcpy(cprof_ui_level(ui)->thread, thread->name, sizeof(thread->name));
		return CPROF_CHANGED_SCREEN | CPROF_CHANGED_WANT;
	}
	function = cprof_rows_function(ui, level->selected);
	if (!function || (level->page == CPROF_PAGE_PEEK && level->function &&
			  !strcmp(function, level->function)))
		return CPROF_CHANGED_NOTHING;
	if (level->page == CPROF_PAGE_SOURCE || level->page == CPROF_PAGE_CODE)
		return CPROF_CHANGED_NOTHING;
	return cprof_ui_push(ui, CPROF_PAGE_PEEK, function);
}

static unsigned open_page(struct cprof_ui *ui, enum cprof_page page)
{
	const struct cprof_level *level = cprof_ui_level(ui);
	const char *function = cprof_rows_function(ui, level->selected);
	bool listing = page != CPROF_PAGE_FLAME;
	bool from_listing = level->page == CPROF_PAGE_SOURCE || level->page == CPROF_PAGE_CODE;
	CPROF_AUTO_FREE char *copy = NULL;

	if (level->page == page)
		return cprof_ui_pop(ui);
	if (ui->view >= CPROF_VIEW_PROFILES) {
		cprof_ui_say(ui, "only profiles have this: 1 CPU, 2 heap, 3 mutex, 4 block");
		return CPROF_CHANGED_SCREEN;
	}
	if (listing && !function) {
		cprof_ui_say(ui, "no function is selected");
		return CPROF_CHANGED_SCREEN;
	}
	copy = listing ? strdup(function) : NULL;
	if (from_listing)
		cprof_ui_pop(ui);
	return cprof_ui_push(ui, page, copy);
}

static unsigned back(struct cprof_ui *ui)
{
	if (cprof_ui_level(ui)->page == CPROF_PAGE_FLAME && cprof_flame_back(ui))
		return CPROF_CHANGED_SCREEN;
	if (cprof_ui_tab(ui)->depth)
		return cprof_ui_pop(ui);
	if (*ui->filter) {
		ui->filter[0] = '\0';
		return CPROF_CHANGED_SCREEN | CPROF_CHANGED_WANT;
	}
	if (ui->tid || *ui->thread) {
		ui->tid = 0;
		ui->thread[0] = '\0';
		return CPROF_CHANGED_SCREEN | CPROF_CHANGED_WANT;
	}
	cprof_ui_say(ui, "q leaves");
	return CPROF_CHANGED_SCREEN;
}

/* --- moving -------------------------------------------------------------------------------- */

static unsigned move(struct cprof_ui *ui, enum cprof_request request)
{
	struct cprof_level *level = cprof_ui_level(ui);
	int last = cprof_rows_count(ui) - 1, page = CPROF_MAX(ui->body_rows - 1, 1);
	int row = level->selected;

	if (level->page == CPROF_PAGE_FLAME) {
		cprof_flame_move(ui, request);
		return CPROF_CHANGED_SCREEN;
	}
	switch (request) {
	case CPROF_REQUEST_UP:
		row--;
		break;
	case CPROF_REQUEST_DOWN:
		row++;
		break;
	case CPROF_REQUEST_PAGE_UP:
		row -= page;
		break;
	case CPROF_REQUEST_PAGE_DOWN:
		row += page;
		break;
	case CPROF_REQUEST_HOME:
		row = 0;
		break;
	case CPROF_REQUEST_END:
		row = last;
		break;
	case CPROF_REQUEST_SCROLL_UP:
		row -= WHEEL_ROWS;
		break;
	case CPROF_REQUEST_SCROLL_DOWN:
		row += WHEEL_ROWS;
		break;
	case CPROF_REQUEST_LEFT:
		level->shift = CPROF_MAX(level->shift - SHIFT_STEP, 0);
		return CPROF_CHANGED_SCREEN;
	case CPROF_REQUEST_RIGHT:
		level->shift = CPROF_MIN(level->shift + SHIFT_STEP, 1000);
		return CPROF_CHANGED_SCREEN;
	default:
		break;
	}
	cprof_rows_select(ui, CPROF_MAX(CPROF_MIN(row, last), 0));
	return CPROF_CHANGED_SCREEN;
}

static unsigned next_match(struct cprof_ui *ui, int step)
{
	struct cprof_level *level = cprof_ui_level(ui);
	int count = cprof_rows_count(ui);

	if (!*ui->filter) {
		cprof_ui_say(ui, "there is no filter: / sets one");
		return CPROF_CHANGED_SCREEN;
	}
	for (int i = 1; i <= count; i++) {
		int row = ((level->selected + step * i) % count + count) % count;

		if (cprof_rows_match(ui, row)) {
			cprof_rows_select(ui, row);
			break;
		}
	}
	return CPROF_CHANGED_SCREEN;
}

static unsigned sort_by(struct cprof_ui *ui, const struct cprof_column *column)
{
	struct cprof_tab *tab = cprof_ui_tab(ui);
	enum cprof_column_kind kind = column->kind;

	if (kind == CPROF_COLUMN_FLAT_SHARE || kind == CPROF_COLUMN_SUM_SHARE)
		kind = CPROF_COLUMN_FLAT;
	if (kind == CPROF_COLUMN_CUM_SHARE)
		kind = CPROF_COLUMN_CUM;
	if (kind == CPROF_COLUMN_VALUE_SHARE)
		kind = CPROF_COLUMN_VALUE;
	if (tab->sort == kind && tab->sort_type == column->type)
		tab->reverse = !tab->reverse;
	else
		tab->reverse = false;
	tab->sort = kind;
	tab->sort_type = column->type;
	cprof_rows_select(ui, 0);
	return CPROF_CHANGED_SCREEN | CPROF_CHANGED_ORDER;
}

static unsigned click(struct cprof_ui *ui, const struct cprof_key *key)
{
	struct cprof_level *level = cprof_ui_level(ui);
	int row = level->top + key->row - ui->body_row;

	if (key->row == ui->tabs_row)
		for (enum cprof_view_id view = 0; view < CPROF_VIEWS; view++)
			if (key->column >= ui->tab_left[view] &&
			    key->column < ui->tab_left[view + 1])
				return show_view(ui, view);
	if (key->row == ui->head_row && level->page == CPROF_PAGE_LIST)
		for (size_t i = 0; i < ui->column_count; i++)
			if (key->column >= ui->columns[i].left &&
			    key->column <= ui->columns[i].left + ui->columns[i].width)
				return sort_by(ui, &ui->columns[i]);
	if (key->row < ui->body_row || key->row >= ui->body_row + ui->body_rows)
		return CPROF_CHANGED_NOTHING;
	if (level->page == CPROF_PAGE_FLAME) {
		cprof_flame_click(ui, key->row, key->column);
		return CPROF_CHANGED_SCREEN;
	}
	if (row >= cprof_rows_count(ui))
		return CPROF_CHANGED_NOTHING;
	if (row == level->selected)
		return enter(ui); /* a second click */
	cprof_rows_select(ui, row);
	return CPROF_CHANGED_SCREEN;
}

/* --- values, baselines, files -------------------------------------------------------------- */

static unsigned next_type(struct cprof_ui *ui)
{
	const struct cprof_model *model = ui->model;
	struct cprof_tab *tab = cprof_ui_tab(ui);
	size_t next;

	if (!model || model->view != ui->view || !model->profile) {
		cprof_ui_say(ui, "there are no value types here");
		return CPROF_CHANGED_SCREEN;
	}
	next = (model->type + 1) % model->profile->type_count;
	snprintf(tab->type, sizeof(tab->type), "%s",
		 model->profile->strings[model->profile->types[next].type]);
	return CPROF_CHANGED_SCREEN | CPROF_CHANGED_WANT;
}

static unsigned act(struct cprof_ui *ui, enum cprof_action action, const char *doing)
{
	struct cprof_model *model = NULL;

	if (action == CPROF_ACTION_WRITE)
		model = ui->model && ui->model->view == ui->view ? ui->model : NULL;
	cprof_ui_say(ui, "%s", doing);
	cprof_worker_act(ui->worker, action, ui->view, model);
	return CPROF_CHANGED_SCREEN;
}

static unsigned freeze(struct cprof_ui *ui)
{
	if (ui->saved_view != CPROF_VIEWS) {
		cprof_ui_say(ui, "a saved profile does not change");
		return CPROF_CHANGED_SCREEN;
	}
	ui->frozen = !ui->frozen;
	return CPROF_CHANGED_SCREEN | CPROF_CHANGED_WANT;
}

unsigned cprof_ui_handle(struct cprof_ui *ui, enum cprof_request request,
			 const struct cprof_key *key)
{
	switch (request) {
	case CPROF_REQUEST_VIEW:
		return show_view(ui, (enum cprof_view_id)(key->code - '1'));
	case CPROF_REQUEST_NEXT_VIEW:
		return show_view(ui, (ui->view + 1) % CPROF_VIEWS);
	case CPROF_REQUEST_PREVIOUS_VIEW:
		return show_view(ui, (ui->view + CPROF_VIEWS - 1) % CPROF_VIEWS);
	case CPROF_REQUEST_ENTER:
		return enter(ui);
	case CPROF_REQUEST_FLAME:
		return open_page(ui, CPROF_PAGE_FLAME);
	case CPROF_REQUEST_SOURCE:
		return open_page(ui, CPROF_PAGE_SOURCE);
	case CPROF_REQUEST_CODE:
		return open_page(ui, CPROF_PAGE_CODE);
	case CPROF_REQUEST_FILTER:
		return cprof_ui_open_dialog(ui, CPROF_DIALOG_FILTER);
	case CPROF_REQUEST_THREAD:
		return cprof_ui_open_dialog(ui, CPROF_DIALOG_THREAD);
	case CPROF_REQUEST_HELP:
		return cprof_ui_open_dialog(ui, CPROF_DIALOG_HELP);
	case CPROF_REQUEST_SORT:
		cprof_columns_next_sort(ui);
		return CPROF_CHANGED_SCREEN | CPROF_CHANGED_ORDER;
	case CPROF_REQUEST_REVERSE:
		cprof_ui_tab(ui)->reverse = !cprof_ui_tab(ui)->reverse;
		return CPROF_CHANGED_SCREEN | CPROF_CHANGED_ORDER;
	case CPROF_REQUEST_TYPE:
		return next_type(ui);
	case CPROF_REQUEST_FREEZE:
		return freeze(ui);
	case CPROF_REQUEST_WRITE:
		return act(ui, CPROF_ACTION_WRITE, "writing ...");
	case CPROF_REQUEST_DUMP:
		return act(ui, CPROF_ACTION_DUMP, "dumping ...");
	case CPROF_REQUEST_RESET:
		return act(ui, CPROF_ACTION_RESET, "");
	case CPROF_REQUEST_BASE:
		return act(ui, CPROF_ACTION_BASE, "");
	case CPROF_REQUEST_UNBASE:
		return act(ui, CPROF_ACTION_UNBASE, "");
	case CPROF_REQUEST_NEXT_MATCH:
		return next_match(ui, 1);
	case CPROF_REQUEST_PREVIOUS_MATCH:
		return next_match(ui, -1);
	case CPROF_REQUEST_BACK:
		return back(ui);
	case CPROF_REQUEST_QUIT:
		ui->quit = true;
		return CPROF_CHANGED_NOTHING;
	case CPROF_REQUEST_CLICK:
		return click(ui, key);
	case CPROF_REQUEST_NONE:
	case CPROF_REQUEST_REDRAW:
		return CPROF_CHANGED_SCREEN;
	default:
		return move(ui, request);
	}
}
