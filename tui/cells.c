/* SPDX-License-Identifier: MIT */
#include "cells.h"

#include <cprof/util.h>
#include <stdarg.h>
#include <string.h>

bool cprof_cells_resize(struct cprof_cells *cells, int rows, int columns)
{
	rows = CPROF_MAX(rows, 1);
	columns = CPROF_MAX(columns, 1);
	if (!cells->cells || rows != cells->rows || columns != cells->columns) {
		free(cells->cells);
		cells->cells = calloc((size_t)rows * (size_t)columns, sizeof(*cells->cells));
		cells->rows = cells->cells ? rows : 0;
		cells->columns = cells->cells ? columns : 0;
	}
	cprof_cells_clear(cells);
	return cells->cells;
}

void cprof_cells_deinit(struct cprof_cells *cells)
{
	free(cells->cells);
	*cells = (struct cprof_cells){0};
}

static struct cprof_cell *cell_at(struct cprof_cells *cells, int row, int column)
{
	return &cells->cells[(size_t)row * (size_t)cells->columns + (size_t)column];
}

void cprof_cells_clear(struct cprof_cells *cells)
{
	for (int row = 0; row < cells->rows; row++)
		cprof_cells_fill(cells, row, 0, cells->columns, CPROF_STYLE_NORMAL);
}

/* --- characters ---------------------------------------------------------------------------- */

wchar_t cprof_text_next(const char **text)
{
	const unsigned char *bytes = (const unsigned char *)*text;
	uint32_t point = bytes[0];
	int more = 0;

	(*text)++;
	if (point < 0x80)
		return (wchar_t)point;
	if (point >= 0xc2 && point < 0xe0)
		more = 1;
	else if (point >= 0xe0 && point < 0xf0)
		more = 2;
	else if (point >= 0xf0 && point < 0xf5)
		more = 3;
	else
		return L'?';
	point &= 0x3fu >> more;
	for (int i = 1; i <= more; i++) {
		if ((bytes[i] & 0xc0) != 0x80)
			return L'?';
		point = point << 6 | (bytes[i] & 0x3f);
	}
	*text += more;
	return (wchar_t)point;
}

/* What moves the cursor or turns the direction of writing, even though it has a width of none; and
 * what makes terminals draw its neighbours as one or wider, each in its own way: joiners and
 * variation selectors. */
static bool point_harmful(wchar_t point)
{
	return point < 0x20 || (point >= 0x7f && point < 0xa0) || point == 0x00ad ||
	       point == 0x061c || (point >= 0x200b && point <= 0x200f) ||
	       (point >= 0x2028 && point <= 0x202e) || (point >= 0x2060 && point <= 0x206f) ||
	       (point >= 0xfe00 && point <= 0xfe0f) || point == 0xfeff ||
	       (point >= 0xe0000 && point <= 0xe0fff);
}

/* The width of a character as it is shown; what cannot be shown becomes '?'. */
static int show_point(wchar_t *point, bool utf8)
{
	int width = *point < 0x7f ? 1 : utf8 ? wcwidth(*point) : -1;

	if (point_harmful(*point) || width < 0) {
		*point = L'?';
		width = 1;
	}
	return width;
}

int cprof_text_width(const char *text, bool utf8)
{
	int width = 0;

	while (*text) {
		wchar_t point = cprof_text_next(&text);

		width += show_point(&point, utf8);
	}
	return width;
}

static void combine(struct cprof_cells *cells, int row, int column, wchar_t point)
{
	struct cprof_cell *cell = cell_at(cells, row, column);

	while (column > 0 && !cell->width) {
		cell--;
		column--;
	}
	for (int i = 1; i < CPROF_CELL_CHARS; i++)
		if (!cell->text[i]) {
			cell->text[i] = point;
			return;
		}
}

/* A wide character that loses a half to its neighbour leaves a space. */
static void set_cell(struct cprof_cells *cells, int row, int column, wchar_t point, int width,
		     enum cprof_style style)
{
	struct cprof_cell *cell = cell_at(cells, row, column);

	if (!cell->width && column > 0) {
		cell[-1].text[0] = L' ';
		cell[-1].text[1] = 0;
		cell[-1].width = 1;
	}
	if (column + width < cells->columns && !cell[width].width) {
		cell[width].text[0] = L' ';
		cell[width].text[1] = 0;
		cell[width].width = 1;
	}
	*cell = (struct cprof_cell){
		.text = {point}, .style = (uint8_t)style, .width = (uint8_t)width};
	if (width == 2)
		cell[1] = (struct cprof_cell){.style = (uint8_t)style};
}

int cprof_cells_put(struct cprof_cells *cells, int row, int column, int width,
		    enum cprof_style style, const char *text)
{
	int start = column, end;

	if (row < 0 || row >= cells->rows || column < 0 || column >= cells->columns || width <= 0)
		return 0;
	end = width > cells->columns - column ? cells->columns : column + width;
	while (*text) {
		wchar_t point = cprof_text_next(&text);
		int columns = show_point(&point, cells->utf8);

		if (!columns) {
			if (column > start)
				combine(cells, row, column - 1, point);
			continue;
		}
		if (column + columns > end)
			break;
		set_cell(cells, row, column, point, columns, style);
		column += columns;
	}
	return column - start;
}

int cprof_cells_printf(struct cprof_cells *cells, int row, int column, int width,
		       enum cprof_style style, const char *format, ...)
{
	char text[1024];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	return cprof_cells_put(cells, row, column, width, style, text);
}

void cprof_cells_right(struct cprof_cells *cells, int row, int column, int width,
		       enum cprof_style style, const char *text)
{
	int used = cprof_text_width(text, cells->utf8);
	int left = CPROF_MAX(width - used, 0);

	cprof_cells_put(cells, row, column + left, width - left, style, text);
}

int cprof_cells_name(struct cprof_cells *cells, int row, int column, int width,
		     enum cprof_style style, const char *name)
{
	char text[1024];

	if (width <= 0)
		return 0;
	cprof_text_shorten(name, width, cells->utf8, text, sizeof(text));
	return cprof_cells_put(cells, row, column, width, style, text);
}

void cprof_cells_style(struct cprof_cells *cells, int row, int column, int width,
		       enum cprof_style style)
{
	if (row < 0 || row >= cells->rows)
		return;
	for (int i = CPROF_MAX(column, 0); i < cells->columns && i - column < width; i++)
		cell_at(cells, row, i)->style = (uint8_t)style;
}

void cprof_cells_fill(struct cprof_cells *cells, int row, int column, int width,
		      enum cprof_style style)
{
	if (row < 0 || row >= cells->rows)
		return;
	for (int i = CPROF_MAX(column, 0); i < cells->columns && i - column < width; i++)
		set_cell(cells, row, i, L' ', 1, style);
}

/* --- names --------------------------------------------------------------------------------- */

/* Of the brackets and the like that are an operator's name, the longest that fits. */
static size_t operator_length(const char *text)
{
	static const char *const names[] = {"()", "<<=", ">>=", "<=>", "->*", "<<",
					    ">>", "<=",  ">=",  "->",  "<",   ">"};

	for (size_t i = 0; i < CPROF_COUNT(names); i++)
		if (!strncmp(text, names[i], strlen(names[i])))
			return strlen(names[i]);
	return 0;
}

/* "<8>", "(x)": there is nothing to be gained. */
static bool short_inside(const char *open, char close)
{
	const char *end = strpbrk(open + 1, "<>()");

	return end && *end == close && end - open <= 3;
}

/* Copies, with what stands between `open` and its `close` at the outermost level replaced. An
 * operator's own characters (operator<, operator->, operator()) are no brackets. */
static void fold_brackets(const char *name, char open, char close, const char *ellipsis, char *out,
			  size_t size)
{
	static const char word[] = "operator";
	size_t used = 0;
	int depth = 0;

	for (const char *next = name; *next && used + 8 < size;) {
		if (!strncmp(next, word, sizeof(word) - 1)) {
			size_t length = sizeof(word) - 1 + operator_length(next + sizeof(word) - 1);

			if (!depth) {
				length = CPROF_MIN(length, size - used - 8);
				memcpy(out + used, next, length);
				used += length;
			}
			next += length;
			continue;
		}
		if (*next == open && !depth && short_inside(next, close)) {
			do
				out[used++] = *next++;
			while (*next != close);
			out[used++] = *next++;
			continue;
		}
		if (*next == open && !depth++) {
			out[used++] = open;
			if (next[1] != close)
				used += (size_t)snprintf(out + used, size - used, "%s", ellipsis);
		}
		if (*next == close && depth && !--depth)
			out[used++] = close;
		else if (!depth)
			out[used++] = *next;
		next++;
	}
	out[used] = '\0';
}

/* Where the last part of a qualified name starts: behind the last "::" that is in no brackets. */
static const char *last_part(const char *name)
{
	const char *part = name;
	int depth = 0;

	for (const char *next = name; *next; next++) {
		depth += (*next == '<' || *next == '(') - (*next == '>' || *next == ')');
		if (depth <= 0 && next[0] == ':' && next[1] == ':')
			part = next + 2;
	}
	return part;
}

static const char *skip_part(const char *name)
{
	int depth = 0;

	for (const char *next = name; *next; next++) {
		depth += (*next == '<' || *next == '(') - (*next == '>' || *next == ')');
		if (depth <= 0 && next[0] == ':' && next[1] == ':')
			return next + 2;
	}
	return name;
}

#define TAIL_LEAST 9

/* The first columns of a text, then the ellipsis. */
static void cut(const char *text, int width, bool utf8, const char *ellipsis, char *out,
		size_t size)
{
	int room = width - cprof_text_width(ellipsis, utf8), used = 0;
	const char *next = text;

	while (*next) {
		const char *before = next;
		wchar_t point = cprof_text_next(&next);
		int columns = show_point(&point, utf8);

		if (used + columns > room) {
			next = before;
			break;
		}
		used += columns;
	}
	snprintf(out, size, "%.*s%s", (int)(next - text), text, room < 0 ? "" : ellipsis);
}

void cprof_text_shorten(const char *name, int width, bool utf8, char *out, size_t size)
{
	const char *ellipsis = utf8 ? "…" : "..";
	char parameters[1024], arguments[1024];
	const char *part;
	int room;

	snprintf(out, size, "%s", name);
	if (cprof_text_width(name, utf8) <= width)
		return;
	/* A clone's suffix and the like stays behind the parameters. */
	fold_brackets(name, '(', ')', ellipsis, parameters, sizeof(parameters));
	snprintf(out, size, "%s", parameters);
	if (cprof_text_width(out, utf8) <= width)
		return;
	fold_brackets(parameters, '<', '>', ellipsis, arguments, sizeof(arguments));
	snprintf(out, size, "%s", arguments);
	if (cprof_text_width(out, utf8) <= width)
		return;
	for (part = arguments; part != last_part(arguments);) {
		part = skip_part(part);
		snprintf(out, size, "%s%s", ellipsis, part);
		if (cprof_text_width(out, utf8) > width)
			continue;
		/* Room for the end of the part before? It tells iterators apart, say. */
		room = width - cprof_text_width(out, utf8);
		if (room > TAIL_LEAST && part - arguments > room) {
			while (room-- > 0)
				part--;
			while ((*part & 0xc0) == 0x80)
				part++;
			snprintf(out, size, "%s%s", ellipsis, part);
		}
		return;
	}
	cut(part, width, utf8, ellipsis, out, size);
}

/* --- as text ------------------------------------------------------------------------------- */

/* What an ANSI terminal of 256 colours makes of a style. */
static const char *const sequences[CPROF_STYLES] = {
	[CPROF_STYLE_DIM] = "2",
	[CPROF_STYLE_BOLD] = "1",
	[CPROF_STYLE_TITLE] = "1",
	[CPROF_STYLE_TAB_ON] = "1;7",
	[CPROF_STYLE_HEAD] = "30;46",
	[CPROF_STYLE_SELECTED] = "7",
	[CPROF_STYLE_KEY] = "1;36",
	[CPROF_STYLE_HOT] = "1;33",
	[CPROF_STYLE_WARN] = "1;33",
	[CPROF_STYLE_BAD] = "1;31",
	[CPROF_STYLE_GOOD] = "1;34",
	[CPROF_STYLE_MATCH] = "1;4",
	[CPROF_STYLE_GRAPH] = "36",
	[CPROF_STYLE_FLAME] = "30;48;5;180",
	[CPROF_STYLE_FLAME + 1] = "30;48;5;215",
	[CPROF_STYLE_FLAME + 2] = "30;48;5;222",
	[CPROF_STYLE_FLAME + 3] = "30;48;5;216",
	[CPROF_STYLE_FLAME + 4] = "30;48;5;229",
	[CPROF_STYLE_FLAME_DIM] = "30;47",
};

static void put_point(wchar_t point, FILE *out)
{
	uint32_t u = (uint32_t)point;

	if (u < 0x80) {
		putc((int)u, out);
	} else if (u < 0x800) {
		fprintf(out, "%c%c", (int)(0xc0 | u >> 6), (int)(0x80 | (u & 0x3f)));
	} else if (u < 0x10000) {
		fprintf(out, "%c%c%c", (int)(0xe0 | u >> 12), (int)(0x80 | (u >> 6 & 0x3f)),
			(int)(0x80 | (u & 0x3f)));
	} else {
		fprintf(out, "%c%c%c%c", (int)(0xf0 | u >> 18), (int)(0x80 | (u >> 12 & 0x3f)),
			(int)(0x80 | (u >> 6 & 0x3f)), (int)(0x80 | (u & 0x3f)));
	}
}

void cprof_cells_dump(const struct cprof_cells *cells, bool color, FILE *out)
{
	for (int row = 0; row < cells->rows; row++) {
		const struct cprof_cell *line = &cells->cells[(size_t)row * (size_t)cells->columns];
		int end = cells->columns;
		const char *now = NULL;

		while (end > 0 && line[end - 1].width == 1 && line[end - 1].text[0] == L' ' &&
		       !line[end - 1].text[1] && (!color || !sequences[line[end - 1].style]))
			end--;
		for (int i = 0; i < end; i++) {
			const char *wanted = color ? sequences[line[i].style] : NULL;

			if (wanted != now)
				fprintf(out, "\033[0%s%sm", wanted ? ";" : "",
					wanted ? wanted : "");
			now = wanted;
			for (int j = 0; j < CPROF_CELL_CHARS && line[i].text[j]; j++)
				put_point(line[i].text[j], out);
		}
		fputs(now ? "\033[m\n" : "\n", out);
	}
}
