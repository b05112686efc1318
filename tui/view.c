/* SPDX-License-Identifier: MIT
 *
 * The loops: on a terminal by what happens, headless by a script.
 */
#include "screen.h"

#include <cprof/util.h>
#include <errno.h>
#include <langinfo.h>
#include <locale.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>

#define PENDING_MS      300 /* what takes longer is told */
#define HEADLESS_FRAMES 3   /* a live view has something to show before keys are pressed */

static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGCONT, SIGWINCH};

static void fill_mask(sigset_t *mask)
{
	sigemptyset(mask);
	for (size_t i = 0; i < CPROF_COUNT(signals); i++)
		sigaddset(mask, signals[i]);
}

void cprof_view_block_signals(void)
{
	sigset_t mask;

	fill_mask(&mask);
	pthread_sigmask(SIG_BLOCK, &mask, NULL);
	signal(SIGPIPE, SIG_IGN);
}

struct cprof_error *cprof_view_check(const struct cprof_view_config *config)
{
	if (config->rows)
		return cprof_key_script_check(config->keys);
	if (config->keys || config->frames)
		return cprof_error_create(CPROF_USAGE, "give --headless COLSxROWS too",
					  "--keys and --frames are for --headless");
	if (isatty(STDIN_FILENO) && isatty(STDOUT_FILENO))
		return NULL;
	return cprof_error_create(CPROF_USAGE,
				  "use record, threads or memtrace, or --headless COLSxROWS",
				  "the view needs a terminal");
}

struct view {
	struct cprof_ui ui;
	struct cprof_screen *screen;
	int signal_fd;
};

static void draw(struct view *view, bool anew)
{
	int rows, columns;

	view->screen->ops->size(view->screen, &rows, &columns);
	if (rows != view->ui.cells.rows || columns != view->ui.cells.columns) {
		if (!cprof_cells_resize(&view->ui.cells, rows, columns))
			return;
		cprof_rows_update(&view->ui);
	}
	cprof_draw(&view->ui);
	view->screen->ops->show(view->screen, &view->ui.cells, anew);
}

/* --- on a terminal ------------------------------------------------------------------------- */

/* By the signal itself: the kernel drops it where there is nobody who could continue us, as for
 * the one command of `ssh -t`, and SIGSTOP would stop that for ever. */
static void stop_for_a_while(struct view *view)
{
	const struct sigaction usual = {.sa_handler = SIG_DFL};
	struct sigaction before;
	sigset_t mask;

	view->screen->ops->suspend(view->screen);
	sigaction(SIGTSTP, &usual, &before); /* ncurses has its own */
	sigemptyset(&mask);
	sigaddset(&mask, SIGTSTP);
	raise(SIGTSTP);
	pthread_sigmask(SIG_UNBLOCK, &mask, NULL);
	pthread_sigmask(SIG_BLOCK, &mask, NULL);
	sigaction(SIGTSTP, &before, NULL);
	view->screen->ops->resume(view->screen);
}

/* True if the screen has to be drawn anew. */
static bool take_signals(struct view *view)
{
	struct signalfd_siginfo info;
	bool anew = false;

	while (read(view->signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
		switch (info.ssi_signo) {
		case SIGTSTP:
			stop_for_a_while(view);
			anew = true;
			break;
		case SIGCONT:
			view->screen->ops->resume(view->screen);
			anew = true;
			break;
		case SIGWINCH:
			anew = true;
			break;
		default:
			view->ui.quit = true;
		}
	}
	return anew;
}

/* A terminal that is gone is readable for ever and has nothing. */
static bool is_gone(const struct pollfd *terminal, bool got)
{
	int waiting = 0;

	if (terminal->revents & (POLLERR | POLLNVAL))
		return true;
	if (got || !(terminal->revents & (POLLIN | POLLHUP)))
		return false;
	return ioctl(STDIN_FILENO, FIONREAD, &waiting) < 0 ||
	       (!waiting && terminal->revents & POLLHUP);
}

static bool take_keys(struct view *view, const struct pollfd *terminal, bool *anew)
{
	struct cprof_key key;
	bool got = false;

	while (!view->ui.quit && view->screen->ops->key(view->screen, &key)) {
		got = true;
		if (key.code == CPROF_KEY_REDRAW)
			*anew = true;
		if (key.code)
			cprof_ui_key(&view->ui, &key);
	}
	if (is_gone(terminal, got))
		view->ui.quit = true;
	return got;
}

/* A key shall be answered at once also where the process takes all CPUs: this thread needs next to
 * none. Without permission it goes without. */
static void go_first(void)
{
	setpriority(PRIO_PROCESS, (id_t)gettid(), -10);
}

static void run_terminal(struct view *view)
{
	bool anew = true, dirty = true;

	go_first();
	while (!view->ui.quit) {
		struct pollfd fds[] = {
			{.fd = STDIN_FILENO, .events = POLLIN},
			{.fd = view->signal_fd, .events = POLLIN},
			{.fd = cprof_worker_fd(view->ui.worker), .events = POLLIN},
		};
		int ready;

		if (dirty)
			draw(view, anew);
		anew = dirty = false;
		ready = poll(fds, CPROF_COUNT(fds), cprof_ui_pending(&view->ui) ? PENDING_MS : -1);
		if (ready < 0 && errno != EINTR)
			break;
		if (ready == 0)
			dirty = true; /* "working ..." */
		if (fds[1].revents)
			dirty |= anew = take_signals(view);
		if (fds[2].revents)
			dirty |= cprof_ui_receive(&view->ui);
		if (fds[0].revents)
			dirty |= take_keys(view, &fds[0], &anew);
	}
}

/* --- headless ------------------------------------------------------------------------------ */

/* Waits for news; false if a signal came. */
static bool wait_for_news(struct view *view)
{
	struct pollfd fds[] = {
		{.fd = view->signal_fd, .events = POLLIN},
		{.fd = cprof_worker_fd(view->ui.worker), .events = POLLIN},
	};

	if (poll(fds, CPROF_COUNT(fds), -1) < 0)
		return errno == EINTR;
	if (fds[0].revents) {
		take_signals(view);
		if (view->ui.quit)
			return false;
	}
	cprof_ui_receive(&view->ui);
	return true;
}

static bool settle(struct view *view)
{
	cprof_ui_receive(&view->ui);
	while (cprof_ui_pending(&view->ui))
		if (!wait_for_news(view))
			return false;
	return true;
}

/* So many refreshes more; fewer if there are no more. */
static bool await_frames(struct view *view, uint64_t count)
{
	uint64_t wanted = view->ui.model->frame + count;

	while (view->ui.model->frame < wanted && view->ui.model->live)
		if (!wait_for_news(view))
			return false;
	return true;
}

static void run_headless(struct view *view)
{
	struct cprof_key key;

	draw(view, false);
	if (!settle(view) || !await_frames(view, HEADLESS_FRAMES - 1))
		return;
	draw(view, false);
	while (!view->ui.quit && view->screen->ops->key(view->screen, &key)) {
		cprof_ui_key(&view->ui, &key);
		if (!settle(view))
			return;
		draw(view, false);
	}
	if (view->ui.quit || !await_frames(view, view->ui.config->frames) || !settle(view))
		return;
	draw(view, false);
}

/* --- both ---------------------------------------------------------------------------------- */

static enum cprof_view_id view_of_kind(const char *kind)
{
	static const char *const kinds[CPROF_VIEWS] = {"cpu",   "heap",    "mutex",
						       "block", "threads", "memtrace"};

	for (enum cprof_view_id view = 0; view < CPROF_VIEWS; view++)
		if (!strcmp(kinds[view], kind))
			return view;
	return CPROF_VIEW_CPU;
}

/* What was asked for on the command line is shown first. */
static void begin_kinds(struct view *view)
{
	const char *const *begin = view->ui.config->begin;

	for (size_t i = 0; i < CPROF_COUNT(view->ui.config->begin) && begin[i]; i++) {
		enum cprof_view_id which = view_of_kind(begin[i]);

		if (!i)
			view->ui.view = which;
		if (which < CPROF_VIEW_PROFILES && which != CPROF_VIEW_CPU)
			cprof_worker_act(view->ui.worker, CPROF_ACTION_BEGIN, which, NULL);
	}
}

static struct cprof_error *open_screen(struct view *view, const struct cprof_view_config *config)
{
	sigset_t mask;

	fill_mask(&mask);
	view->signal_fd = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
	if (view->signal_fd < 0)
		return cprof_error_errno(CPROF_FAILED, errno, NULL, "the view: signals");
	if (config->rows)
		return cprof_screen_create_text(config, &view->screen);
	return cprof_screen_create_curses(config->color, &view->screen);
}

struct cprof_error *cprof_view_run(struct cprof_source *source,
				   const struct cprof_view_config *config)
{
	struct view view = {.signal_fd = -1};
	struct cprof_worker *worker = NULL;
	struct cprof_error *error;

	CPROF_TRY(cprof_view_check(config));
	cprof_view_block_signals();
	setlocale(LC_CTYPE, "");
	CPROF_TRY(cprof_worker_create(source, config, &worker));
	error = open_screen(&view, config);
	if (!error) {
		cprof_ui_init(&view.ui, worker, config);
		view.ui.cells.utf8 = !strcmp(nl_langinfo(CODESET), "UTF-8");
		begin_kinds(&view);
		cprof_ui_ask(&view.ui);
		if (config->rows)
			run_headless(&view);
		else
			run_terminal(&view);
		cprof_ui_deinit(&view.ui);
		view.screen->ops->destroy(view.screen);
	}
	cprof_worker_destroy(worker);
	if (view.signal_fd >= 0)
		close(view.signal_fd);
	return error;
}
