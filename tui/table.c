/* SPDX-License-Identifier: MIT
 *
 * Pages that are made of rows.
 */
#include "ui.h"

#include <cprof/util.h>
#include <inttypes.h>
#include <string.h>

#define HOT_SHARE 0.1

/* One row being drawn. */
struct line {
	struct cprof_ui *ui;
	const struct cprof_model *model;
	int row; /* of the screen */
	bool selected;
};

static enum cprof_style plain(const struct line *line, enum cprof_style style)
{
	return line->selected ? CPROF_STYLE_SELECTED : style;
}

static enum cprof_style share_style(const struct line *line, int64_t value)
{
	if (!value)
		return plain(line, CPROF_STYLE_DIM);
	if ((double)llabs(value) >= HOT_SHARE * (double)line->model->whole)
		return plain(line, CPROF_STYLE_HOT);
	return plain(line, CPROF_STYLE_NORMAL);
}

/* A number never loses a digit or its unit: one that is too wide is written in another way. */
void cprof_value_text(int64_t value, const char *from, const char *to, int width,
		      char text[CPROF_ANALYSIS_TEXT])
{
	cprof_analysis_value(value, from, to, text);
	if ((int)strlen(text) > width)
		cprof_analysis_value(value, from, "minimum", text);
	if ((int)strlen(text) > width)
		snprintf(text, CPROF_ANALYSIS_TEXT, "%.1e", (double)value);
	if ((int)strlen(text) > width)
		snprintf(text, CPROF_ANALYSIS_TEXT, "#");
}

static void put_value(const struct line *line, int left, int width, int64_t value)
{
	char text[CPROF_ANALYSIS_TEXT];

	cprof_value_text(value, line->model->unit, line->model->output_unit, width, text);
	cprof_cells_right(&line->ui->cells, line->row, left, width, share_style(line, value), text);
}

static void put_share(const struct line *line, int left, int width, int64_t value, int64_t of)
{
	char text[32];

	cprof_analysis_percent(value, of, text);
	if ((int)strlen(text + strspn(text, " ")) > width)
		strcpy(text, "<0.01%"); /* 7.4e-05% */
	cprof_cells_right(&line->ui->cells, line->row, left, width, share_style(line, value),
			  text + strspn(text, " "));
}

/* --- functions ----------------------------------------------------------------------------- */

static void put_growth(const struct line *line, const struct cprof_column *column, uint32_t id)
{
	const double *growth = line->model->growth;
	char number[CPROF_ANALYSIS_TEXT], text[CPROF_ANALYSIS_TEXT + 4] = "";
	int64_t value;

	if (growth) {
		value = (int64_t)growth[id];
		cprof_value_text(llabs(value), line->model->unit, "minimum", column->width - 1,
				 number);
		if (value)
			snprintf(text, sizeof(text), "%c%s", value < 0 ? '-' : '+', number);
	}
	cprof_cells_right(
		&line->ui->cells, line->row, column->left, column->width,
		plain(line, growth && growth[id] > 0 ? CPROF_STYLE_WARN : CPROF_STYLE_NORMAL),
		text);
}

static void put_other(const struct line *line, const struct cprof_column *column, uint32_t id)
{
	const struct cprof_profile *profile = line->model->profile;
	char text[CPROF_ANALYSIS_TEXT];

	cprof_value_text(line->model->analysis->rows[id].flat[column->type],
			 profile->strings[profile->types[column->type].unit], "minimum",
			 column->width, text);
	cprof_cells_right(&line->ui->cells, line->row, column->left, column->width,
			  plain(line, CPROF_STYLE_NORMAL), text);
}

static void put_function_name(const struct line *line, int left, int width, uint32_t id,
			      enum cprof_style style)
{
	const struct cprof_analysis_row *row = &line->model->analysis->rows[id];
	static const char mark[] = " (inline)";
	int room = width, used;

	if (row->inlined && width > 30)
		room -= (int)sizeof(mark) - 1;
	used = cprof_cells_name(&line->ui->cells, line->row, left, room, plain(line, style),
				row->name);
	if (room < width)
		cprof_cells_put(&line->ui->cells, line->row, left + used, width - used,
				plain(line, CPROF_STYLE_DIM), mark);
}

static void draw_function(const struct line *line, uint32_t id, int64_t sum)
{
	const struct cprof_model *model = line->model;
	const struct cprof_analysis_row *row = &model->analysis->rows[id];
	int64_t flat = row->flat[model->type], cum = row->cum[model->type];

	for (size_t i = 0; i < line->ui->column_count; i++) {
		const struct cprof_column *column = &line->ui->columns[i];

		switch (column->kind) {
		case CPROF_COLUMN_FLAT:
			put_value(line, column->left, column->width, flat);
			break;
		case CPROF_COLUMN_FLAT_SHARE:
			put_share(line, column->left, column->width, flat, model->whole);
			break;
		case CPROF_COLUMN_SUM_SHARE:
			put_share(line, column->left, column->width, sum, model->whole);
			break;
		case CPROF_COLUMN_CUM:
			put_value(line, column->left, column->width, cum);
			break;
		case CPROF_COLUMN_CUM_SHARE:
			put_share(line, column->left, column->width, cum, model->whole);
			break;
		case CPROF_COLUMN_GROWTH:
			put_growth(line, column, id);
			break;
		case CPROF_COLUMN_OTHER:
			put_other(line, column, id);
			break;
		case CPROF_COLUMN_NAME:
			put_function_name(line, column->left, column->width, id,
					  CPROF_STYLE_NORMAL);
			break;
		case CPROF_COLUMN_MODULE:
			cprof_cells_name(&line->ui->cells, line->row, column->left, column->width,
					 plain(line, CPROF_STYLE_DIM), row->module);
			break;
		default:
			break;
		}
	}
}

/* --- threads ------------------------------------------------------------------------------- */

static void draw_thread(const struct line *line, const struct cprof_view_thread *thread)
{
	struct cprof_cells *cells = &line->ui->cells;

	for (size_t i = 0; i < line->ui->column_count; i++) {
		const struct cprof_column *column = &line->ui->columns[i];
		enum cprof_style style = plain(line, CPROF_STYLE_NORMAL);
		char text[CPROF_ANALYSIS_TEXT] = "";

		switch (column->kind) {
		case CPROF_COLUMN_TID:
			if (thread->tid)
				snprintf(text, sizeof(text), "%lld", (long long)thread->tid);
			break;
		case CPROF_COLUMN_THREAD:
			snprintf(text, sizeof(text), "%s", thread->name);
			break;
		case CPROF_COLUMN_STATE:
			snprintf(text, sizeof(text), "%c", thread->state ? thread->state : '?');
			if (thread->state == 'R')
				style = plain(line, CPROF_STYLE_BOLD);
			break;
		case CPROF_COLUMN_CPU:
			if (thread->cpu >= 0)
				snprintf(text, sizeof(text), "%.1f", 100 * thread->cpu);
			if (thread->cpu >= HOT_SHARE)
				style = plain(line, CPROF_STYLE_HOT);
			break;
		case CPROF_COLUMN_TIME:
			if (thread->cpu_ns != UINT64_MAX)
				cprof_time_text(thread->cpu_ns, text, sizeof(text));
			break;
		case CPROF_COLUMN_VALUE:
			put_value(line, column->left, column->width, thread->value);
			continue;
		case CPROF_COLUMN_VALUE_SHARE:
			put_share(line, column->left, column->width, thread->value,
				  line->model->whole);
			continue;
		case CPROF_COLUMN_WAIT:
			snprintf(text, sizeof(text), "%s", thread->wait);
			break;
		case CPROF_COLUMN_DETAIL:
			snprintf(text, sizeof(text), "%s", thread->detail);
			break;
		case CPROF_COLUMN_TOP:
			cprof_cells_name(cells, line->row, column->left, column->width, style,
					 thread->top);
			continue;
		default:
			break;
		}
		if (column->to_right)
			cprof_cells_right(cells, line->row, column->left, column->width, style,
					  text);
		else
			cprof_cells_put(cells, line->row, column->left, column->width, style, text);
	}
}

/* --- the other pages ----------------------------------------------------------------------- */

#define PEEK_NAME 49 /* column where names start */

static void draw_peek(const struct line *line, int number)
{
	const struct cprof_model *model = line->model;
	bool utf8 = line->ui->cells.utf8;
	int64_t whole = model->analysis->rows[model->row].cum[model->type];
	size_t i = (size_t)number;
	const char *arrow;
	uint32_t id;
	int64_t call = 0;
	int name = line->ui->cells.columns >= 80 ? PEEK_NAME : 18;
	const struct cprof_analysis_row *row;

	if (i < model->peek.caller_count) {
		id = model->peek.callers[i].row;
		call = model->peek.callers[i].value;
		arrow = utf8 ? "╭ " : "/ ";
	} else if (i == model->peek.caller_count) {
		id = model->row;
		arrow = "";
	} else {
		id = model->peek.callees[i - model->peek.caller_count - 1].row;
		call = model->peek.callees[i - model->peek.caller_count - 1].value;
		arrow = utf8 ? "  ╰ " : "  \\ ";
	}
	row = &model->analysis->rows[id];
	if (i != model->peek.caller_count) {
		put_value(line, 0, 9, call);
		put_share(line, 10, 6, call, whole);
	}
	if (name == PEEK_NAME) {
		put_value(line, 17, 8, row->flat[model->type]);
		put_share(line, 26, 6, row->flat[model->type], model->whole);
		put_value(line, 33, 8, row->cum[model->type]);
		put_share(line, 42, 6, row->cum[model->type], model->whole);
	}
	name += cprof_cells_put(&line->ui->cells, line->row, name, 8, plain(line, CPROF_STYLE_DIM),
				arrow);
	put_function_name(line, name, line->ui->cells.columns - name, id,
			  i == model->peek.caller_count ? CPROF_STYLE_BOLD : CPROF_STYLE_NORMAL);
}

/* Tabs as eight columns, then what is left of `shift`. */
static void put_text(const struct line *line, int left, const char *text, enum cprof_style style)
{
	char clean[2048], wide[4096];
	size_t used = 0;
	const char *next = wide;

	for (const char *c = text; *c && used + 9 < sizeof(clean); c++) {
		if (*c == '\t')
			do
				clean[used++] = ' ';
			while (used % 8);
		else
			clean[used++] = *c;
	}
	clean[used] = '\0';
	cprof_text_clean(clean, used, wide, sizeof(wide));
	for (int i = cprof_ui_level(line->ui)->shift; i > 0 && *next; i--)
		cprof_text_next(&next);
	cprof_cells_put(&line->ui->cells, line->row, left, line->ui->cells.columns - left,
			plain(line, style), next);
}

static void draw_listing(const struct line *line, int number)
{
	const struct cprof_listing_row *row = &line->model->listing->rows[number];
	bool code = line->model->page == CPROF_PAGE_CODE;
	enum cprof_style style = row->flat || row->cum ? CPROF_STYLE_NORMAL : CPROF_STYLE_DIM;
	char text[32] = "";

	if (row->flat)
		put_value(line, 0, 9, row->flat);
	if (row->cum)
		put_value(line, 10, 9, row->cum);
	if (row->flat)
		put_share(line, 20, 6, row->flat, line->model->whole);
	if (code)
		snprintf(text, sizeof(text), "%" PRIx64, row->address);
	else
		snprintf(text, sizeof(text), "%" PRId64, row->line);
	cprof_cells_right(&line->ui->cells, line->row, 27, code ? 9 : 6,
			  plain(line, CPROF_STYLE_DIM), text);
	if (code && row->line) {
		snprintf(text, sizeof(text), ":%" PRId64, row->line);
		cprof_cells_put(&line->ui->cells, line->row, 37, 6, plain(line, CPROF_STYLE_DIM),
				text);
	}
	put_text(line, code ? 43 : 35, row->text,
		 line->model->whole && row->flat &&
				 (double)llabs(row->flat) >= HOT_SHARE * (double)line->model->whole
			 ? CPROF_STYLE_BOLD
			 : style);
}

static void draw_row(const struct line *line, int number, int64_t sum)
{
	const struct cprof_model *model = line->model;

	if (line->selected)
		cprof_cells_fill(&line->ui->cells, line->row, 0, line->ui->cells.columns,
				 CPROF_STYLE_SELECTED);
	switch (model->page) {
	case CPROF_PAGE_PEEK:
		draw_peek(line, number);
		break;
	case CPROF_PAGE_SOURCE:
	case CPROF_PAGE_CODE:
		draw_listing(line, number);
		break;
	case CPROF_PAGE_LIST:
		if (model->view < CPROF_VIEW_PROFILES) {
			draw_function(line, line->ui->order[number], sum);
			break;
		}
		if (model->view == CPROF_VIEW_THREADS) {
			draw_thread(line, &model->threads[line->ui->order[number]]);
			break;
		}
		/* fall through */
	default:
		put_text(line, 0, model->lines[number].text, model->lines[number].style);
	}
}

/* --- heads --------------------------------------------------------------------------------- */

static void draw_columns(struct cprof_ui *ui, int row)
{
	const struct cprof_tab *tab = cprof_ui_tab(ui);
	struct cprof_cells *cells = &ui->cells;

	for (size_t i = 0; i < ui->column_count; i++) {
		const struct cprof_column *column = &ui->columns[i];
		bool sorted = column->kind == tab->sort && column->type == tab->sort_type;
		char text[48];

		snprintf(text, sizeof(text), "%s%s", column->title,
			 !sorted        ? ""
			 : cells->utf8  ? (tab->reverse ? "▲" : "▼")
			 : tab->reverse ? "^"
					: "v");
		if (column->to_right)
			cprof_cells_right(cells, row, column->left, column->width, CPROF_STYLE_HEAD,
					  text);
		else
			cprof_cells_put(cells, row, column->left, column->width, CPROF_STYLE_HEAD,
					text);
	}
}

static void head_text(struct cprof_ui *ui, int row, const struct cprof_model *model)
{
	struct cprof_cells *cells = &ui->cells;
	const struct cprof_level *level = cprof_ui_level(ui);
	const char *function = level->function ? level->function : "";
	char text[1024] = "", file[512];
	int used;

	switch (model->page) {
	case CPROF_PAGE_PEEK:
		snprintf(text, sizeof(text), "%9s %6s %8s %6s %8s %6s %s", "calls", "calls%",
			 "flat", "flat%", "cum", "cum%", "callers, function, callees");
		if (cells->columns < 80)
			snprintf(text, sizeof(text), "%9s %6s  %s", "calls", "calls%",
				 "callers, function, callees");
		break;
	case CPROF_PAGE_FLAME:
		snprintf(text, sizeof(text),
			 "flame: callers above what they call, as wide as they "
			 "cost");
		break;
	case CPROF_PAGE_SOURCE:
	case CPROF_PAGE_CODE:
		if (model->listing)
			cprof_text_clean(model->listing->file, strlen(model->listing->file), file,
					 sizeof(file));
		used = cprof_cells_printf(cells, row, 0, cells->columns, CPROF_STYLE_HEAD,
					  "%9s %9s %6s ", "flat", "cum", "flat%");
		used += cprof_cells_name(cells, row, used, (cells->columns - used) / 2,
					 CPROF_STYLE_HEAD, function);
		cprof_cells_printf(cells, row, used, cells->columns - used, CPROF_STYLE_HEAD,
				   "  %s", model->listing ? file : "");
		return;
	case CPROF_PAGE_STACK:
		snprintf(
			text, sizeof(text),
			ui->saved_view == CPROF_VIEWS
				? "stack of thread %lld %s, which is held for a moment at each look"
				: "stacks of thread %lld %s, the largest first",
			(long long)level->tid, level->thread);
		break;
	default:
		if (model->view == CPROF_VIEW_MEMTRACE)
			snprintf(text, sizeof(text),
				 "heap N @time alloc's share: clock, malloc+free/kernel cpu, "
				 "+allocated-freed, live start->peak->end, rss, limit, "
				 "fragmentation, "
				 "threads, cpus");
	}
	cprof_cells_put(cells, row, 0, cells->columns, CPROF_STYLE_HEAD, text);
}

static void draw_row_head(struct cprof_ui *ui, int row, const struct cprof_model *model)
{
	cprof_cells_fill(&ui->cells, row, 0, ui->cells.columns, CPROF_STYLE_HEAD);
	if (model->page == CPROF_PAGE_LIST && ui->column_count) {
		ui->head_row = row;
		draw_columns(ui, row);
	} else {
		head_text(ui, row, model);
	}
}

/* --- the body ------------------------------------------------------------------------------ */

static void scroll_to_selection(struct cprof_ui *ui, int count)
{
	struct cprof_level *level = cprof_ui_level(ui);

	level->selected = CPROF_MAX(CPROF_MIN(level->selected, count - 1), 0);
	level->top = CPROF_MIN(level->top, level->selected);
	level->top = CPROF_MAX(level->top, level->selected - ui->body_rows + 1);
	level->top = CPROF_MAX(CPROF_MIN(level->top, count - ui->body_rows), 0);
}

static int64_t sum_before(const struct cprof_ui *ui, const struct cprof_model *model, int end)
{
	int64_t sum = 0;

	if (model->page != CPROF_PAGE_LIST || model->view >= CPROF_VIEW_PROFILES)
		return 0;
	for (int i = 0; i < end; i++)
		if (__builtin_add_overflow(
			    sum, model->analysis->rows[ui->order[i]].flat[model->type], &sum))
			sum = INT64_MAX;
	return sum;
}

static int draw_banner(struct cprof_ui *ui, const struct cprof_model *model, int row)
{
	const struct cprof_source_kind *kind = &model->kinds[ui->view];

	if (ui->body_rows < 3)
		return 0;
	if (*model->deadlock) {
		cprof_cells_printf(&ui->cells, row, 0, ui->cells.columns, CPROF_STYLE_BAD,
				   "! DEADLOCK: %s", model->deadlock);
		return 1;
	}
	if (kind->state == CPROF_SOURCE_ENDED ||
	    (kind->state == CPROF_SOURCE_ON && kind->detail[0])) {
		cprof_cells_put(&ui->cells, row, 0, ui->cells.columns,
				kind->state == CPROF_SOURCE_ENDED ? CPROF_STYLE_WARN
								  : CPROF_STYLE_DIM,
				kind->detail[0] ? kind->detail : "this has ended");
		return 1;
	}
	return 0;
}

static void draw_rows(struct cprof_ui *ui, const struct cprof_model *model)
{
	int count = cprof_rows_count(ui);
	const struct cprof_level *level;
	int64_t sum;

	scroll_to_selection(ui, count);
	level = cprof_ui_level(ui);
	sum = sum_before(ui, model, level->top);
	for (int i = 0; i < ui->body_rows && level->top + i < count; i++) {
		struct line line = {
			.ui = ui,
			.model = model,
			.row = ui->body_row + i,
			.selected = level->top + i == level->selected,
		};

		if (model->page == CPROF_PAGE_LIST && model->view < CPROF_VIEW_PROFILES)
			sum += model->analysis->rows[ui->order[level->top + i]].flat[model->type];
		draw_row(&line, level->top + i, sum);
	}
}

void cprof_draw_body(struct cprof_ui *ui)
{
	const struct cprof_model *model = cprof_ui_page(ui);
	int banner;

	if (!model || ui->body_rows <= 0)
		return;
	banner = draw_banner(ui, model, ui->body_row);
	ui->body_row += banner;
	ui->body_rows -= banner;
	if (model->page == CPROF_PAGE_FLAME ? !model->tree.count || !model->tree.nodes[0].first
					    : !cprof_rows_count(ui)) {
		cprof_draw_empty(ui, model);
		return;
	}
	if (ui->body_rows > 1) {
		draw_row_head(ui, ui->body_row, model);
		ui->body_row++;
		ui->body_rows--;
	}
	if (model->page == CPROF_PAGE_FLAME)
		cprof_flame_draw(ui);
	else
		draw_rows(ui, model);
}
