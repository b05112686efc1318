/* SPDX-License-Identifier: MIT
 *
 * The whole screen, and what stands in front of it.
 */
#include "ui.h"

#include <cprof/util.h>
#include <string.h>

#define KEYS_WIDTH 11

/* --- help ---------------------------------------------------------------------------------- */

static const char help_title[] = "cprof-attach: a process's CPU, memory, locks and threads";

/* Draws a row of help, or only counts (row < 0). A text has lines of its own. */
static int help_text(struct cprof_ui *ui, int row, const struct cprof_binding *binding)
{
	struct cprof_cells *cells = &ui->cells;
	int rows = 0;

	for (const char *next = binding->help; *next; rows++) {
		size_t length = strcspn(next, "\n");

		if (row + rows >= 0 && row + rows < cells->rows) {
			if (!rows)
				cprof_cells_put(cells, row, 1, KEYS_WIDTH, CPROF_STYLE_KEY,
						binding->keys);
			cprof_cells_printf(cells, row + rows, KEYS_WIDTH + 2,
					   cells->columns - KEYS_WIDTH - 2, CPROF_STYLE_NORMAL,
					   "%.*s", (int)length, next);
		}
		next += length;
		next += *next == '\n';
	}
	return rows;
}

int cprof_help_rows(const struct cprof_ui *ui)
{
	int rows = 3;

	(void)ui;
	for (const struct cprof_binding *binding = cprof_bindings; binding->request; binding++)
		for (const char *next = binding->help; next; rows++) {
			next = strchr(next, '\n');
			next = next ? next + 1 : NULL;
		}
	return rows;
}

static void draw_more(struct cprof_cells *cells)
{
	cprof_cells_fill(cells, cells->rows - 1, 0, cells->columns, CPROF_STYLE_SELECTED);
	cprof_cells_put(cells, cells->rows - 1, 1, cells->columns, CPROF_STYLE_SELECTED,
			"more below: Space, Down; any other key: back");
}

void cprof_draw_help(struct cprof_ui *ui)
{
	struct cprof_cells *cells = &ui->cells;
	int row = -ui->dialog_top;

	cprof_cells_clear(cells);
	if (row >= 0)
		cprof_cells_put(cells, row, 1, cells->columns, CPROF_STYLE_TITLE, help_title);
	row += 2;
	for (const struct cprof_binding *binding = cprof_bindings; binding->request; binding++)
		if (binding->help)
			row += help_text(ui, row, binding);
	if (row < cells->rows)
		cprof_cells_put(cells, row, 1, cells->columns, CPROF_STYLE_DIM,
				"any other key: back");
	else if (cells->rows > 1)
		draw_more(cells);
}

/* --- threads ------------------------------------------------------------------------------- */

void cprof_draw_thread_dialog(struct cprof_ui *ui)
{
	const struct cprof_model *model = ui->model;
	struct cprof_cells *cells = &ui->cells;
	int rows = ui->body_rows - 1, count = model ? (int)model->thread_count + 1 : 0;
	char value[CPROF_ANALYSIS_TEXT];

	for (int i = 0; i < ui->body_rows; i++)
		cprof_cells_fill(cells, ui->body_row + i, 0, cells->columns, CPROF_STYLE_NORMAL);
	cprof_cells_fill(cells, ui->body_row, 0, cells->columns, CPROF_STYLE_HEAD);
	cprof_cells_put(cells, ui->body_row, 0, cells->columns, CPROF_STYLE_HEAD,
			"only one thread: Enter chooses, Esc goes back");
	if (rows < 1 || !model || !model->profile)
		return;
	ui->dialog_selected = CPROF_MIN(ui->dialog_selected, count - 1);
	ui->dialog_top = CPROF_MIN(ui->dialog_top, ui->dialog_selected);
	ui->dialog_top = CPROF_MAX(ui->dialog_top, ui->dialog_selected - rows + 1);
	for (int i = 0; i < rows && ui->dialog_top + i < count; i++) {
		int number = ui->dialog_top + i, row = ui->body_row + 1 + i;
		enum cprof_style style =
			number == ui->dialog_selected ? CPROF_STYLE_SELECTED : CPROF_STYLE_NORMAL;
		const struct cprof_view_thread *thread = &model->threads[number - (number > 0)];

		cprof_cells_fill(cells, row, 0, cells->columns, style);
		if (!number) {
			cprof_cells_put(cells, row, 12, cells->columns, style, "all threads");
			continue;
		}
		cprof_value_text(thread->value, model->unit, model->output_unit, 10, value);
		cprof_cells_right(cells, row, 0, 10, style, value);
		cprof_cells_printf(cells, row, 12, cells->columns - 12, style, "%-16s %7lld  %s",
				   thread->name, (long long)thread->tid, thread->top);
	}
}

/* --- all ----------------------------------------------------------------------------------- */

void cprof_draw(struct cprof_ui *ui)
{
	int head, foot;

	cprof_cells_clear(&ui->cells);
	if (ui->dialog == CPROF_DIALOG_HELP) {
		cprof_draw_help(ui);
		return;
	}
	foot = cprof_draw_foot(ui);
	head = cprof_draw_head(ui);
	ui->body_row = head;
	ui->body_rows = ui->cells.rows - head - foot;
	if (ui->dialog == CPROF_DIALOG_THREAD)
		cprof_draw_thread_dialog(ui);
	else
		cprof_draw_body(ui);
	if (!ui->model)
		cprof_cells_put(&ui->cells, ui->cells.rows / 2, 0, ui->cells.columns,
				CPROF_STYLE_DIM, "starting ...");
}
