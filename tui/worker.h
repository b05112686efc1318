/* SPDX-License-Identifier: MIT
 *
 * The thread that talks to the source: all that may take long happens there.
 */
#ifndef CPROF_TUI_WORKER_H
#define CPROF_TUI_WORKER_H

#include "model.h"

#include <pthread.h>

enum cprof_action {
	CPROF_ACTION_BEGIN, /* a view's kind */
	CPROF_ACTION_WRITE, /* what a model shows */
	CPROF_ACTION_DUMP,  /* all threads */
	CPROF_ACTION_BASE,  /* what is there now is subtracted from now on */
	CPROF_ACTION_UNBASE,
	CPROF_ACTION_RESET, /* counts from now on */
};

struct cprof_worker;

/* `wake_fd` becomes readable (an eventfd) when there is something new. */
struct cprof_error *cprof_worker_create(struct cprof_source *source,
					const struct cprof_view_config *config,
					struct cprof_worker **worker);
/* Waits for what is under way. */
void cprof_worker_destroy(struct cprof_worker *worker);
int cprof_worker_fd(const struct cprof_worker *worker);

/* The view that a saved profile belongs to; CPROF_VIEWS if the source is live. */
enum cprof_view_id cprof_worker_saved_view(const struct cprof_worker *worker);

/* The view to begin with. To be called before anything is wanted. */
/* What the CPU view is called where a saved profile of another kind is shown there; NULL: CPU. */
const char *cprof_worker_saved_title(const struct cprof_worker *worker);
enum cprof_view_id cprof_worker_first_view(const struct cprof_worker *worker);

/* Says what is wanted from now on; its serial is set, and returned. */
uint64_t cprof_worker_want(struct cprof_worker *worker, const struct cprof_want *want);
/* The model may be NULL but for WRITE. */
void cprof_worker_act(struct cprof_worker *worker, enum cprof_action action,
		      enum cprof_view_id view, struct cprof_model *model);
/* The newest model, if there is one that was not taken yet; NULL otherwise. To be given back. */
struct cprof_model *cprof_worker_take(struct cprof_worker *worker);
void cprof_worker_give_back(struct cprof_worker *worker, struct cprof_model *model);
/* What the last actions had to say: true if there is something that was not told yet. */
bool cprof_worker_told(struct cprof_worker *worker, char *text, size_t size);
/* Actions that are under way or waiting. */
unsigned cprof_worker_busy(struct cprof_worker *worker);
/* Whether the view's kind is being started, or waits for that. */
bool cprof_worker_starting(struct cprof_worker *worker, enum cprof_view_id view);

#endif
