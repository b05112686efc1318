/* SPDX-License-Identifier: MIT */
#include "private.h"

#include <cprof/util.h>
#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>

/* The first pictures come sooner: there are few samples, but every one is news. */
static const uint64_t early_ns[] = {100000000, 200000000, 350000000, 600000000};

/* Making a model shall cost no more than this share of a CPU: where it is much work, it is done
 * less often. */
#define COST_SHARE    60
#define PERIOD_MAX_NS 10000000000ull
#define END_LOOK_NS   500000000ull

static void wake(const struct cprof_worker *worker)
{
	uint64_t one = 1;
	ssize_t written = write(worker->event_fd, &one, sizeof(one));

	(void)written; /* it fails where there is a lot to be read already */
}

static void put_want(struct cprof_want *to, const struct cprof_want *from)
{
	free(to->function);
	*to = *from;
	to->function = from->function ? strdup(from->function) : NULL;
}

/* --- the user's side ----------------------------------------------------------------------- */

uint64_t cprof_worker_want(struct cprof_worker *worker, const struct cprof_want *want)
{
	uint64_t serial;

	pthread_mutex_lock(&worker->lock);
	serial = worker->want.serial + 1;
	put_want(&worker->want, want);
	worker->want.serial = serial;
	pthread_cond_signal(&worker->changed);
	pthread_mutex_unlock(&worker->lock);
	return serial;
}

void cprof_worker_act(struct cprof_worker *worker, enum cprof_action action,
		      enum cprof_view_id view, struct cprof_model *model)
{
	pthread_mutex_lock(&worker->lock);
	if (worker->queued < CPROF_QUEUE_MAX) {
		worker->queue[worker->queued++] = (struct cprof_queued){action, view, model};
		if (model)
			model->users++;
		worker->busy++;
		worker->starting[view] += action == CPROF_ACTION_BEGIN;
		pthread_cond_signal(&worker->changed);
	}
	pthread_mutex_unlock(&worker->lock);
}

struct cprof_model *cprof_worker_take(struct cprof_worker *worker)
{
	struct cprof_model *model;
	uint64_t count;
	ssize_t got = read(worker->event_fd, &count, sizeof(count));

	(void)got;
	pthread_mutex_lock(&worker->lock);
	model = cprof_take(worker->ready);
	pthread_mutex_unlock(&worker->lock);
	return model;
}

/* Under the lock: it is the worker that frees, which may take a while. */
static void drop_model(struct cprof_worker *worker, struct cprof_model *model)
{
	if (!model || --model->users)
		return;
	model->next = worker->trash;
	worker->trash = model;
}

void cprof_worker_give_back(struct cprof_worker *worker, struct cprof_model *model)
{
	pthread_mutex_lock(&worker->lock);
	drop_model(worker, model);
	pthread_mutex_unlock(&worker->lock);
}

bool cprof_worker_told(struct cprof_worker *worker, char *text, size_t size)
{
	bool told;

	pthread_mutex_lock(&worker->lock);
	told = worker->has_told;
	worker->has_told = false;
	if (told)
		snprintf(text, size, "%s", worker->told);
	pthread_mutex_unlock(&worker->lock);
	return told;
}

unsigned cprof_worker_busy(struct cprof_worker *worker)
{
	unsigned busy;

	pthread_mutex_lock(&worker->lock);
	busy = worker->busy;
	pthread_mutex_unlock(&worker->lock);
	return busy;
}

bool cprof_worker_starting(struct cprof_worker *worker, enum cprof_view_id view)
{
	bool starting;

	pthread_mutex_lock(&worker->lock);
	starting = worker->starting[view];
	pthread_mutex_unlock(&worker->lock);
	return starting;
}

int cprof_worker_fd(const struct cprof_worker *worker)
{
	return worker->event_fd;
}

enum cprof_view_id cprof_worker_saved_view(const struct cprof_worker *worker)
{
	return worker->saved_view;
}

const char *cprof_worker_saved_title(const struct cprof_worker *worker)
{
	const struct cprof_profile *profile;

	if (worker->saved_view != CPROF_VIEW_CPU)
		return NULL;
	profile = worker->held[CPROF_VIEW_CPU].profile;
	if (cprof_profile_find_type(profile, "cpu") >= 0)
		return NULL;
	return cprof_profile_find_type(profile, "cycles") >= 0 ? "Cycles" : "Profile";
}

enum cprof_view_id cprof_worker_first_view(const struct cprof_worker *worker)
{
	const struct cprof_profile *profile;

	if (worker->saved_view == CPROF_VIEWS)
		return CPROF_VIEW_CPU;
	profile = worker->held[worker->saved_view].profile;
	return worker->saved_threads && cprof_profile_find_type(profile, "threads") >= 0
		       ? CPROF_VIEW_THREADS
		       : worker->saved_view;
}

/* --- the worker's side --------------------------------------------------------------------- */

void cprof_worker_publish(struct cprof_worker *worker, struct cprof_model *model)
{
	pthread_mutex_lock(&worker->lock);
	model->users = 1;
	drop_model(worker, cprof_take(worker->ready));
	worker->ready = model;
	pthread_mutex_unlock(&worker->lock);
	wake(worker);
}

static void empty_trash(struct cprof_worker *worker)
{
	struct cprof_model *trash;

	pthread_mutex_lock(&worker->lock);
	trash = cprof_take(worker->trash);
	pthread_mutex_unlock(&worker->lock);
	while (trash) {
		struct cprof_model *next = trash->next;

		cprof_model_destroy(trash);
		trash = next;
	}
}

static void wait_until(struct cprof_worker *worker, uint64_t when_ns)
{
	struct timespec deadline = {.tv_sec = (time_t)(when_ns / 1000000000),
				    .tv_nsec = (long)(when_ns % 1000000000)};

	if (when_ns == UINT64_MAX)
		pthread_cond_wait(&worker->changed, &worker->lock);
	else
		pthread_cond_timedwait(&worker->changed, &worker->lock, &deadline);
}

/* While there is long to wait for the next refresh: has the target ended? That is news at once. The
 * lock is given up meanwhile, the source may have to wait. */
static void look_for_end(struct cprof_worker *worker)
{
	bool over;

	if (worker->next_ns == UINT64_MAX || worker->stop)
		return;
	pthread_mutex_unlock(&worker->lock);
	over = !worker->source->ops->live(worker->source);
	pthread_mutex_lock(&worker->lock);
	if (over)
		worker->next_ns = CPROF_MIN(worker->next_ns, cprof_now_ns());
}

/* Waits for something to do; false if there will be nothing any more. */
static bool next_work(struct cprof_worker *worker, struct cprof_queued *queued, bool *has_queued,
		      bool *due)
{
	bool stop;

	pthread_mutex_lock(&worker->lock);
	for (;;) {
		*has_queued = worker->queued > 0;
		*due = cprof_now_ns() >= worker->next_ns;
		stop = worker->stop;
		if (stop || *has_queued || *due || worker->trash ||
		    worker->want.serial != worker->answered)
			break;
		wait_until(worker,
			   worker->next_ns == UINT64_MAX
				   ? UINT64_MAX
				   : CPROF_MIN(worker->next_ns, cprof_now_ns() + END_LOOK_NS));
		look_for_end(worker);
	}
	if (*has_queued) {
		*queued = worker->queue[0];
		memmove(worker->queue, worker->queue + 1,
			--worker->queued * sizeof(*worker->queue));
	}
	put_want(&worker->now, &worker->want);
	pthread_mutex_unlock(&worker->lock);
	return !stop;
}

static void schedule(struct cprof_worker *worker, uint64_t cost_ns)
{
	uint64_t refresh = worker->config->refresh_ns ? worker->config->refresh_ns
						      : CPROF_VIEW_REFRESH_DEFAULT;
	uint64_t now = cprof_now_ns();

	worker->period_ns = CPROF_MAX(refresh, CPROF_MIN(cost_ns * COST_SHARE, PERIOD_MAX_NS));
	worker->next_ns =
		CPROF_MAX(worker->next_ns + worker->period_ns, now + worker->period_ns / 2);
	for (size_t i = CPROF_COUNT(early_ns); i-- > 0;)
		if (now < worker->started_ns + early_ns[i])
			worker->next_ns =
				CPROF_MIN(worker->next_ns, worker->started_ns + early_ns[i]);
	if (worker->ended || worker->saved_view != CPROF_VIEWS)
		worker->next_ns = UINT64_MAX;
}

static void answer(struct cprof_worker *worker, bool due)
{
	uint64_t before = cprof_thread_cpu_ns();
	struct cprof_model *model;

	if (due) {
		cprof_worker_look(worker);
		worker->frame++;
	}
	model = cprof_worker_build(worker, due);
	if (due)
		schedule(worker, cprof_thread_cpu_ns() - before);
	worker->answered = worker->now.serial;
	if (!model)
		return; /* without memory the last picture stays */
	model->period_ns = worker->period_ns;
	cprof_worker_publish(worker, model);
}

static void do_action(struct cprof_worker *worker, const struct cprof_queued *queued)
{
	char text[sizeof(worker->told)] = "";

	cprof_worker_do(worker, queued, text, sizeof(text));
	pthread_mutex_lock(&worker->lock);
	if (*text) {
		cprof_text_clean(text, strlen(text), worker->told, sizeof(worker->told));
		worker->has_told = true;
	}
	drop_model(worker, queued->model);
	pthread_mutex_unlock(&worker->lock);
}

static void *work(void *context)
{
	struct cprof_worker *worker = context;
	struct cprof_queued queued = {0};
	bool has_queued, due;

	pthread_setname_np(pthread_self(), "cprof-model");
	while (next_work(worker, &queued, &has_queued, &due)) {
		empty_trash(worker);
		if (has_queued)
			do_action(worker, &queued);
		if (has_queued || due || worker->now.serial != worker->answered)
			answer(worker, due || (has_queued && queued.action != CPROF_ACTION_WRITE &&
					       worker->next_ns != UINT64_MAX));
		if (has_queued) {
			pthread_mutex_lock(&worker->lock);
			worker->busy--;
			worker->starting[queued.view] -= queued.action == CPROF_ACTION_BEGIN;
			pthread_mutex_unlock(&worker->lock);
			wake(worker);
		}
	}
	if (has_queued)
		cprof_worker_give_back(worker, queued.model);
	return NULL;
}

/* --- beginning and end --------------------------------------------------------------------- */

static bool has_label(const struct cprof_profile *profile, const char *key)
{
	for (size_t i = 0; i < profile->label_item_count; i++)
		if (!strcmp(profile->strings[profile->label_items[i].key], key))
			return true;
	return false;
}

/* Kinds without a view of their own are shown as CPU is. */
static enum cprof_view_id saved_view(struct cprof_worker *worker)
{
	struct cprof_source *source = worker->source;
	struct cprof_source_kind kind;

	for (enum cprof_view_id view = CPROF_VIEW_HEAP; view < CPROF_VIEW_PROFILES; view++) {
		source->ops->kind(source, cprof_worker_kind(worker, view), &kind);
		if (kind.state == CPROF_SOURCE_ENDED)
			return view;
	}
	return CPROF_VIEW_CPU;
}

static struct cprof_error *prepare_saved(struct cprof_worker *worker)
{
	struct cprof_profile *profile;

	CPROF_TRY(worker->source->ops->snapshot(worker->source, NULL, &profile));
	worker->saved_view = saved_view(worker);
	worker->saved_threads = has_label(profile, "tid") || has_label(profile, "thread");
	worker->held[worker->saved_view] = (struct cprof_held){.profile = profile};
	if (!worker->config->base)
		return NULL;
	snprintf(worker->base_text[worker->saved_view], sizeof(worker->base_text[0]), "--base");
	return cprof_profile_clone(worker->config->base, &worker->base[worker->saved_view]);
}

static void free_worker(struct cprof_worker *worker)
{
	for (size_t i = 0; i < CPROF_VIEW_PROFILES; i++) {
		cprof_profile_destroy(worker->held[i].profile);
		cprof_profile_destroy(worker->base[i]);
		cprof_profile_destroy(worker->reset[i]);
	}
	cprof_growth_destroy(worker->growth);
	cprof_source_threads_destroy(worker->threads);
	cprof_dump_destroy(worker->dump);
	cprof_model_destroy(worker->ready);
	empty_trash(worker);
	free(worker->want.function);
	free(worker->now.function);
	free(worker->lines);
	pthread_mutex_destroy(&worker->lock);
	pthread_cond_destroy(&worker->changed);
	if (worker->event_fd >= 0)
		close(worker->event_fd);
	free(worker);
}

struct cprof_error *cprof_worker_create(struct cprof_source *source,
					const struct cprof_view_config *config,
					struct cprof_worker **result)
{
	struct cprof_worker *worker = calloc(1, sizeof(*worker));
	struct cprof_error *error = NULL;
	pthread_condattr_t attributes;
	int errnum;

	*result = NULL;
	if (!worker)
		return cprof_error_nomem();
	worker->source = source;
	worker->config = config;
	worker->saved_view = CPROF_VIEWS;
	worker->line_next = 1;
	worker->names_from = CPROF_NAMES_FROM;
	worker->started_ns = worker->next_ns = cprof_now_ns();
	pthread_mutex_init(&worker->lock, NULL);
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&worker->changed, &attributes);
	pthread_condattr_destroy(&attributes);
	worker->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	worker->growth = cprof_growth_create();
	if (worker->event_fd < 0 || !worker->growth)
		error = cprof_error_errno(CPROF_FAILED, errno, NULL, "the view");
	if (!error && config->file)
		error = prepare_saved(worker);
	if (!error) {
		errnum = pthread_create(&worker->thread, NULL, work, worker);
		if (errnum)
			error = cprof_error_errno(CPROF_FAILED, errnum, NULL,
						  "the view: no thread for it");
	}
	if (error)
		free_worker(worker);
	else
		*result = worker;
	return error;
}

void cprof_worker_destroy(struct cprof_worker *worker)
{
	if (!worker)
		return;
	pthread_mutex_lock(&worker->lock);
	worker->stop = true;
	for (size_t i = 0; i < worker->queued; i++)
		drop_model(worker, worker->queue[i].model);
	worker->queued = 0;
	pthread_cond_signal(&worker->changed);
	pthread_mutex_unlock(&worker->lock);
	pthread_join(worker->thread, NULL);
	free_worker(worker);
}
