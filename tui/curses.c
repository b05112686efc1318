/* SPDX-License-Identifier: MIT
 *
 * A terminal, by ncursesw. Its own handlers of signals never run: these are blocked and read
 * elsewhere (view.c).
 */
#include "screen.h"

#include <cprof/util.h>
#include <errno.h>
#include <ncurses.h>
#include <string.h>
#include <sys/ioctl.h>

struct look {
	attr_t attributes; /* where there are no colours these must do */
	short foreground;  /* -1: the terminal's */
	short background;
	short rich[2]; /* the same of 256 colours; 0, 0: as above */
};

/* Nothing is told by red and green alone: text and attributes say it too. */
static const struct look looks[CPROF_STYLES] = {
	[CPROF_STYLE_NORMAL] = {A_NORMAL, -1, -1, {0, 0}},
	[CPROF_STYLE_DIM] = {A_NORMAL, -1, -1, {245, -1}},
	[CPROF_STYLE_BOLD] = {A_BOLD, -1, -1, {0, 0}},
	[CPROF_STYLE_TITLE] = {A_BOLD, -1, -1, {0, 0}},
	[CPROF_STYLE_TAB] = {A_NORMAL, -1, -1, {0, 0}},
	[CPROF_STYLE_TAB_ON] = {A_BOLD | A_REVERSE, -1, -1, {0, 0}},
	[CPROF_STYLE_HEAD] = {A_NORMAL, COLOR_BLACK, COLOR_CYAN, {0, 0}},
	[CPROF_STYLE_SELECTED] = {A_REVERSE, -1, -1, {0, 0}},
	[CPROF_STYLE_KEY] = {A_BOLD, COLOR_CYAN, -1, {0, 0}},
	[CPROF_STYLE_HOT] = {A_BOLD, COLOR_YELLOW, -1, {0, 0}},
	[CPROF_STYLE_WARN] = {A_BOLD, COLOR_YELLOW, -1, {0, 0}},
	[CPROF_STYLE_BAD] = {A_BOLD, COLOR_RED, -1, {0, 0}},
	[CPROF_STYLE_GOOD] = {A_BOLD, COLOR_BLUE, -1, {0, 0}},
	[CPROF_STYLE_MATCH] = {A_BOLD | A_UNDERLINE, -1, -1, {0, 0}},
	[CPROF_STYLE_GRAPH] = {A_NORMAL, COLOR_CYAN, -1, {0, 0}},
	[CPROF_STYLE_FLAME] = {A_NORMAL, COLOR_BLACK, COLOR_YELLOW, {16, 180}},
	[CPROF_STYLE_FLAME + 1] = {A_NORMAL, COLOR_BLACK, COLOR_CYAN, {16, 215}},
	[CPROF_STYLE_FLAME + 2] = {A_NORMAL, COLOR_BLACK, COLOR_WHITE, {16, 222}},
	[CPROF_STYLE_FLAME + 3] = {A_NORMAL, COLOR_BLACK, COLOR_MAGENTA, {16, 216}},
	[CPROF_STYLE_FLAME + 4] = {A_NORMAL, COLOR_BLACK, COLOR_GREEN, {16, 229}},
	[CPROF_STYLE_FLAME_DIM] = {A_NORMAL, -1, -1, {16, 250}},
};

struct terminal {
	struct cprof_screen base;
	SCREEN *screen;
	bool colors;
	bool rich;
};

static void terminal_size(struct cprof_screen *screen, int *rows, int *columns)
{
	struct winsize size;

	(void)screen;
	if (!ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) && size.ws_row && size.ws_col &&
	    (size.ws_row != LINES || size.ws_col != COLS))
		resizeterm(size.ws_row, size.ws_col);
	*rows = CPROF_MIN(LINES, CPROF_VIEW_MAX);
	*columns = CPROF_MIN(COLS, CPROF_VIEW_MAX);
}

static void put_cell(const struct terminal *terminal, int row, int column,
		     const struct cprof_cell *cell)
{
	const struct look *look = &looks[cell->style];
	bool colored = terminal->colors && (look->foreground >= 0 || look->background >= 0 ||
					    (terminal->rich && (look->rich[0] || look->rich[1])));
	attr_t attributes = look->attributes;
	wchar_t text[CPROF_CELL_CHARS + 1] = {0};
	cchar_t out;

	/* Told apart from the selected row, which is reversed. */
	if (!terminal->colors && cell->style == CPROF_STYLE_HEAD)
		attributes |= A_UNDERLINE;
	memcpy(text, cell->text, sizeof(cell->text));
	if (setcchar(&out, text, attributes, colored ? (short)(cell->style + 1) : 0, NULL) == OK)
		mvadd_wch(row, column, &out);
}

static void terminal_show(struct cprof_screen *screen, const struct cprof_cells *cells, bool anew)
{
	const struct terminal *terminal = (struct terminal *)screen;

	if (anew)
		clearok(curscr, TRUE);
	erase();
	for (int row = 0; row < cells->rows; row++)
		for (int column = 0; column < cells->columns; column++) {
			const struct cprof_cell *cell =
				&cells->cells[(size_t)row * (size_t)cells->columns +
					      (size_t)column];

			if (cell->width)
				put_cell(terminal, row, column, cell);
		}
	refresh();
}

static int mouse_key(struct cprof_key *key)
{
	MEVENT event;

	if (getmouse(&event) != OK)
		return CPROF_KEY_NONE;
	key->row = event.y;
	key->column = event.x;
	if (event.bstate & BUTTON4_PRESSED)
		return CPROF_KEY_WHEEL_UP;
	if (event.bstate & BUTTON5_PRESSED)
		return CPROF_KEY_WHEEL_DOWN;
	if (event.bstate & (BUTTON1_PRESSED | BUTTON1_CLICKED))
		return CPROF_KEY_CLICK;
	return CPROF_KEY_NONE;
}

static int function_key(wint_t code, struct cprof_key *key)
{
	switch (code) {
	case KEY_UP:
		return CPROF_KEY_UP;
	case KEY_DOWN:
		return CPROF_KEY_DOWN;
	case KEY_LEFT:
		return CPROF_KEY_LEFT;
	case KEY_RIGHT:
		return CPROF_KEY_RIGHT;
	case KEY_PPAGE:
		return CPROF_KEY_PAGE_UP;
	case KEY_NPAGE:
		return CPROF_KEY_PAGE_DOWN;
	case KEY_HOME:
		return CPROF_KEY_HOME;
	case KEY_END:
		return CPROF_KEY_END;
	case KEY_ENTER:
		return CPROF_KEY_ENTER;
	case KEY_BTAB:
		return CPROF_KEY_BACK_TAB;
	case KEY_BACKSPACE:
		return CPROF_KEY_BACKSPACE;
	case KEY_DC:
		return CPROF_KEY_DELETE;
	case KEY_MOUSE:
		return mouse_key(key);
	default:
		if (code >= KEY_F(1) && code <= KEY_F(10))
			return CPROF_KEY_F1 + (int)(code - KEY_F(1));
		return CPROF_KEY_NONE;
	}
}

static bool terminal_key(struct cprof_screen *screen, struct cprof_key *key)
{
	wint_t code;
	int kind = get_wch(&code);

	(void)screen;
	*key = (struct cprof_key){0};
	if (kind == ERR)
		return false;
	if (kind == KEY_CODE_YES)
		key->code = function_key(code, key);
	else if (code == '\r' || code == '\n')
		key->code = CPROF_KEY_ENTER;
	else if (code == '\t')
		key->code = CPROF_KEY_TAB;
	else if (code == 033)
		key->code = CPROF_KEY_ESCAPE;
	else if (code == 0x7f || code == '\b')
		key->code = CPROF_KEY_BACKSPACE;
	else if (code == 'L' - '@')
		key->code = CPROF_KEY_REDRAW;
	else
		key->code = (int)code;
	return true;
}

static void terminal_suspend(struct cprof_screen *screen)
{
	(void)screen;
	endwin();
}

static void terminal_resume(struct cprof_screen *screen)
{
	(void)screen;
	reset_prog_mode();
	clearok(curscr, TRUE);
	refresh();
}

static void terminal_destroy(struct cprof_screen *screen)
{
	struct terminal *terminal = (struct terminal *)screen;

	endwin();
	delscreen(terminal->screen);
	free(terminal);
}

static const struct cprof_screen_ops terminal_ops = {
	.size = terminal_size,
	.show = terminal_show,
	.key = terminal_key,
	.suspend = terminal_suspend,
	.resume = terminal_resume,
	.destroy = terminal_destroy,
};

static void init_colors(struct terminal *terminal, enum cprof_view_color color)
{
	const char *no_color = getenv("NO_COLOR");

	if (color == CPROF_VIEW_COLOR_NEVER ||
	    (color == CPROF_VIEW_COLOR_AUTO && no_color && *no_color) || !has_colors())
		return;
	start_color();
	use_default_colors();
	terminal->colors = COLORS >= 8 && COLOR_PAIRS > CPROF_STYLES;
	terminal->rich = terminal->colors && COLORS >= 256;
	for (short i = 0; terminal->colors && i < CPROF_STYLES; i++) {
		const struct look *look = &looks[i];
		bool rich = terminal->rich && (look->rich[0] || look->rich[1]);

		init_pair((short)(i + 1), rich ? look->rich[0] : look->foreground,
			  rich ? look->rich[1] : look->background);
	}
}

struct cprof_error *cprof_screen_create_curses(enum cprof_view_color color,
					       struct cprof_screen **screen)
{
	struct terminal *terminal = calloc(1, sizeof(*terminal));
	const char *type = getenv("TERM");

	*screen = NULL;
	if (!terminal)
		return cprof_error_nomem();
	terminal->base.ops = &terminal_ops;
	terminal->screen = newterm(NULL, stdout, stdin);
	if (!terminal->screen) {
		free(terminal);
		return cprof_error_create(CPROF_USAGE, "set TERM, as to xterm-256color",
					  "the view: a terminal of type `%s` is not known",
					  type ? type : "");
	}
	set_term(terminal->screen);
	if (!tigetstr("cup")) { /* dumb */
		terminal_destroy(&terminal->base);
		return cprof_error_create(
			CPROF_USAGE, "set TERM, as to xterm-256color",
			"the view: a terminal of type `%s` cannot place its cursor",
			type ? type : "");
	}
	cbreak();
	noecho();
	nonl();
	keypad(stdscr, TRUE);
	nodelay(stdscr, TRUE);
	set_escdelay(25);
	curs_set(0);
	mousemask(BUTTON1_PRESSED | BUTTON1_CLICKED | BUTTON4_PRESSED | BUTTON5_PRESSED, NULL);
	mouseinterval(0);
	init_colors(terminal, color);
	*screen = &terminal->base;
	return NULL;
}
