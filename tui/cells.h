/* SPDX-License-Identifier: MIT
 *
 * What is shown, as a buffer of cells: characters and what they mean. How a meaning looks is the
 * screen's affair.
 */
#ifndef CPROF_TUI_CELLS_H
#define CPROF_TUI_CELLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <wchar.h>

enum cprof_style {
	CPROF_STYLE_NORMAL,
	CPROF_STYLE_DIM,
	CPROF_STYLE_BOLD,
	CPROF_STYLE_TITLE,    /* names of things at the top */
	CPROF_STYLE_TAB,      /* a view that may be chosen */
	CPROF_STYLE_TAB_ON,   /* the one that is */
	CPROF_STYLE_HEAD,     /* of columns */
	CPROF_STYLE_SELECTED, /* the row that keys work on */
	CPROF_STYLE_KEY,
	CPROF_STYLE_HOT, /* a large share */
	CPROF_STYLE_WARN,
	CPROF_STYLE_BAD,
	CPROF_STYLE_GOOD,
	CPROF_STYLE_MATCH, /* of the filter */
	CPROF_STYLE_GRAPH,
	CPROF_STYLE_FLAME, /* and the following ones: boxes side by side */
	CPROF_STYLE_FLAME_LAST = CPROF_STYLE_FLAME + 4,
	CPROF_STYLE_FLAME_DIM, /* what does not match */
	CPROF_STYLES
};

#define CPROF_CELL_CHARS 3

struct cprof_cell {
	wchar_t text[CPROF_CELL_CHARS]; /* a character and what combines with it; 0 ends */
	uint8_t style;
	uint8_t width; /* 0: right half of the cell before */
};

struct cprof_cells {
	int rows;
	int columns;
	bool utf8;
	struct cprof_cell *cells;
};

/* False without memory: the buffer then has no cells. Sizes below 1 become 1. */
bool cprof_cells_resize(struct cprof_cells *cells, int rows, int columns);
void cprof_cells_deinit(struct cprof_cells *cells);
void cprof_cells_clear(struct cprof_cells *cells);

/* Writes text, at most `width` columns of it (and never beyond the buffer); returns the columns
 * used. Nothing in it can do harm: what is no printable character becomes '?'. */
int cprof_cells_put(struct cprof_cells *cells, int row, int column, int width,
		    enum cprof_style style, const char *text);
int cprof_cells_printf(struct cprof_cells *cells, int row, int column, int width,
		       enum cprof_style style, const char *format, ...)
	__attribute__((format(printf, 6, 7)));
/* To the right side of `width` columns; text that is too long loses its end. */
void cprof_cells_right(struct cprof_cells *cells, int row, int column, int width,
		       enum cprof_style style, const char *text);
/* A name shortened so that what tells it apart stays (cprof_text_shorten()). */
int cprof_cells_name(struct cprof_cells *cells, int row, int column, int width,
		     enum cprof_style style, const char *name);
/* Gives cells another style. */
void cprof_cells_style(struct cprof_cells *cells, int row, int column, int width,
		       enum cprof_style style);
/* Fills with spaces of a style. */
void cprof_cells_fill(struct cprof_cells *cells, int row, int column, int width,
		      enum cprof_style style);

/* The next character of a text; of what is no valid UTF-8 each byte is a '?'. */
wchar_t cprof_text_next(const char **text);
/* Columns that a text takes. */
int cprof_text_width(const char *text, bool utf8);
/* Shortens a function's name to `width` columns: template arguments and parameters give way first,
 * then what stands before the last `::`, then the end. */
void cprof_text_shorten(const char *name, int width, bool utf8, char *out, size_t size);

/* As lines of text without trailing spaces; `color`: with the sequences of an ANSI terminal. */
void cprof_cells_dump(const struct cprof_cells *cells, bool color, FILE *out);

#endif
