/* SPDX-License-Identifier: MIT
 *
 * From perf records to the profile: unwinds samples, keeps threads and address space current.
 */
#include "private.h"

#include <cprof/util.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REFRESH_NS 1000000000ull /* maps are read again at most this often */

/* --- threads ------------------------------------------------------------------------------- */

static bool wanted(struct cprof_session *session, pid_t tid, const char *name)
{
	const char *const *filter = session->config.threads;

	if (!filter || !*filter)
		return true;
	if (cprof_thread_matches(filter, tid, name)) {
		session->stats.filter_matched = true;
		return true;
	}
	return false;
}

static void set_name(struct cprof_session *session, struct cprof_session_thread *thread,
		     const char *name)
{
	if (thread->name[0] && strcmp(thread->name, name) == 0)
		return;
	cprof_text_clean(name, strlen(name), thread->name, sizeof(thread->name));
	thread->labels = 0;
	thread->wanted = wanted(session, thread->tid, thread->name);
}

static struct cprof_session_thread *find_thread(struct cprof_session *session, pid_t tid)
{
	struct cprof_session_thread *thread;

	HASH_FIND_INT(session->threads, &tid, thread);
	return thread;
}

/* NULL only without memory. */
static struct cprof_session_thread *get_thread(struct cprof_session *session, pid_t tid)
{
	struct cprof_session_thread *thread = find_thread(session, tid);
	char name[64];

	if (thread)
		return thread;
	thread = calloc(1, sizeof(*thread));
	if (!thread)
		return NULL;
	thread->tid = tid;
	HASH_ADD_INT(session->threads, tid, thread);
	session->stats.threads++;
	if (!cprof_target_thread_name(session->target, tid, name, sizeof(name)))
		snprintf(name, sizeof(name), "%s", cprof_target_info(session->target)->comm);
	set_name(session, thread, name);
	return thread;
}

uint32_t cprof_session_last_stack(struct cprof_session *session, pid_t tid)
{
	const struct cprof_session_thread *thread = find_thread(session, tid);

	return thread ? thread->last_stack : 0;
}

struct cprof_error *cprof_session_scan_threads(struct cprof_session *session)
{
	CPROF_AUTO_FREE pid_t *tids = NULL;
	size_t count = 0;

	CPROF_TRY(cprof_target_threads(session->target, &tids, &count));
	for (size_t i = 0; i < count; i++)
		if (!get_thread(session, tids[i]))
			return cprof_error_nomem();
	return NULL;
}

bool cprof_session_wants(struct cprof_session *session, pid_t tid)
{
	const struct cprof_session_thread *thread = get_thread(session, tid);

	return thread && thread->wanted;
}

const char *cprof_session_thread_name(void *context, pid_t tid)
{
	const struct cprof_session_thread *thread = get_thread(context, tid);

	return thread && thread->wanted ? thread->name : NULL;
}

void cprof_session_forget_threads(struct cprof_session *session)
{
	uint64_t seen = session->stats.threads;
	struct cprof_session_thread *thread;
	struct cprof_session_thread *next;

	HASH_ITER(hh, session->threads, thread, next)
	{
		HASH_DEL(session->threads, thread);
		free(thread);
	}
	cprof_error_destroy(cprof_session_scan_threads(session));
	session->stats.threads = CPROF_MAX(seen, (uint64_t)HASH_COUNT(session->threads));
}

static uint32_t thread_labels(struct cprof_session *session, struct cprof_session_thread *thread)
{
	struct cprof_profile *profile = cprof_builder_profile(session->builder);
	struct cprof_profile_label labels[2];

	if (thread->labels)
		return thread->labels;
	labels[0] = (struct cprof_profile_label){
		.key = session->key_thread, .text = cprof_profile_string(profile, thread->name)};
	labels[1] = (struct cprof_profile_label){.key = session->key_tid, .number = thread->tid};
	thread->labels = cprof_profile_labels(profile, labels, CPROF_COUNT(labels));
	return thread->labels;
}

/* --- samples ------------------------------------------------------------------------------- */

/* Code that was mapped without a record (or whose record was lost): look again, but not often. */
static void refresh_for(struct cprof_session *session, const struct cprof_perf_record *record)
{
	if (!record->sample.has_user ||
	    cprof_space_find(session->space, record->sample.regs[CPROF_REG_PC]) ||
	    record->time < session->refreshed_ns + REFRESH_NS)
		return;
	session->refreshed_ns = cprof_now_ns();
	cprof_error_destroy(cprof_space_refresh(session->space));
}

static void unwind(struct cprof_session *session, struct cprof_perf *perf,
		   const struct cprof_perf_sample *sample, struct cprof_stack *stack)
{
	struct cprof_regs regs = {.known = (1u << CPROF_REGISTERS) - 1};
	struct cprof_memory memory = {
		.stack = sample->stack,
		.stack_start = sample->regs[CPROF_REG_SP],
		.stack_length = sample->stack_length,
	};
	uint64_t before = cprof_now_ns();

	stack->count = 0;
	stack->end = CPROF_END_NO_CFI;
	if (!sample->has_user || sample->user_32bit)
		return;
	memcpy(regs.value, sample->regs, sizeof(regs.value));
	session->unwinder->ops->unwind(session->unwinder, &regs, &memory, stack);
	session->stats.unwind_ns += cprof_now_ns() - before;
	if (stack->top >= memory.stack_start)
		cprof_perf_stack_needed(perf, stack->top - memory.stack_start,
					stack->end == CPROF_END_TRUNCATED && sample->stack_cut);
}

void cprof_session_unwind(struct cprof_session *session, struct cprof_perf *perf,
			  const struct cprof_perf_record *record,
			  struct cprof_session_counts *counts, struct cprof_stack *stack)
{
	if (!session->stats.attach_ns)
		session->stats.attach_ns = record->time - session->config.started_ns;
	refresh_for(session, record);
	unwind(session, perf, &record->sample, stack);
	counts->samples++;
	counts->ends[stack->end]++;
	counts->frames += stack->count;
}

static void on_sample(struct cprof_session *session, const struct cprof_perf_record *record)
{
	struct cprof_session_thread *thread = get_thread(session, record->tid);
	struct cprof_stack stack = {.frames = session->frames,
				    .capacity = CPROF_COUNT(session->frames)};
	int64_t values[2] = {1, (int64_t)record->sample.period};
	uint32_t labels;
	uint32_t id;

	if (!thread || !thread->wanted)
		return;
	cprof_session_unwind(session, session->perf, record, &session->stats.cpu, &stack);
	id = cprof_builder_stack(session->builder, record->sample.kernel_chain,
				 record->sample.kernel_count, &stack);
	labels = thread_labels(session, thread);
	cprof_profile_add(cprof_builder_profile(session->builder), id, labels, values);
	if (session->live)
		cprof_session_live_sample(session, record, thread, id, labels);
}

/* --- everything else ----------------------------------------------------------------------- */

static void flush_unwinder(struct cprof_session *session)
{
	if (session->records) /* its unwinder is ours */
		cprof_agent_records_flush(session->records);
	else if (session->unwinder->ops->flush)
		session->unwinder->ops->flush(session->unwinder);
}

bool cprof_session_map_main(struct cprof_session *session)
{
	bool known = true;

	if (session->builder)
		known &= cprof_builder_map_main(session->builder);
	if (session->block_builder)
		known &= cprof_builder_map_main(session->block_builder);
	if (session->births.builder)
		known &= cprof_builder_map_main(session->births.builder);
	return known;
}

static void map_in_all(struct cprof_session *session, const struct cprof_region *region)
{
	if (session->builder)
		cprof_builder_map(session->builder, region);
	if (session->block_builder)
		cprof_builder_map(session->block_builder, region);
	if (session->births.builder)
		cprof_builder_map(session->births.builder, region);
}

static void on_mmap(struct cprof_session *session, const struct cprof_perf_record *record)
{
	const struct cprof_mapping *mapping = &record->mmap.mapping;
	const struct cprof_region *region;

	cprof_error_destroy(cprof_space_map(session->space, mapping));
	flush_unwinder(session);
	/* A program that has ended before its exec was read: the kernel maps it first of all. */
	if (session->main_unknown && mapping->path[0] == '/' &&
	    (region = cprof_space_find(session->space, mapping->start))) {
		map_in_all(session, region);
		session->main_unknown = false;
	}
}

/* After an exec nothing of the old address space is true any more. */
static void on_exec(struct cprof_session *session)
{
	if (!session->awaiting_exec)
		cprof_session_agent_lose(session, CPROF_SESSION_EXEC);
	session->awaiting_exec = false;
	cprof_error_destroy(cprof_target_reload(session->target));
	cprof_error_destroy(cprof_space_refresh(session->space));
	flush_unwinder(session);
	session->main_unknown = !cprof_session_map_main(session);
}

static void on_comm(struct cprof_session *session, const struct cprof_perf_record *record)
{
	struct cprof_session_thread *thread = get_thread(session, record->tid);

	if (record->comm.exec)
		on_exec(session);
	if (thread)
		set_name(session, thread, record->comm.comm);
}

static void on_fork(struct cprof_session *session, const struct cprof_perf_record *record)
{
	const struct cprof_session_thread *parent = find_thread(session, record->task.parent_tid);
	struct cprof_session_thread *thread = find_thread(session, record->tid);

	if (!thread) {
		thread = calloc(1, sizeof(*thread));
		if (!thread)
			return;
		thread->tid = record->tid;
		HASH_ADD_INT(session->threads, tid, thread);
	}
	thread->ended = false; /* the number may be used again */
	session->stats.threads++;
	set_name(session, thread, parent ? parent->name : cprof_target_info(session->target)->comm);
}

/* Programs that start a thread for every request would fill our memory. */
static void on_exit_of(struct cprof_session *session, pid_t tid)
{
	pid_t *oldest = &session->ended_tids[session->ended_next++ % CPROF_SESSION_ENDED];
	struct cprof_session_thread *thread = find_thread(session, tid);
	struct cprof_session_thread *old = find_thread(session, *oldest);

	if (!thread)
		return;
	thread->ended = true;
	if (old && old->ended && old != thread) {
		HASH_DEL(session->threads, old);
		free(old);
	}
	*oldest = tid;
}

static void on_lost(struct cprof_session *session)
{
	uint64_t now = cprof_now_ns();

	if (now < session->refreshed_ns + REFRESH_NS)
		return;
	session->refreshed_ns = now;
	cprof_error_destroy(cprof_space_refresh(session->space));
	cprof_error_destroy(cprof_session_scan_threads(session));
	if (session->perf)
		cprof_error_destroy(cprof_perf_rescan(session->perf));
	flush_unwinder(session);
}

void cprof_session_record(void *context, const struct cprof_perf_record *record)
{
	struct cprof_session *session = context;

	pthread_mutex_lock(&session->lock);
	switch (record->type) {
	case CPROF_PERF_SAMPLE:
		if (!session->awaiting_exec)
			on_sample(session, record);
		break;
	case CPROF_PERF_MMAP:
		on_mmap(session, record);
		break;
	case CPROF_PERF_COMM:
		on_comm(session, record);
		break;
	case CPROF_PERF_FORK:
		on_fork(session, record);
		break;
	case CPROF_PERF_LOST:
		on_lost(session);
		break;
	case CPROF_PERF_EXIT:
		on_exit_of(session, record->tid);
		break;
	case CPROF_PERF_THROTTLE:
	case CPROF_PERF_SWITCH:
	case CPROF_PERF_WAIT:
	case CPROF_PERF_OTHER:
		break;
	}
	pthread_mutex_unlock(&session->lock);
}
