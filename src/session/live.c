/* SPDX-License-Identifier: MIT
 *
 * A live session: what is needed beside an ordinary one, and the table of its calls.
 */
#include "live.h"

#include <cprof/util.h>
#include <time.h>

static struct cprof_error *live_dump(struct cprof_source *source, pid_t tid,
				     struct cprof_dump **dump)
{
	struct cprof_session *session = (struct cprof_session *)source;
	char text[16];
	const char *const one[] = {text, NULL};

	snprintf(text, sizeof(text), "%d", (int)tid);
	return cprof_session_dump_of(session, tid ? one : session->config.threads, dump);
}

static int live_open(struct cprof_source *source, const char *path)
{
	const struct cprof_session *session = (struct cprof_session *)source;

	return cprof_target_open_path(session->dump_target, path, true);
}

const struct cprof_source_ops cprof_session_live_ops = {
	.snapshot = cprof_session_source_snapshot,
	.window = cprof_live_window,
	.live = cprof_session_source_live,
	.kind = cprof_live_kind,
	.begin = cprof_live_begin,
	.figures = cprof_live_figures,
	.threads = cprof_live_threads,
	.dump = live_dump,
	.memtrace = cprof_live_memtrace,
	.open = live_open,
	.destroy = cprof_session_source_destroy,
};

struct cprof_error *cprof_session_live_open(struct cprof_session *session)
{
	struct cprof_session_live *live = calloc(1, sizeof(*live));
	pthread_condattr_t attributes;

	if (!live)
		return cprof_error_nomem();
	session->live = live;
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&live->wake, &attributes);
	pthread_condattr_destroy(&attributes);
	cprof_live_bounds(live);
	live->last = (struct cprof_source_figures){
		.uptime_ns = UINT64_MAX, .rss_bytes = UINT64_MAX, .cpu = -1, .own_cpu = -1};
	if (!cprof_window_init(&live->cpu, 0, 0))
		return cprof_error_nomem();
	return cprof_live_worker_start(session);
}

void cprof_session_live_destroy(struct cprof_session *session)
{
	struct cprof_session_live *live = session->live;

	if (!live)
		return;
	cprof_live_worker_stop(session);
	cprof_thread_list_destroy(live->threads);
	cprof_window_deinit(&live->cpu);
	cprof_live_forget_marks(live);
	pthread_cond_destroy(&live->wake);
	free(live);
	session->live = NULL;
}
