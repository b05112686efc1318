/* SPDX-License-Identifier: MIT
 *
 * The live view: a source of profiles on a terminal, or, for tests, as text.
 */
#ifndef CPROF_VIEW_H
#define CPROF_VIEW_H

#include <cprof/error.h>
#include <cprof/profile.h>
#include <cprof/source.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#define CPROF_VIEW_REFRESH_DEFAULT 1000000000ull
#define CPROF_VIEW_MAX             1000 /* rows and columns of a headless screen */

enum cprof_view_color { CPROF_VIEW_COLOR_AUTO, CPROF_VIEW_COLOR_ALWAYS, CPROF_VIEW_COLOR_NEVER };

struct cprof_view_config {
	const char *cpu_kind; /* "cpu" or "cycles"; NULL: "cpu" */
	const char *file;     /* of a saved profile, for its name; NULL: live */
	/* Subtracted from everything of a saved profile; NULL none. Not taken over. */
	const struct cprof_profile *base;
	const char *source_path; /* where source files are looked for too, ':' between; NULL none */
	const char *sample_index; /* the value type to begin with; NULL: the default one */
	const char *focus;        /* a filter to begin with; NULL none */
	const char *begin[8];     /* kinds to be started at once; NULL-ended */
	uint64_t refresh_ns;      /* 0: the default */
	enum cprof_view_color color;
	/* Headless: a screen of that size, keys as in CLI.md, refreshes after them; then the screen
	 * is written to `out`. 0: on the terminal. */
	int rows;
	int columns;
	const char *keys;
	uint64_t frames;
	FILE *out;
};

/* Whether the keys of a script can be read; whether there is a terminal. CPROF_USAGE if not. */
struct cprof_error *cprof_view_check(const struct cprof_view_config *config);
/* Blocks the signals that the view waits for (SIGINT, SIGTERM, SIGHUP, SIGTSTP, SIGCONT, SIGWINCH)
 * and ignores SIGPIPE; to be called before any thread is started. */
void cprof_view_block_signals(void);
/* Shows the source until the user leaves, a signal says so, or the script is done. */
struct cprof_error *cprof_view_run(struct cprof_source *source,
				   const struct cprof_view_config *config);

#endif
