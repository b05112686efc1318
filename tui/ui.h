/* SPDX-License-Identifier: MIT
 *
 * The user's side: keys become requests, requests change this state, and the state with a model is
 * drawn into cells. Nothing here waits for anything.
 */
#ifndef CPROF_TUI_UI_H
#define CPROF_TUI_UI_H

#include "cells.h"
#include "worker.h"

/* --- keys.c -------------------------------------------------------------------------------- */

enum { /* keys that are no characters */
       CPROF_KEY_NONE,
       CPROF_KEY_UP = 0x110000,
       CPROF_KEY_DOWN,
       CPROF_KEY_LEFT,
       CPROF_KEY_RIGHT,
       CPROF_KEY_PAGE_UP,
       CPROF_KEY_PAGE_DOWN,
       CPROF_KEY_HOME,
       CPROF_KEY_END,
       CPROF_KEY_ENTER,
       CPROF_KEY_ESCAPE,
       CPROF_KEY_TAB,
       CPROF_KEY_BACK_TAB,
       CPROF_KEY_BACKSPACE,
       CPROF_KEY_DELETE,
       CPROF_KEY_F1,
       CPROF_KEY_F10 = CPROF_KEY_F1 + 9,
       CPROF_KEY_CLICK, /* with its place */
       CPROF_KEY_WHEEL_UP,
       CPROF_KEY_WHEEL_DOWN,
       CPROF_KEY_REDRAW, /* Ctrl-L */
};
struct cprof_key {
	int code;
	int row; /* of the mouse */
	int column;
};

enum cprof_request {
	CPROF_REQUEST_NONE,
	CPROF_REQUEST_VIEW, /* with the view's number */
	CPROF_REQUEST_NEXT_VIEW,
	CPROF_REQUEST_PREVIOUS_VIEW,
	CPROF_REQUEST_ENTER,
	CPROF_REQUEST_FLAME,
	CPROF_REQUEST_SOURCE,
	CPROF_REQUEST_CODE,
	CPROF_REQUEST_FILTER,
	CPROF_REQUEST_THREAD,
	CPROF_REQUEST_SORT,
	CPROF_REQUEST_REVERSE,
	CPROF_REQUEST_TYPE,
	CPROF_REQUEST_FREEZE,
	CPROF_REQUEST_LONGER,
	CPROF_REQUEST_SHORTER,
	CPROF_REQUEST_WRITE,
	CPROF_REQUEST_DUMP,
	CPROF_REQUEST_RESET,
	CPROF_REQUEST_BASE,
	CPROF_REQUEST_UNBASE,
	CPROF_REQUEST_NEXT_MATCH,
	CPROF_REQUEST_PREVIOUS_MATCH,
	CPROF_REQUEST_HELP,
	CPROF_REQUEST_BACK,
	CPROF_REQUEST_QUIT,
	CPROF_REQUEST_UP,
	CPROF_REQUEST_DOWN,
	CPROF_REQUEST_LEFT,
	CPROF_REQUEST_RIGHT,
	CPROF_REQUEST_PAGE_UP,
	CPROF_REQUEST_PAGE_DOWN,
	CPROF_REQUEST_HOME,
	CPROF_REQUEST_END,
	CPROF_REQUEST_CLICK,
	CPROF_REQUEST_SCROLL_UP,
	CPROF_REQUEST_SCROLL_DOWN,
	CPROF_REQUEST_REDRAW,
	CPROF_REQUESTS
};
struct cprof_binding {
	enum cprof_request request;
	const char *keys;  /* as shown */
	const char *brief; /* for the footer; NULL: not there */
	const char *help;  /* NULL: goes with the one before */
	int codes[4];      /* 0 ends */
};
extern const struct cprof_binding cprof_bindings[]; /* ends with request NONE */
enum cprof_request cprof_key_request(int code);
/* Reads the next key of a script; false at its end. */
bool cprof_key_script(const char **script, struct cprof_key *key);
struct cprof_error *cprof_key_script_check(const char *script);

/* --- state --------------------------------------------------------------------------------- */

#define CPROF_LEVELS    32
#define CPROF_FLAME_MAX 512

struct cprof_level {
	enum cprof_page page;
	char *function; /* NULL none */
	int64_t tid;
	char thread[CPROF_NAME_MAX];
	int selected;
	int top;
	int shift;     /* columns that are scrolled away to the left */
	uint64_t mark; /* what is selected, whatever its place; 0 nothing */
	bool placed;   /* a listing has been moved to where the cost is */
};

/* A way from the root of the flame view: hashes of names. */
struct cprof_flame {
	uint64_t path[CPROF_FLAME_MAX];
	int length;
	int zoom;          /* so much of it is zoomed into */
	uint32_t selected; /* nodes of the model that is shown */
	uint32_t zoomed;
};

enum cprof_column_kind {
	CPROF_COLUMN_FLAT,
	CPROF_COLUMN_FLAT_SHARE,
	CPROF_COLUMN_SUM_SHARE,
	CPROF_COLUMN_CUM,
	CPROF_COLUMN_CUM_SHARE,
	CPROF_COLUMN_GROWTH,
	CPROF_COLUMN_OTHER, /* flat of another value type */
	CPROF_COLUMN_NAME,
	CPROF_COLUMN_MODULE,
	CPROF_COLUMN_TID,
	CPROF_COLUMN_THREAD,
	CPROF_COLUMN_STATE,
	CPROF_COLUMN_CPU,
	CPROF_COLUMN_TIME,
	CPROF_COLUMN_VALUE,
	CPROF_COLUMN_VALUE_SHARE,
	CPROF_COLUMN_WAIT,
	CPROF_COLUMN_DETAIL,
	CPROF_COLUMN_TOP,
};
struct cprof_column {
	enum cprof_column_kind kind;
	size_t type; /* of OTHER */
	char title[32];
	int left;
	int width;
	bool to_right; /* numbers */
};
#define CPROF_COLUMNS 16

struct cprof_tab {
	struct cprof_level levels[CPROF_LEVELS];
	int depth;
	enum cprof_column_kind sort;
	size_t sort_type;
	bool reverse;
	char type[64]; /* of values, "" default */
	struct cprof_flame flame;
};

enum cprof_dialog {
	CPROF_DIALOG_NONE,
	CPROF_DIALOG_FILTER,
	CPROF_DIALOG_THREAD,
	CPROF_DIALOG_HELP,
};

struct cprof_ui {
	struct cprof_worker *worker;
	const struct cprof_view_config *config;
	enum cprof_view_id saved_view;
	const char *saved_title; /* of the CPU view; NULL: the usual one */
	struct cprof_cells cells;
	struct cprof_model *model; /* NULL at first */
	uint64_t serial;           /* of what was asked for last */
	uint64_t asked_ns;
	enum cprof_view_id view;
	struct cprof_tab tabs[CPROF_VIEWS];
	size_t window; /* index */
	bool frozen;
	char filter[CPROF_FILTER_MAX];
	int64_t tid; /* the one thread */
	char thread[CPROF_NAME_MAX];
	char message[512];
	bool quit;

	enum cprof_dialog dialog;
	char input[CPROF_FILTER_MAX];
	char filter_before[CPROF_FILTER_MAX];
	char input_error[128];
	int dialog_selected;
	int dialog_top;

	/* The rows of the list in their order. */
	uint32_t *order;
	size_t order_count;
	size_t order_capacity;
	struct cprof_column columns[CPROF_COLUMNS];
	size_t column_count;

	/* Where things are on the screen, for the mouse. */
	int tabs_row;
	int tab_left[CPROF_VIEWS + 1];
	int head_row;
	int body_row;
	int body_rows;
};

/* What a request changed. */
enum {
	CPROF_CHANGED_NOTHING = 0,
	CPROF_CHANGED_SCREEN = 1,
	CPROF_CHANGED_ORDER = 2,
	CPROF_CHANGED_WANT = 4, /* the worker has to be told */
};

/* --- ui.c ---------------------------------------------------------------------------------- */

void cprof_ui_init(struct cprof_ui *ui, struct cprof_worker *worker,
		   const struct cprof_view_config *config);
void cprof_ui_deinit(struct cprof_ui *ui);
/* Handles a key, and asks the worker for what it calls for. */
void cprof_ui_key(struct cprof_ui *ui, const struct cprof_key *key);
/* Takes over what the worker has; true if there was something. */
bool cprof_ui_receive(struct cprof_ui *ui);
/* Whether something that was asked for is still on its way. */
bool cprof_ui_pending(const struct cprof_ui *ui);
void cprof_ui_ask(struct cprof_ui *ui);
struct cprof_tab *cprof_ui_tab(struct cprof_ui *ui);
struct cprof_level *cprof_ui_level(struct cprof_ui *ui);
/* The model, if it is one of the page that is to be shown. */
const struct cprof_model *cprof_ui_page(const struct cprof_ui *ui);
uint64_t cprof_ui_window_ns(const struct cprof_ui *ui);
void cprof_ui_say(struct cprof_ui *ui, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* --- handle.c: what requests do ------------------------------------------------------------ */

unsigned cprof_ui_handle(struct cprof_ui *ui, enum cprof_request request,
			 const struct cprof_key *key);
/* Keys of a dialog that is open. */
unsigned cprof_ui_dialog_key(struct cprof_ui *ui, const struct cprof_key *key);
unsigned cprof_ui_open_dialog(struct cprof_ui *ui, enum cprof_dialog dialog);
/* Opens another page on top of the one that is there. */
unsigned cprof_ui_push(struct cprof_ui *ui, enum cprof_page page, const char *function);
unsigned cprof_ui_pop(struct cprof_ui *ui);

/* --- rows.c: what the rows of a page are --------------------------------------------------- */

/* Columns for a width, then the rows in their order; finds the selection again. */
void cprof_rows_update(struct cprof_ui *ui);
int cprof_rows_count(const struct cprof_ui *ui);
/* Moves the selection to a row, and remembers what it is. */
void cprof_rows_select(struct cprof_ui *ui, int row);
/* The function of a row, NULL none. */
const char *cprof_rows_function(const struct cprof_ui *ui, int row);
const struct cprof_view_thread *cprof_rows_thread(const struct cprof_ui *ui, int row);
bool cprof_rows_match(const struct cprof_ui *ui, int row);
void cprof_columns_make(struct cprof_ui *ui);
/* The next column that rows can be sorted by. */
void cprof_columns_next_sort(struct cprof_ui *ui);

/* --- flame.c ------------------------------------------------------------------------------- */

void cprof_flame_update(struct cprof_ui *ui);
void cprof_flame_move(struct cprof_ui *ui, enum cprof_request request);
/* False where there is nothing to zoom into, or out of. */
bool cprof_flame_zoom(struct cprof_ui *ui);
bool cprof_flame_back(struct cprof_ui *ui);
const char *cprof_flame_function(const struct cprof_ui *ui);
void cprof_flame_draw(struct cprof_ui *ui);
/* Selects what is at a place of the screen. */
void cprof_flame_click(struct cprof_ui *ui, int row, int column);

/* --- draw.c, head.c, table.c, help.c ------------------------------------------------------- */

/* Draws everything into the cells, which have the screen's size. */
void cprof_draw(struct cprof_ui *ui);
/* From row 0 on; returns the rows used. */
int cprof_draw_head(struct cprof_ui *ui);
/* In the rows at the bottom; returns how many. */
int cprof_draw_foot(struct cprof_ui *ui);
void cprof_draw_body(struct cprof_ui *ui);
void cprof_value_text(int64_t value, const char *from, const char *to, int width,
		      char text[CPROF_ANALYSIS_TEXT]);
void cprof_draw_empty(struct cprof_ui *ui, const struct cprof_model *model);
void cprof_draw_help(struct cprof_ui *ui);
void cprof_draw_thread_dialog(struct cprof_ui *ui);
int cprof_help_rows(const struct cprof_ui *ui);
/* A line of history, newest at the right; of `width` columns. */
void cprof_draw_history(struct cprof_cells *cells, int row, int column, int width,
			const float *values, size_t count);
const char *cprof_view_title(const struct cprof_ui *ui, enum cprof_view_id view);
/* "1h02m", "3.1s" */
void cprof_time_text(uint64_t ns, char *text, size_t size);
/* "186M" */
void cprof_bytes_text(double bytes, char *text, size_t size);

#endif
