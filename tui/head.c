/* SPDX-License-Identifier: MIT
 *
 * The top of the screen: the process, ourselves, the views; and the keys at its bottom.
 */
#include "ui.h"

#include <cprof/util.h>
#include <math.h>
#include <string.h>
#include <time.h>

const char *cprof_view_title(const struct cprof_ui *ui, enum cprof_view_id view)
{
	static const char *const titles[CPROF_VIEWS] = {"CPU",   "Heap",    "Mutex",
							"Block", "Threads", "Memtrace"};

	if (view == CPROF_VIEW_CPU && ui->saved_title)
		return ui->saved_title;
	if (view == CPROF_VIEW_CPU && ui->config->cpu_kind &&
	    !strcmp(ui->config->cpu_kind, "cycles"))
		return "Cycles";
	return titles[view];
}

void cprof_time_text(uint64_t ns, char *text, size_t size)
{
	uint64_t seconds = ns / 1000000000;

	if (seconds < 10)
		snprintf(text, size, "%.1fs", (double)ns / 1e9);
	else if (seconds < 120)
		snprintf(text, size, "%llus", (unsigned long long)seconds);
	else if (seconds < 7200)
		snprintf(text, size, "%llum%02llus", (unsigned long long)seconds / 60,
			 (unsigned long long)seconds % 60);
	else if (seconds < 172800)
		snprintf(text, size, "%lluh%02llum", (unsigned long long)seconds / 3600,
			 (unsigned long long)seconds / 60 % 60);
	else
		snprintf(text, size, "%llud%02lluh", (unsigned long long)seconds / 86400,
			 (unsigned long long)seconds / 3600 % 24);
}

void cprof_bytes_text(double bytes, char *text, size_t size)
{
	static const char units[] = "BKMGTPE";
	size_t unit = 0;

	while (fabs(bytes) >= 1000 && unit + 2 < sizeof(units)) {
		bytes /= 1024;
		unit++;
	}
	snprintf(text, size, fabs(bytes) < 10 && unit ? "%.1f%c" : "%.0f%c", bytes, units[unit]);
}

void cprof_draw_history(struct cprof_cells *cells, int row, int column, int width,
			const float *values, size_t count)
{
	static const char *const blocks[] = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
	static const char *const plain[] = {"_", ".", ",", "-", "=", "+", "*", "#"};
	size_t shown = CPROF_MIN(count, (size_t)CPROF_MAX(width, 0));
	float most = 0;

	for (size_t i = count - shown; i < count; i++)
		most = fmaxf(most, values[i]);
	for (size_t i = 0; i < shown; i++) {
		float value = values[count - shown + i];
		int level = most > 0 ? (int)(value / most * 7 + 0.5f) : 0;

		if (!(value >= 0))
			continue;
		level = CPROF_MAX(CPROF_MIN(level, 7), 0);
		cprof_cells_put(cells, row, column + (int)i, 1, CPROF_STYLE_GRAPH,
				cells->utf8 ? blocks[level] : plain[level]);
	}
}

/* --- the process --------------------------------------------------------------------------- */

static void draw_process(struct cprof_ui *ui, int row)
{
	const struct cprof_source_figures *figures = &ui->model->figures;
	struct cprof_cells *cells = &ui->cells;
	char uptime[32], text[64] = "";
	int used, right;

	if (figures->uptime_ns != UINT64_MAX) {
		cprof_time_text(figures->uptime_ns, uptime, sizeof(uptime));
		snprintf(text, sizeof(text), "  up %s", uptime);
	}
	right = (int)strlen(text);
	used = cprof_cells_printf(cells, row, 0, cells->columns, CPROF_STYLE_TITLE, "%s %d ",
				  figures->comm, (int)figures->pid);
	if (figures->stopped)
		used += cprof_cells_put(cells, row, used, cells->columns - used, CPROF_STYLE_BAD,
					"STOPPED ");
	if (cells->columns - used > right) {
		cprof_cells_put(cells, row, used, cells->columns - used - right, CPROF_STYLE_NORMAL,
				figures->cmdline);
		cprof_cells_right(cells, row, cells->columns - right, right, CPROF_STYLE_NORMAL,
				  text);
	}
}

/* "CPU 152%" and how it came to be so. */
static int draw_gauge(struct cprof_ui *ui, int row, int column, int width, const char *name,
		      const char *value, const float *history)
{
	struct cprof_cells *cells = &ui->cells;
	int used = cprof_cells_printf(cells, row, column, width, CPROF_STYLE_NORMAL, "%s ", name);

	used += cprof_cells_put(cells, row, column + used, width - used, CPROF_STYLE_BOLD, value);
	used = CPROF_MAX(used + 1, 10);
	if (width - used > 3)
		cprof_draw_history(cells, row, column + used, width - used - 2, history,
				   ui->model->history.count);
	return width;
}

static void draw_gauges(struct cprof_ui *ui, int row)
{
	const struct cprof_model *model = ui->model;
	const struct cprof_source_figures *figures = &model->figures;
	int width = CPROF_MAX((ui->cells.columns - 12) / 3, 10), column = 0;
	char text[32];

	if (figures->cpu >= 0)
		snprintf(text, sizeof(text), "%.1f%%", 100 * figures->cpu);
	else
		snprintf(text, sizeof(text), "?");
	column += draw_gauge(ui, row, column, width, "CPU", text, model->history.cpu);
	if (figures->rss_bytes != UINT64_MAX)
		cprof_bytes_text((double)figures->rss_bytes, text, sizeof(text));
	else
		snprintf(text, sizeof(text), "?");
	column += draw_gauge(ui, row, column, width, "RSS", text, model->history.rss);
	if (figures->live_bytes >= 0)
		cprof_bytes_text(figures->live_bytes, text, sizeof(text));
	else
		snprintf(text, sizeof(text), "-");
	column += draw_gauge(ui, row, column, width, "live", text, model->history.live);
	cprof_cells_printf(&ui->cells, row, column, ui->cells.columns - column, CPROF_STYLE_NORMAL,
			   "%u thread%s", figures->threads, figures->threads == 1 ? "" : "s");
}

static void draw_ourselves(struct cprof_ui *ui, int row)
{
	const struct cprof_model *model = ui->model;
	const struct cprof_source_figures *figures = &model->figures;
	struct cprof_cells *cells = &ui->cells;
	char own[64] = "?", rss[32], hooked[128] = "", text[512];
	int used;

	cprof_bytes_text((double)figures->own_rss_bytes, rss, sizeof(rss));
	if (figures->own_cpu >= 0)
		snprintf(own, sizeof(own), "%.1f%% %s", 100 * figures->own_cpu, rss);
	for (enum cprof_view_id view = CPROF_VIEW_HEAP; view <= CPROF_VIEW_MUTEX; view++)
		if (model->kinds[view].state == CPROF_SOURCE_ON)
			snprintf(hooked + strlen(hooked), sizeof(hooked) - strlen(hooked), "%s%s",
				 *hooked ? ", " : "", view == CPROF_VIEW_HEAP ? "heap" : "locks");
	snprintf(text, sizeof(text), "%u Hz, %llu samples, %llu lost, %.1f%% complete",
		 figures->rate, (unsigned long long)figures->samples,
		 (unsigned long long)figures->lost,
		 figures->complete >= 0 ? floor(1000 * figures->complete) / 10 : 100.0);
	used = cprof_cells_put(cells, row, 0, cells->columns,
			       figures->lost ? CPROF_STYLE_WARN : CPROF_STYLE_DIM, text);
	cprof_cells_printf(cells, row, used, cells->columns - used, CPROF_STYLE_DIM,
			   "; own %s; hooked: %s", own, *hooked ? hooked : "nothing");
}

/* --- a saved profile ----------------------------------------------------------------------- */

static void draw_file(struct cprof_ui *ui, int row)
{
	const struct cprof_profile *profile = ui->model->profile;
	struct cprof_cells *cells = &ui->cells;
	const char *file = ui->config->file ? ui->config->file : "";
	char shown[512], text[128] = "", duration[32];
	int used;

	cprof_text_clean(file, strlen(file), shown, sizeof(shown));
	used = cprof_cells_printf(cells, row, 0, cells->columns, CPROF_STYLE_TITLE, "%s ", shown);
	if (!profile)
		return;
	if (profile->time_ns > 0) {
		time_t seconds = (time_t)(profile->time_ns / 1000000000);
		struct tm when;

		if (localtime_r(&seconds, &when))
			strftime(text, sizeof(text), " %Y-%m-%d %H:%M:%S", &when);
	}
	if (profile->duration_ns > 0) {
		cprof_time_text((uint64_t)profile->duration_ns, duration, sizeof(duration));
		snprintf(text + strlen(text), sizeof(text) - strlen(text), ", %s", duration);
	}
	if (profile->mapping_count > 1) {
		const char *program = profile->strings[profile->mappings[1].file];

		cprof_text_clean(program, strlen(program), shown, sizeof(shown));
		cprof_cells_put(cells, row, used, cells->columns - used - (int)strlen(text),
				CPROF_STYLE_NORMAL, shown);
	}
	if (used < cells->columns)
		cprof_cells_right(cells, row, used, cells->columns - used, CPROF_STYLE_NORMAL,
				  text);
}

/* --- views --------------------------------------------------------------------------------- */

static void draw_tabs(struct cprof_ui *ui, int row)
{
	struct cprof_cells *cells = &ui->cells;
	int column = 0;

	ui->tabs_row = row;
	for (enum cprof_view_id view = 0; view < CPROF_VIEWS; view++) {
		const struct cprof_model *model = ui->model;
		bool on = model && (model->kinds[view].state == CPROF_SOURCE_ON ||
				    model->kinds[view].state == CPROF_SOURCE_ENDED);
		enum cprof_style style = view == ui->view ? CPROF_STYLE_TAB_ON
					 : on             ? CPROF_STYLE_TAB
							  : CPROF_STYLE_DIM;

		ui->tab_left[view] = column;
		column += cprof_cells_printf(cells, row, column, cells->columns - column, style,
					     view == ui->view ? "[%d %s]" : " %d %s ",
					     (int)view + 1, cprof_view_title(ui, view));
	}
	ui->tab_left[CPROF_VIEWS] = column;
}

static int put_state(struct cprof_ui *ui, int row, int column, enum cprof_style style,
		     const char *text)
{
	struct cprof_cells *cells = &ui->cells;

	column += cprof_cells_put(cells, row, column, cells->columns - column, style, text);
	return column + 2;
}

static void window_text(const struct cprof_ui *ui, char *text, size_t size)
{
	uint64_t window_ns = cprof_ui_window_ns(ui);

	if (ui->saved_view != CPROF_VIEWS)
		snprintf(text, size, "%s", "");
	else if (ui->view == CPROF_VIEW_HEAP)
		snprintf(text, size, "since attach");
	else if (window_ns)
		snprintf(text, size, "last %llu s", (unsigned long long)window_ns / 1000000000);
	else
		snprintf(text, size, "since start");
}

/* "33 threads: S 30, R 3" */
static void threads_text(const struct cprof_model *model, char *text, size_t size)
{
	size_t used = (size_t)snprintf(text, size, "%zu thread%s", model->thread_count,
				       model->thread_count == 1 ? "" : "s");
	const char *separator = ": ";

	for (int state = 'A'; state <= 'z'; state++) {
		size_t count = 0;

		for (size_t i = 0; i < model->thread_count; i++)
			count += model->threads[i].state == state;
		if (count && used < size)
			used += (size_t)snprintf(text + used, size - used, "%s%c %zu", separator,
						 state, count);
		if (count)
			separator = ", ";
	}
}

/* What the numbers are: of which time, which samples, in which order. */
static void draw_state(struct cprof_ui *ui, int row)
{
	const struct cprof_model *model = cprof_ui_page(ui);
	char text[3 * CPROF_ANALYSIS_TEXT], total[CPROF_ANALYSIS_TEXT], whole[CPROF_ANALYSIS_TEXT];
	char percent[32];
	int column = 0;

	if (ui->frozen)
		column = put_state(ui, row, column, CPROF_STYLE_WARN, "FROZEN");
	if (model && *model->base) {
		snprintf(text, sizeof(text), "DIFFERENCE to %s", model->base);
		column = put_state(ui, row, column, CPROF_STYLE_WARN, text);
	}
	if (ui->tid || *ui->thread) {
		snprintf(text, sizeof(text), "thread %s %lld", ui->thread, (long long)ui->tid);
		column = put_state(ui, row, column, CPROF_STYLE_WARN, text);
	}
	if (*ui->filter) {
		char clean[CPROF_FILTER_MAX];

		cprof_text_clean(ui->filter, strlen(ui->filter), clean, sizeof(clean));
		snprintf(text, sizeof(text), "/%s/", clean);
		column = put_state(ui, row, column, CPROF_STYLE_MATCH, text);
	}
	if (ui->view < CPROF_VIEW_PROFILES) {
		window_text(ui, text, sizeof(text));
		if (*text)
			column = put_state(ui, row, column, CPROF_STYLE_BOLD, text);
	}
	if (model && model->analysis && model->view < CPROF_VIEW_PROFILES) {
		int64_t sum = model->analysis->totals[model->type];

		cprof_analysis_value(sum, model->unit, "minimum", total);
		cprof_analysis_value(model->whole, model->unit, "minimum", whole);
		cprof_analysis_percent(sum, model->whole, percent);
		if (*ui->filter)
			snprintf(text, sizeof(text), "%s: %s of %s, %s",
				 model->profile->strings[model->profile->types[model->type].type],
				 total, whole, percent + strspn(percent, " "));
		else
			snprintf(text, sizeof(text), "%s: %s total",
				 model->profile->strings[model->profile->types[model->type].type],
				 whole);
		cprof_text_clean(text, strlen(text), text, sizeof(text));
		column = put_state(ui, row, column, CPROF_STYLE_NORMAL, text);
	}
	if (model && model->view == CPROF_VIEW_THREADS) {
		threads_text(model, text, sizeof(text));
		column = put_state(ui, row, column, CPROF_STYLE_NORMAL, text);
	}
	if (model && model->unnamed)
		column = put_state(ui, row, column, CPROF_STYLE_DIM, "(looking up names)");
	if (model && model->live && !ui->config->rows &&
	    model->period_ns > 2 * (ui->config->refresh_ns ? ui->config->refresh_ns
							   : CPROF_VIEW_REFRESH_DEFAULT)) {
		snprintf(text, sizeof(text), "every %.0f s", (double)model->period_ns / 1e9);
		column = put_state(ui, row, column, CPROF_STYLE_DIM, text);
	}
	if (cprof_ui_pending(ui) && ui->model && cprof_now_ns() - ui->asked_ns > 300000000 &&
	    !ui->config->rows)
		put_state(ui, row, column, CPROF_STYLE_DIM, "working ...");
}

int cprof_draw_head(struct cprof_ui *ui)
{
	int rows = ui->cells.rows, row = 0;
	bool live = ui->saved_view == CPROF_VIEWS;

	ui->tabs_row = ui->head_row = -1;
	if (ui->model && rows >= 8) {
		if (live && ui->model->has_figures)
			draw_process(ui, row++);
		else if (!live)
			draw_file(ui, row++);
	}
	if (ui->model && ui->model->has_figures && live && rows >= 16) {
		draw_gauges(ui, row++);
		draw_ourselves(ui, row++);
	}
	if (rows >= 5)
		draw_tabs(ui, row++);
	if (rows >= 7)
		draw_state(ui, row++);
	return row;
}

/* --- the bottom ---------------------------------------------------------------------------- */

static int draw_keys(struct cprof_ui *ui, int row, const struct cprof_binding **next)
{
	struct cprof_cells *cells = &ui->cells;
	const struct cprof_binding *binding = *next;
	int column = 0;

	for (; binding->request; binding++) {
		size_t key;
		int width;

		if (!binding->brief)
			continue;
		key = strcspn(binding->brief, " ");
		width = (int)strlen(binding->brief);
		if (column + width > cells->columns)
			break;
		cprof_cells_printf(cells, row, column, width, CPROF_STYLE_KEY, "%.*s", (int)key,
				   binding->brief);
		cprof_cells_put(cells, row, column + (int)key, width - (int)key, CPROF_STYLE_NORMAL,
				binding->brief + key);
		column += width + (cells->columns < 100 ? 1 : 2);
	}
	*next = binding;
	return column;
}

/* What is said takes a second row where it is too long for one. */
static int message_rows(const struct cprof_ui *ui)
{
	bool is_long = ui->dialog != CPROF_DIALOG_FILTER &&
		       cprof_text_width(ui->message, ui->cells.utf8) > ui->cells.columns;

	return is_long && ui->cells.rows >= 12 ? 2 : 1;
}

/* In one row, or in two: the break is at the last space that fits. */
static void draw_said(struct cprof_ui *ui, int row, int rows)
{
	struct cprof_cells *cells = &ui->cells;
	enum cprof_style style = *ui->message == '!' ? CPROF_STYLE_BAD : CPROF_STYLE_BOLD;
	char first[sizeof(ui->message)];
	int fits = 0;

	for (int i = 0; rows > 1 && ui->message[i]; i++) {
		snprintf(first, sizeof(first), "%.*s", i, ui->message);
		if (ui->message[i] == ' ' && cprof_text_width(first, cells->utf8) <= cells->columns)
			fits = i;
	}
	if (fits)
		cprof_cells_printf(cells, row - 1, 0, cells->columns, style, "%.*s", fits,
				   ui->message);
	cprof_cells_put(cells, row, 0, cells->columns, style, ui->message + fits + (fits > 0));
}

static void draw_message(struct cprof_ui *ui, int row)
{
	struct cprof_cells *cells = &ui->cells;
	const struct cprof_model *model = ui->model;
	char clean[sizeof(ui->input)];
	int used;

	if (ui->dialog == CPROF_DIALOG_FILTER) {
		cprof_text_clean(ui->input, strlen(ui->input), clean, sizeof(clean));
		used = cprof_cells_printf(cells, row, 0, cells->columns, CPROF_STYLE_BOLD,
					  "filter: /%s", clean);
		cprof_cells_put(cells, row, used, 1, CPROF_STYLE_SELECTED, " ");
		used += 3;
		cprof_cells_put(cells, row, used, cells->columns - used,
				*ui->input_error ? CPROF_STYLE_BAD : CPROF_STYLE_DIM,
				*ui->input_error
					? ui->input_error
					: "regular expression; Enter keeps it, Esc does not");
	} else if (*ui->message) {
		draw_said(ui, row, message_rows(ui));
	} else if (model && model->has_figures && model->figures.ended) {
		cprof_cells_printf(cells, row, 0, cells->columns, CPROF_STYLE_BAD,
				   "! process %d has ended%s%s. This is the last picture; q leaves",
				   (int)model->figures.pid, *model->figures.ended_how ? ": " : "",
				   model->figures.ended_how);
	}
}

static bool has_message(const struct cprof_ui *ui)
{
	return ui->dialog == CPROF_DIALOG_FILTER || *ui->message ||
	       (ui->model && ui->model->has_figures && ui->model->figures.ended);
}

int cprof_draw_foot(struct cprof_ui *ui)
{
	const struct cprof_binding *next = cprof_bindings;
	int rows = ui->cells.rows, wanted = rows >= 20 ? 2 : rows >= 12 ? 1 : 0;
	int used = 0;

	for (; used < wanted && next->request; used++) {
		const struct cprof_binding *before = next;

		/* From the top down: the rows' number is known only when they are all placed. */
		draw_keys(ui, rows - wanted + used, &next);
		if (next == before)
			break;
	}
	if (used < wanted) { /* one row was enough: it goes to the bottom */
		next = cprof_bindings;
		cprof_cells_fill(&ui->cells, rows - wanted, 0, ui->cells.columns,
				 CPROF_STYLE_NORMAL);
		draw_keys(ui, rows - 1, &next);
	}
	used = CPROF_MIN(used, wanted);
	if (has_message(ui) && rows > 2) {
		draw_message(ui, rows - used - 1);
		used += message_rows(ui);
	}
	return used;
}
