/* SPDX-License-Identifier: MIT
 *
 * Where there is nothing to see: why, and what can be done about it.
 */
#include "ui.h"

#include <cprof/util.h>
#include <string.h>

static const char *const about_heap[] = {
	"The heap profile needs an agent in the process. Attaching it",
	"stops one thread for some milliseconds, maps 64 KiB of code, and",
	"leads the calls of malloc, free and their kin through it: each then",
	"costs some ns more, one in 512 KiB (--heap-rate) is looked at.",
	"Only what is allocated from now on is seen.",
	"",
	"Leaving takes the hooks out again.",
	NULL,
};
static const char *const about_mutex[] = {
	"The mutex profile needs an agent in the process. Attaching it",
	"stops one thread for some milliseconds, maps 64 KiB of code, and",
	"leads the locks of pthreads through it: a free lock costs a ns or",
	"two more, one that is taken is timed.",
	"Block (4) tells where threads wait, without an agent.",
	"",
	"Leaving takes the hooks out again.",
	NULL,
};
static const char *const about_block[] = {
	"Where threads wait is told by the kernel's switch records: nothing",
	"is put into the process; its threads are stopped once, for some ms.",
	NULL,
};

static int centered_line(struct cprof_ui *ui, int row, enum cprof_style style, const char *text)
{
	int width = cprof_text_width(text, ui->cells.utf8);
	int left = CPROF_MAX((CPROF_MIN(ui->cells.columns, 78) - width) / 2, 0);

	if (row < ui->body_row + ui->body_rows)
		cprof_cells_put(&ui->cells, row, left, ui->cells.columns - left, style, text);
	return row + 1;
}

/* What is too wide goes on in the next row, from a space on where there is one. */
static int centered(struct cprof_ui *ui, int row, enum cprof_style style, const char *text)
{
	int room = CPROF_MIN(ui->cells.columns, 78);
	char line[256];

	while (cprof_text_width(text, ui->cells.utf8) > room) {
		size_t end = 0;

		for (size_t i = 1; text[i] && i < sizeof(line); i++) {
			if (text[i] != ' ')
				continue;
			snprintf(line, sizeof(line), "%.*s", (int)i, text);
			if (cprof_text_width(line, ui->cells.utf8) > room)
				break;
			end = i;
		}
		if (!end)
			break;
		snprintf(line, sizeof(line), "%.*s", (int)end, text);
		row = centered_line(ui, row, style, line);
		text += end + strspn(text + end, " ");
	}
	return centered_line(ui, row, style, text);
}

static void draw_off(struct cprof_ui *ui, const struct cprof_model *model)
{
	const char *const *about = ui->view == CPROF_VIEW_HEAP    ? about_heap
				   : ui->view == CPROF_VIEW_MUTEX ? about_mutex
								  : about_block;
	int row = ui->body_row + (ui->body_rows > 14 ? 2 : 0);
	int last = ui->body_row + ui->body_rows - 1;

	/* What is said of what is off is said better below; what went wrong is not. */
	if (!strncmp(model->kinds[ui->view].detail, "could not", 9))
		row = centered(ui, row, CPROF_STYLE_NORMAL, model->kinds[ui->view].detail) + 1;
	for (; *about; about++)
		row = centered(ui, row, CPROF_STYLE_NORMAL, *about);
	row = centered(ui, row, CPROF_STYLE_NORMAL, "");
	/* Where there is little room, this matters most. */
	if (row > last) {
		row = last;
		cprof_cells_fill(&ui->cells, row, 0, ui->cells.columns, CPROF_STYLE_NORMAL);
	}
	centered(ui, row, CPROF_STYLE_BOLD,
		 cprof_worker_starting(ui->worker, ui->view) ? "starting ..."
		 : ui->view == CPROF_VIEW_BLOCK              ? "Enter starts it"
							     : "Enter attaches the agent");
}

static bool has_other_values(const struct cprof_model *model)
{
	for (size_t i = 0; model->analysis && i < model->profile->type_count; i++)
		if (model->analysis->totals[i])
			return true;
	return false;
}

/* What to try where there are no rows. */
static const char *advice(const struct cprof_ui *ui, const struct cprof_model *model)
{
	if (*ui->filter && (model->whole || model->view >= CPROF_VIEW_PROFILES))
		return "nothing matches the filter (Esc takes it off)";
	if (ui->tid || *ui->thread)
		return "that thread has no samples here (Esc: all threads, + longer window)";
	if (*model->base)
		return "no difference to the baseline (B: no baseline any more)";
	if (!model->live && model->whole)
		return "the samples have no stacks";
	if (!model->live)
		return "there are no samples";
	if (model->view == CPROF_VIEW_CPU)
		return "no samples: the process has not run in this time (+ longer window, 4 where "
		       "it "
		       "waits, 5 its threads)";
	if (model->view == CPROF_VIEW_HEAP && has_other_values(model))
		return "nothing that was sampled is held any more (i: what has been allocated)";
	if (model->view == CPROF_VIEW_HEAP)
		return "nothing was sampled yet of what has been allocated since the agent came";
	if (model->view == CPROF_VIEW_MEMTRACE)
		return "the first line comes after a second";
	return "nobody has waited in this time (+ longer window)";
}

void cprof_draw_empty(struct cprof_ui *ui, const struct cprof_model *model)
{
	const struct cprof_source_kind *kind = &model->kinds[ui->view];
	int row = ui->body_row + (ui->body_rows > 6 ? 2 : 0);
	char text[1200];

	if (*model->problem) {
		row = centered(ui, row, CPROF_STYLE_WARN, model->problem);
		if (cprof_ui_tab(ui)->depth)
			centered(ui, row + 1, CPROF_STYLE_NORMAL, "Esc goes back");
	} else if (kind->state == CPROF_SOURCE_OFF)
		draw_off(ui, model);
	else if (kind->state == CPROF_SOURCE_ABSENT) {
		row = centered(ui, row, CPROF_STYLE_NORMAL, "not here:");
		centered(ui, row, CPROF_STYLE_NORMAL, kind->detail);
	} else if (model->page != CPROF_PAGE_LIST && model->page != CPROF_PAGE_FLAME &&
		   cprof_ui_level(ui)->function) {
		snprintf(text, sizeof(text), "%s has no samples here",
			 cprof_ui_level(ui)->function);
		row = centered(ui, row, CPROF_STYLE_NORMAL, text);
		centered(ui, row, CPROF_STYLE_NORMAL, "Esc goes back");
	} else {
		centered(ui, row, CPROF_STYLE_NORMAL, advice(ui, model));
	}
}
