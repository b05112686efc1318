/* SPDX-License-Identifier: MIT
 *
 * What waits and contention had come to at moments of the last minutes: the last N seconds of such
 * a kind are what is new since the moment N seconds ago.
 */
#include "live.h"

#include <cprof/util.h>

#define MARK_NS      2000000000ull
#define THREADS_MOST 8192
#define ROWS_MOST    (1u << 20) /* of all marks: some tens of megabytes */

static struct cprof_live_mark *mark_at(struct cprof_session_live *live, uint64_t index)
{
	return &live->marks[index % CPROF_LIVE_MARKS];
}

static size_t count_rows(const struct cprof_live_mark *mark)
{
	return (mark->block ? cprof_block_rows_count(mark->block) : 0) +
	       (mark->mutex ? cprof_contention_rows_count(mark->mutex) : 0);
}

static void forget_oldest(struct cprof_session_live *live)
{
	struct cprof_live_mark *mark = mark_at(live, live->first_mark++);

	live->mark_rows -= count_rows(mark);
	cprof_block_rows_destroy(mark->block);
	cprof_contention_rows_destroy(mark->mutex);
	*mark = (struct cprof_live_mark){0};
}

void cprof_live_forget_marks(struct cprof_session_live *live)
{
	while (live->first_mark < live->next_mark)
		forget_oldest(live);
}

void cprof_session_live_mark(struct cprof_session *session)
{
	struct cprof_session_live *live = session->live;
	struct cprof_live_mark *mark;
	uint64_t now = cprof_now_ns();

	if ((!session->block_begun_ns && !session->contention) || now < live->marked_ns + MARK_NS)
		return;
	live->marked_ns = now;
	if (live->next_mark - live->first_mark == CPROF_LIVE_MARKS)
		forget_oldest(live);
	mark = mark_at(live, live->next_mark++);
	*mark = (struct cprof_live_mark){.time_ns = now};
	/* Without memory there is none, and the window is longer. */
	mark->block_ns = CPROF_MAX(session->block_until_ns, session->block_begun_ns);
	if (session->block_begun_ns)
		cprof_error_destroy(cprof_block_rows(session->block, mark->block_ns, &mark->block));
	if (session->contention)
		cprof_error_destroy(cprof_contention_mark(session->contention, now, &mark->mutex));
	live->mark_rows += count_rows(mark);
	while (live->mark_rows > ROWS_MOST && live->first_mark + 1 < live->next_mark)
		forget_oldest(live);
}

/* A program may start a thread for every request. */
void cprof_session_live_waits(struct cprof_session *session)
{
	if (!cprof_block_fold(session->block, THREADS_MOST))
		return;
	cprof_live_forget_marks(session->live);
	session->live->marked_ns = 0;
	cprof_session_live_mark(session);
}

/* The last mark before a time that has rows of a kind; NULL: there is none so early. */
static const struct cprof_live_mark *find_mark(struct cprof_session_live *live, uint64_t time,
					       bool block)
{
	const struct cprof_live_mark *found = NULL;

	for (uint64_t i = live->first_mark; i < live->next_mark; i++) {
		const struct cprof_live_mark *mark = mark_at(live, i);

		if ((block ? (const void *)mark->block : (const void *)mark->mutex) &&
		    (mark->time_ns <= time || !found))
			found = mark;
	}
	return found && (found->time_ns <= time || live->first_mark) ? found : NULL;
}

bool cprof_session_live_since(struct cprof_session *session, uint64_t window_ns,
			      struct cprof_block_rows *block, struct cprof_contention_rows *mutex,
			      uint64_t until, uint64_t *from)
{
	const struct cprof_live_mark *mark;

	if (!session->live || !window_ns || window_ns > until - CPROF_MIN(*from, until))
		return true;
	mark = find_mark(session->live, until - window_ns, block);
	if (!mark)
		return true;
	*from = CPROF_MAX(*from, block ? mark->block_ns : mark->time_ns);
	return block ? cprof_block_rows_subtract(block, mark->block)
		     : cprof_contention_rows_subtract(mutex, mark->mutex);
}
