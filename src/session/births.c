/* SPDX-License-Identifier: MIT
 *
 * Who creates threads. Two records tell of each: FORK, from a ring where stacks cannot crowd it
 * out, and just after it a sample of the creator's stack. The first gives the number, the second
 * where; a FORK that is followed by another one of the same thread has lost its sample.
 */
#include "private.h"

#include <cprof/util.h>
#include <stdlib.h>

/* Between a FORK and its sample: what is younger at the end was perhaps not sampled any more. */
#define GRACE_NS 1000000ull

/* A FORK whose sample has not come. */
struct cprof_session_birth {
	pid_t creator;
	pid_t born;
	uint64_t time;
	UT_hash_handle hh;
};

struct cprof_error *cprof_session_births_open(struct cprof_session *session)
{
	struct cprof_session_births *births = &session->births;
	const struct cprof_perf_config perf = {
		.way = session->config.way,
		.clock = CPROF_PERF_BIRTHS,
		.user_stack = true,
		.beside_another = session->perf || session->switches,
	};
	struct cprof_profile *profile;

	CPROF_TRY(cprof_perf_create(session->target, &perf, &births->perf));
	cprof_perf_stats(births->perf, &session->stats.births);
	CPROF_TRY(cprof_builder_create(session->modules, session->space, &births->builder));
	profile = cprof_builder_profile(births->builder);
	cprof_profile_add_type(profile, "threadcreate", "count");
	profile->period_type = profile->types[0];
	profile->period = 1;
	return cprof_profile_check(profile);
}

static void begin(struct cprof_session *session, uint64_t time)
{
	session->births.begun_ns = time;
	cprof_builder_profile(session->births.builder)->time_ns = (int64_t)cprof_wall_ns();
}

struct cprof_error *cprof_session_births_start(struct cprof_session *session)
{
	session->births.until_ns = UINT64_MAX;
	CPROF_TRY(cprof_perf_enable(session->births.perf));
	if (!session->awaiting_exec)
		begin(session, cprof_now_ns());
	return NULL;
}

/* --- accounts ------------------------------------------------------------------------------ */

static struct cprof_session_birth *find(const struct cprof_session *session, pid_t creator)
{
	struct cprof_session_birth *birth;

	HASH_FIND_INT(session->births.open, &creator, birth);
	return birth;
}

static void settle(struct cprof_session *session, struct cprof_session_birth *birth)
{
	HASH_DEL(session->births.open, birth);
	free(birth);
}

static void count(struct cprof_session *session, pid_t creator, const char *name, uint32_t stack)
{
	struct cprof_profile *profile = cprof_builder_profile(session->births.builder);
	const struct cprof_profile_label labels[] = {
		{.key = cprof_profile_string(profile, "thread"),
		 .text = cprof_profile_string(profile, name)},
		{.key = cprof_profile_string(profile, "tid"), .number = creator},
	};
	const int64_t one = 1;

	cprof_profile_add(profile, stack,
			  cprof_profile_labels(profile, labels, CPROF_COUNT(labels)), &one);
}

/* Its sample will not come any more. */
static void count_lost(struct cprof_session *session, struct cprof_session_birth *birth)
{
	struct cprof_profile *profile = cprof_builder_profile(session->births.builder);
	const char *name = cprof_session_thread_name(session, birth->creator);
	uint32_t marker = cprof_profile_marker(profile, "[lost samples]");

	if (name) {
		session->stats.births_counts.lost++;
		count(session, birth->creator, name, cprof_profile_stack(profile, &marker, 1));
	}
	settle(session, birth);
}

/* Per thread it may be told twice. */
static void on_fork(struct cprof_session *session, const struct cprof_perf_record *record)
{
	struct cprof_session_birth *birth = find(session, record->task.parent_tid);

	if (record->task.parent_pid != record->pid)
		return;
	if (birth && birth->born == record->tid)
		return;
	if (birth)
		count_lost(session, birth);
	birth = calloc(1, sizeof(*birth));
	if (!birth)
		return;
	birth->creator = record->task.parent_tid;
	birth->born = record->tid;
	birth->time = record->time;
	HASH_ADD_INT(session->births.open, creator, birth);
}

static void on_sample(struct cprof_session *session, const struct cprof_perf_record *record,
		      bool counts)
{
	struct cprof_session_birth *birth = find(session, record->tid);
	const char *name = cprof_session_thread_name(session, record->tid);
	struct cprof_stack stack = {.frames = session->frames,
				    .capacity = CPROF_COUNT(session->frames)};

	if (!birth && !(counts && session->births.unsure))
		return; /* counted already, or begun before us */
	if (birth)
		settle(session, birth);
	if (!name)
		return;
	cprof_session_unwind(session, session->births.perf, record, &session->stats.births_counts,
			     &stack);
	count(session, record->tid, name,
	      cprof_builder_stack(session->births.builder, NULL, 0, &stack));
}

/* --- records ------------------------------------------------------------------------------- */

static void on_ended(struct cprof_session *session, pid_t tid)
{
	struct cprof_session_birth *birth = find(session, tid);

	if (birth)
		count_lost(session, birth);
}

/* Under the lock. */
static void take(struct cprof_session *session, const struct cprof_perf_record *record)
{
	bool counts = session->births.begun_ns && record->time >= session->births.begun_ns &&
		      record->time < session->births.until_ns;

	switch (record->type) {
	case CPROF_PERF_SAMPLE:
		on_sample(session, record, counts);
		break;
	case CPROF_PERF_FORK:
		if (counts)
			on_fork(session, record);
		break;
	case CPROF_PERF_EXIT:
		on_ended(session, record->tid);
		break;
	case CPROF_PERF_COMM:
		if (record->comm.exec && !session->births.begun_ns)
			begin(session, record->time);
		break;
	case CPROF_PERF_LOST:
		session->births.unsure |= record->lost.records;
		cprof_error_destroy(cprof_perf_rescan(session->births.perf));
		break;
	case CPROF_PERF_MMAP:
	case CPROF_PERF_SWITCH:
	case CPROF_PERF_WAIT:
	case CPROF_PERF_THROTTLE:
	case CPROF_PERF_OTHER:
		break;
	}
}

static void on_record(void *context, const struct cprof_perf_record *record)
{
	struct cprof_session *session = context;

	/* Where samples or switches are taken too, their events tell of threads and mappings. */
	if (!session->perf && !session->switches && record->type != CPROF_PERF_SAMPLE)
		cprof_session_record(session, record);
	pthread_mutex_lock(&session->lock);
	take(session, record);
	pthread_mutex_unlock(&session->lock);
}

void cprof_session_births_drain(struct cprof_session *session, bool final)
{
	struct cprof_perf_stats perf;

	cprof_perf_drain(session->births.perf, final, on_record, session);
	cprof_perf_stats(session->births.perf, &perf);
	pthread_mutex_lock(&session->lock);
	session->stats.births = perf;
	pthread_mutex_unlock(&session->lock);
}

void cprof_session_births_finish(struct cprof_session *session)
{
	struct cprof_session_birth *birth;
	struct cprof_session_birth *next;

	session->births.until_ns = cprof_now_ns();
	cprof_perf_disable(session->births.perf);
	cprof_session_births_drain(session, true);
	pthread_mutex_lock(&session->lock);
	HASH_ITER(hh, session->births.open, birth, next)
	{
		if (birth->time + GRACE_NS < session->births.until_ns)
			count_lost(session, birth);
		else
			settle(session, birth);
	}
	pthread_mutex_unlock(&session->lock);
}

void cprof_session_births_close(struct cprof_session *session)
{
	struct cprof_session_birth *birth;
	struct cprof_session_birth *next;

	HASH_ITER(hh, session->births.open, birth, next)
	{
		settle(session, birth);
	}
	cprof_perf_destroy(cprof_take(session->births.perf));
	cprof_builder_destroy(cprof_take(session->births.builder));
}
