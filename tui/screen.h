/* SPDX-License-Identifier: MIT
 *
 * What cells are shown on: a terminal, or nothing but memory (headless), printed at the end.
 */
#ifndef CPROF_TUI_SCREEN_H
#define CPROF_TUI_SCREEN_H

#include "ui.h"

struct cprof_screen;
struct cprof_screen_ops {
	void (*size)(struct cprof_screen *screen, int *rows, int *columns);
	void (*show)(struct cprof_screen *screen, const struct cprof_cells *cells, bool anew);
	/* The next key that has been pressed; false: none. */
	bool (*key)(struct cprof_screen *screen, struct cprof_key *key);
	/* Gives the terminal back for a while, and takes it again. */
	void (*suspend)(struct cprof_screen *screen);
	void (*resume)(struct cprof_screen *screen);
	void (*destroy)(struct cprof_screen *screen);
};
struct cprof_screen {
	const struct cprof_screen_ops *ops;
};

struct cprof_error *cprof_screen_create_curses(enum cprof_view_color color,
					       struct cprof_screen **screen);
/* Prints what was shown last when it is destroyed. */
struct cprof_error *cprof_screen_create_text(const struct cprof_view_config *config,
					     struct cprof_screen **screen);

#endif
