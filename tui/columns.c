/* SPDX-License-Identifier: MIT
 *
 * Which columns a list has, by what is known and by how wide the screen is.
 */
#include "ui.h"

#include <cprof/util.h>
#include <string.h>

#define NAME_LEAST 24

static void add(struct cprof_ui *ui, enum cprof_column_kind kind, const char *title, int width,
		bool to_right)
{
	struct cprof_column *column = &ui->columns[ui->column_count];
	int left = 0;

	if (ui->column_count == CPROF_COLUMNS)
		return;
	if (ui->column_count)
		left = column[-1].left + column[-1].width + 1;
	*column = (struct cprof_column){
		.kind = kind, .left = left, .width = width, .to_right = to_right};
	cprof_text_clean(title, strlen(title), column->title, sizeof(column->title));
	ui->column_count++;
}

static int used(const struct cprof_ui *ui)
{
	const struct cprof_column *last = &ui->columns[ui->column_count - 1];

	return last->left + last->width + 1;
}

/* How much another type has to do with the one that is shown: inuse_objects with inuse_space, say,
 * more than alloc_space. */
static int kinship(const char *type, const char *shown)
{
	size_t prefix = strcspn(shown, "_");

	return shown[prefix] && !strncmp(type, shown, prefix + 1) ? 1 : 0;
}

static void add_others(struct cprof_ui *ui, int left_for_name)
{
	const struct cprof_model *model = ui->model;
	const struct cprof_profile *profile = model->profile;
	const char *shown = profile->strings[profile->types[model->type].type];

	for (int kin = 1; kin >= 0; kin--)
		for (size_t i = 0; i < profile->type_count; i++) {
			const char *type = profile->strings[profile->types[i].type];
			int width = CPROF_MAX(CPROF_MIN((int)strlen(type), 13), 9);

			if (i == model->type || kinship(type, shown) != kin ||
			    used(ui) + width + 1 + left_for_name > ui->cells.columns)
				continue;
			add(ui, CPROF_COLUMN_OTHER, type, width, true);
			ui->columns[ui->column_count - 1].type = i;
		}
}

static void make_functions(struct cprof_ui *ui)
{
	const struct cprof_model *model = ui->model;
	int columns = ui->cells.columns;
	int module = columns >= 140 ? 24 : columns >= 100 ? 18 : columns >= 78 ? 12 : 0;

	add(ui, CPROF_COLUMN_FLAT, "flat", 9, true);
	add(ui, CPROF_COLUMN_FLAT_SHARE, "flat%", 6, true);
	if (columns >= 110)
		add(ui, CPROF_COLUMN_SUM_SHARE, "sum%", 6, true);
	if (columns >= 50) {
		add(ui, CPROF_COLUMN_CUM, "cum", 9, true);
		add(ui, CPROF_COLUMN_CUM_SHARE, "cum%", 6, true);
	}
	if (model->view == CPROF_VIEW_HEAP && ui->saved_view == CPROF_VIEWS && columns >= 70)
		add(ui, CPROF_COLUMN_GROWTH, "growth/s", 9, true);
	if (model->view == CPROF_VIEW_HEAP && columns < 110)
		module = 0;
	add_others(ui, NAME_LEAST + module + 12);
	add(ui, CPROF_COLUMN_NAME, "function",
	    CPROF_MAX(columns - used(ui) - module - (module > 0), 1), false);
	if (module)
		add(ui, CPROF_COLUMN_MODULE, "module", module, false);
}

static void make_threads(struct cprof_ui *ui)
{
	const struct cprof_model *model = ui->model;
	bool saved = ui->saved_view != CPROF_VIEWS;
	int columns = ui->cells.columns, rest;

	add(ui, CPROF_COLUMN_TID, "tid", 7, true);
	add(ui, CPROF_COLUMN_THREAD, "thread", columns >= 60 ? 15 : 8, false);
	if (saved) {
		const char *type =
			model->profile
				? model->profile->strings[model->profile->types[model->type].type]
				: "";

		add(ui, CPROF_COLUMN_VALUE, type, 12, true);
		add(ui, CPROF_COLUMN_VALUE_SHARE, "%", 6, true);
	} else {
		add(ui, CPROF_COLUMN_STATE, "S", 1, false);
		add(ui, CPROF_COLUMN_CPU, "CPU%", 6, true);
		if (columns >= 60)
			add(ui, CPROF_COLUMN_TIME, "time", 8, true);
	}
	add(ui, CPROF_COLUMN_WAIT, "waits", 6, false);
	rest = columns - used(ui);
	if (rest >= 24 && !saved) {
		add(ui, CPROF_COLUMN_TOP, "in", rest / 2, false);
		add(ui, CPROF_COLUMN_DETAIL, "for", rest - rest / 2 - 1, false);
	} else {
		add(ui, CPROF_COLUMN_TOP, "in", CPROF_MAX(rest, 1), false);
	}
}

void cprof_columns_make(struct cprof_ui *ui)
{
	const struct cprof_model *model = cprof_ui_page(ui);

	ui->column_count = 0;
	if (!model || model->page != CPROF_PAGE_LIST)
		return;
	if (model->view == CPROF_VIEW_THREADS)
		make_threads(ui);
	else if (model->view < CPROF_VIEW_PROFILES && model->analysis)
		make_functions(ui);
}

static bool sortable(enum cprof_column_kind kind)
{
	return kind != CPROF_COLUMN_FLAT_SHARE && kind != CPROF_COLUMN_SUM_SHARE &&
	       kind != CPROF_COLUMN_CUM_SHARE && kind != CPROF_COLUMN_VALUE_SHARE;
}

void cprof_columns_next_sort(struct cprof_ui *ui)
{
	struct cprof_tab *tab = cprof_ui_tab(ui);
	size_t at = 0;

	if (!ui->column_count || !cprof_ui_page(ui) || cprof_ui_page(ui)->page != CPROF_PAGE_LIST) {
		cprof_ui_say(ui, "nothing is sorted here");
		return;
	}
	while (at < ui->column_count &&
	       (ui->columns[at].kind != tab->sort || ui->columns[at].type != tab->sort_type))
		at++;
	for (size_t i = 1; i <= ui->column_count; i++) {
		const struct cprof_column *column = &ui->columns[(at + i) % ui->column_count];

		if (!sortable(column->kind))
			continue;
		tab->sort = column->kind;
		tab->sort_type = column->type;
		tab->reverse = false;
		cprof_ui_say(ui, "sorted by %s", column->title);
		break;
	}
	cprof_rows_select(ui, 0);
}
