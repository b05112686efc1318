/* SPDX-License-Identifier: MIT */
#include "ui.h"

#include <cprof/util.h>
#include <stdarg.h>
#include <string.h>

static const uint64_t windows_ns[] = {1000000000,  5000000000,  10000000000,
				      30000000000, 60000000000, 0};
#define WINDOW_LIVE  2 /* what a view begins with */
#define WINDOW_START 5

void cprof_ui_init(struct cprof_ui *ui, struct cprof_worker *worker,
		   const struct cprof_view_config *config)
{
	*ui = (struct cprof_ui){
		.worker = worker, .config = config, .saved_view = cprof_worker_saved_view(worker)};
	ui->window = ui->saved_view == CPROF_VIEWS ? WINDOW_LIVE : WINDOW_START;
	ui->view = cprof_worker_first_view(worker);
	ui->saved_title = cprof_worker_saved_title(worker);
	for (size_t i = 0; i < CPROF_VIEWS; i++) {
		ui->tabs[i].sort = i == CPROF_VIEW_THREADS ? CPROF_COLUMN_CPU : CPROF_COLUMN_FLAT;
		if (config->sample_index)
			snprintf(ui->tabs[i].type, sizeof(ui->tabs[i].type), "%s",
				 config->sample_index);
	}
	if (ui->saved_view != CPROF_VIEWS)
		ui->tabs[CPROF_VIEW_THREADS].sort = CPROF_COLUMN_VALUE;
	if (config->focus)
		snprintf(ui->filter, sizeof(ui->filter), "%s", config->focus);
}

void cprof_ui_deinit(struct cprof_ui *ui)
{
	for (size_t i = 0; i < CPROF_VIEWS; i++)
		for (int j = 0; j <= ui->tabs[i].depth; j++)
			free(ui->tabs[i].levels[j].function);
	if (ui->model)
		cprof_worker_give_back(ui->worker, ui->model);
	cprof_cells_deinit(&ui->cells);
	free(ui->order);
}

struct cprof_tab *cprof_ui_tab(struct cprof_ui *ui)
{
	return &ui->tabs[ui->view];
}

struct cprof_level *cprof_ui_level(struct cprof_ui *ui)
{
	struct cprof_tab *tab = cprof_ui_tab(ui);

	return &tab->levels[tab->depth];
}

uint64_t cprof_ui_window_ns(const struct cprof_ui *ui)
{
	return windows_ns[ui->window];
}

void cprof_ui_say(struct cprof_ui *ui, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(ui->message, sizeof(ui->message), format, arguments);
	va_end(arguments);
}

const struct cprof_model *cprof_ui_page(const struct cprof_ui *ui)
{
	const struct cprof_tab *tab = &ui->tabs[ui->view];

	if (!ui->model || ui->model->view != ui->view ||
	    ui->model->page != tab->levels[tab->depth].page)
		return NULL;
	return ui->model;
}

bool cprof_ui_pending(const struct cprof_ui *ui)
{
	return !ui->model || ui->model->serial != ui->serial || cprof_worker_busy(ui->worker);
}

void cprof_ui_ask(struct cprof_ui *ui)
{
	const struct cprof_level *level = cprof_ui_level(ui);
	struct cprof_want want = {
		.view = ui->view,
		.page = level->page,
		.window_ns = cprof_ui_window_ns(ui),
		.frozen = ui->frozen,
		.tid = ui->tid,
		.stack_tid = level->tid,
		.function = level->function,
	};

	memcpy(want.type, cprof_ui_tab(ui)->type, sizeof(want.type));
	memcpy(want.thread, ui->thread, sizeof(want.thread));
	memcpy(want.stack_thread, level->thread, sizeof(want.stack_thread));
	memcpy(want.filter, ui->filter, sizeof(want.filter));
	ui->serial = cprof_worker_want(ui->worker, &want);
	ui->asked_ns = cprof_now_ns();
}

/* In the choice of a thread the same one stays selected, wherever it is now. */
static void keep_chosen(struct cprof_ui *ui, const struct cprof_model *model)
{
	const struct cprof_view_thread *chosen;

	if (ui->dialog != CPROF_DIALOG_THREAD || !ui->dialog_selected || !ui->model ||
	    (size_t)ui->dialog_selected > ui->model->thread_count)
		return;
	chosen = &ui->model->threads[ui->dialog_selected - 1];
	for (size_t i = 0; i < model->thread_count; i++)
		if (model->threads[i].tid == chosen->tid &&
		    !strcmp(model->threads[i].name, chosen->name))
			ui->dialog_selected = (int)i + 1;
}

bool cprof_ui_receive(struct cprof_ui *ui)
{
	struct cprof_model *model = cprof_worker_take(ui->worker);
	bool news = cprof_worker_told(ui->worker, ui->message, sizeof(ui->message));

	if (!model)
		return news;
	keep_chosen(ui, model);
	if (ui->model)
		cprof_worker_give_back(ui->worker, ui->model);
	ui->model = model;
	cprof_rows_update(ui);
	return true;
}

/* The window is changed here, since nobody else knows what there is to choose from. */
static unsigned change_window(struct cprof_ui *ui, int step)
{
	size_t most = CPROF_COUNT(windows_ns) - 1;

	if (ui->saved_view != CPROF_VIEWS) {
		cprof_ui_say(ui, "a saved profile has no other window than its own");
		return CPROF_CHANGED_SCREEN;
	}
	if (ui->frozen) {
		cprof_ui_say(ui, "the picture is frozen: Space first");
		return CPROF_CHANGED_SCREEN;
	}
	if (step < 0 ? ui->window == 0 : ui->window == most)
		return CPROF_CHANGED_NOTHING;
	ui->window = step < 0 ? ui->window - 1 : ui->window + 1;
	return CPROF_CHANGED_SCREEN | CPROF_CHANGED_WANT;
}

void cprof_ui_key(struct cprof_ui *ui, const struct cprof_key *key)
{
	enum cprof_request request = cprof_key_request(key->code);
	unsigned changed;

	ui->message[0] = '\0';
	if (ui->dialog != CPROF_DIALOG_NONE)
		changed = cprof_ui_dialog_key(ui, key);
	else if (request == CPROF_REQUEST_LONGER || request == CPROF_REQUEST_SHORTER)
		changed = change_window(ui, request == CPROF_REQUEST_LONGER ? 1 : -1);
	else
		changed = cprof_ui_handle(ui, request, key);
	if (changed & CPROF_CHANGED_WANT)
		cprof_ui_ask(ui);
	if (changed & (CPROF_CHANGED_ORDER | CPROF_CHANGED_WANT))
		cprof_rows_update(ui);
}
