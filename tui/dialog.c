/* SPDX-License-Identifier: MIT
 *
 * What stands in front of a page: the line for a filter, the choice of a thread, the help.
 */
#include "ui.h"

#include <cprof/util.h>
#include <regex.h>
#include <string.h>

/* --- filter -------------------------------------------------------------------------------- */

/* An expression that is not finished yet changes nothing. */
static unsigned try_filter(struct cprof_ui *ui)
{
	regex_t regex;
	int result = regcomp(&regex, ui->input + (*ui->input == '!'), REG_EXTENDED | REG_NOSUB);

	ui->input_error[0] = '\0';
	if (result) {
		regerror(result, &regex, ui->input_error, sizeof(ui->input_error));
		return CPROF_CHANGED_SCREEN;
	}
	regfree(&regex);
	if (!strcmp(ui->filter, ui->input))
		return CPROF_CHANGED_SCREEN;
	memcpy(ui->filter, ui->input, sizeof(ui->filter));
	return CPROF_CHANGED_SCREEN | CPROF_CHANGED_WANT;
}

static void append(char *text, size_t size, int code)
{
	char bytes[5] = "";
	size_t used = strlen(text);
	uint32_t u = (uint32_t)code;

	if (u < 0x80)
		snprintf(bytes, sizeof(bytes), "%c", (int)u);
	else if (u < 0x800)
		snprintf(bytes, sizeof(bytes), "%c%c", (int)(0xc0 | u >> 6),
			 (int)(0x80 | (u & 0x3f)));
	else if (u < 0x10000)
		snprintf(bytes, sizeof(bytes), "%c%c%c", (int)(0xe0 | u >> 12),
			 (int)(0x80 | (u >> 6 & 0x3f)), (int)(0x80 | (u & 0x3f)));
	else
		snprintf(bytes, sizeof(bytes), "%c%c%c%c", (int)(0xf0 | u >> 18),
			 (int)(0x80 | (u >> 12 & 0x3f)), (int)(0x80 | (u >> 6 & 0x3f)),
			 (int)(0x80 | (u & 0x3f)));
	if (used + strlen(bytes) < size)
		strcat(text, bytes);
}

static unsigned filter_key(struct cprof_ui *ui, const struct cprof_key *key)
{
	size_t length = strlen(ui->input);

	switch (key->code) {
	case CPROF_KEY_ENTER:
		if (*ui->input_error)
			return CPROF_CHANGED_SCREEN; /* there is something to be mended */
		ui->dialog = CPROF_DIALOG_NONE;
		return try_filter(ui); /* nothing was typed: all */
	case CPROF_KEY_ESCAPE:
		ui->dialog = CPROF_DIALOG_NONE;
		memcpy(ui->filter, ui->filter_before, sizeof(ui->filter));
		return CPROF_CHANGED_SCREEN | CPROF_CHANGED_WANT;
	case CPROF_KEY_BACKSPACE:
	case CPROF_KEY_DELETE:
		while (length && (ui->input[length - 1] & 0xc0) == 0x80)
			length--;
		if (length)
			ui->input[length - 1] = '\0';
		return try_filter(ui);
	case 'U' - '@': /* Ctrl-U, as in a shell */
		ui->input[0] = '\0';
		return try_filter(ui);
	default:
		if (key->code < ' ' || key->code >= CPROF_KEY_UP || key->code == 0x7f)
			return CPROF_CHANGED_NOTHING;
		append(ui->input, sizeof(ui->input), key->code);
		return try_filter(ui);
	}
}

/* --- threads ------------------------------------------------------------------------------- */

static unsigned choose_thread(struct cprof_ui *ui, const struct cprof_view_thread *thread)
{
	ui->dialog = CPROF_DIALOG_NONE;
	ui->tid = thread ? thread->tid : 0;
	memset(ui->thread, 0, sizeof(ui->thread));
	if (thread)
		memcpy(ui->thread, thread->name, sizeof(ui->thread));
	return CPROF_CHANGED_SCREEN | CPROF_CHANGED_WANT;
}

/* The first row stands for all of them. */
static unsigned thread_key(struct cprof_ui *ui, const struct cprof_key *key)
{
	int last = ui->model ? (int)ui->model->thread_count : 0;
	int page = CPROF_MAX(ui->body_rows - 2, 1);
	int row = ui->dialog_selected;

	switch (cprof_key_request(key->code)) {
	case CPROF_REQUEST_UP:
		row--;
		break;
	case CPROF_REQUEST_DOWN:
		row++;
		break;
	case CPROF_REQUEST_SCROLL_UP:
	case CPROF_REQUEST_PAGE_UP:
		row -= page;
		break;
	case CPROF_REQUEST_SCROLL_DOWN:
	case CPROF_REQUEST_PAGE_DOWN:
		row += page;
		break;
	case CPROF_REQUEST_HOME:
		row = 0;
		break;
	case CPROF_REQUEST_END:
		row = last;
		break;
	case CPROF_REQUEST_CLICK:
		row = ui->dialog_top + key->row - ui->body_row - 1;
		if (row < 0 || row > last)
			return CPROF_CHANGED_NOTHING;
		/* fall through */
	case CPROF_REQUEST_ENTER:
		row = CPROF_MIN(row, last);
		return choose_thread(ui, row ? &ui->model->threads[row - 1] : NULL);
	case CPROF_REQUEST_BACK:
	case CPROF_REQUEST_THREAD:
	case CPROF_REQUEST_QUIT:
		ui->dialog = CPROF_DIALOG_NONE;
		return CPROF_CHANGED_SCREEN;
	default:
		return CPROF_CHANGED_NOTHING;
	}
	ui->dialog_selected = CPROF_MAX(CPROF_MIN(row, last), 0);
	return CPROF_CHANGED_SCREEN;
}

/* --- help ---------------------------------------------------------------------------------- */

static unsigned help_key(struct cprof_ui *ui, const struct cprof_key *key)
{
	int most = CPROF_MAX(cprof_help_rows(ui) - ui->cells.rows, 0);
	int page = CPROF_MAX(ui->cells.rows - 1, 1);

	switch (cprof_key_request(key->code)) {
	case CPROF_REQUEST_UP:
	case CPROF_REQUEST_SCROLL_UP:
		ui->dialog_top--;
		break;
	case CPROF_REQUEST_DOWN:
	case CPROF_REQUEST_SCROLL_DOWN:
		ui->dialog_top++;
		break;
	case CPROF_REQUEST_PAGE_UP:
		ui->dialog_top -= page;
		break;
	case CPROF_REQUEST_PAGE_DOWN:
	case CPROF_REQUEST_FREEZE: /* the space bar */
		ui->dialog_top += page;
		break;
	case CPROF_REQUEST_HOME:
		ui->dialog_top = 0;
		break;
	case CPROF_REQUEST_END:
		ui->dialog_top = most;
		break;
	default:
		ui->dialog = CPROF_DIALOG_NONE;
	}
	ui->dialog_top = CPROF_MAX(CPROF_MIN(ui->dialog_top, most), 0);
	return CPROF_CHANGED_SCREEN;
}

/* --- all ----------------------------------------------------------------------------------- */

unsigned cprof_ui_open_dialog(struct cprof_ui *ui, enum cprof_dialog dialog)
{
	const struct cprof_level *level = cprof_ui_level(ui);

	if (dialog == CPROF_DIALOG_THREAD && ui->view == CPROF_VIEW_THREADS &&
	    level->page == CPROF_PAGE_LIST) {
		const struct cprof_view_thread *thread = cprof_rows_thread(ui, level->selected);

		if (!thread)
			return CPROF_CHANGED_NOTHING;
		if (ui->tid == thread->tid && !strcmp(ui->thread, thread->name))
			return choose_thread(ui, NULL);
		cprof_ui_say(ui, "profiles are of this thread only (t or Esc: of all again)");
		return choose_thread(ui, thread);
	}
	if (dialog == CPROF_DIALOG_THREAD &&
	    (!ui->model || ui->view >= CPROF_VIEW_PROFILES || !ui->model->thread_count)) {
		cprof_ui_say(ui, "the samples here do not name threads");
		return CPROF_CHANGED_SCREEN;
	}
	ui->dialog = dialog;
	ui->dialog_selected = ui->dialog_top = 0;
	ui->input_error[0] = '\0';
	memcpy(ui->input, ui->filter, sizeof(ui->input));
	memcpy(ui->filter_before, ui->filter, sizeof(ui->filter_before));
	if (dialog == CPROF_DIALOG_FILTER)
		ui->input[0] = '\0'; /* typing replaces what there was, as in htop */
	return CPROF_CHANGED_SCREEN;
}

unsigned cprof_ui_dialog_key(struct cprof_ui *ui, const struct cprof_key *key)
{
	switch (ui->dialog) {
	case CPROF_DIALOG_FILTER:
		return filter_key(ui, key);
	case CPROF_DIALOG_THREAD:
		return thread_key(ui, key);
	default:
		return help_key(ui, key);
	}
}
