/* SPDX-License-Identifier: MIT
 *
 * Off-CPU accounting in a session: switch records and their stacks, from events of their own.
 */
#include "private.h"

#include <cprof/util.h>
#include <stdlib.h>
#include <string.h>

#define SUM_EVERY_NS 100000000ull
#define SUM_COST     50
#define THREADS_MOST 65536      /* that are told of alone: some tens of megabytes */
#define MARGIN_NS    1000000ull /* what happened this short a time ago is not yet told */

/* --- opening ------------------------------------------------------------------------------- */

struct cprof_error *cprof_session_block_open(struct cprof_session *session)
{
	const struct cprof_session_config *config = &session->config;
	const struct cprof_perf_config perf = {
		.way = config->way,
		.clock = CPROF_PERF_SWITCHES,
		.rate = config->block_rate,
		.kernel = true,
		.user_stack = true,
		.beside_another = session->perf != NULL,
	};
	const struct cprof_block_config block = {
		.min_ns = config->block_min_ns,
		.seed = cprof_now_ns(),
		.name = cprof_session_thread_name,
		.context = session,
	};
	struct cprof_profile *profile;

	CPROF_TRY(cprof_perf_create(session->target, &perf, &session->switches));
	cprof_perf_stats(session->switches, &session->stats.switches);
	CPROF_TRY(cprof_builder_create(session->modules, session->space, &session->block_builder));
	profile = cprof_builder_profile(session->block_builder);
	cprof_block_describe(profile);
	CPROF_TRY(cprof_profile_check(profile));
	return cprof_block_create(&block, &session->block);
}

/* --- beginning ----------------------------------------------------------------------------- */

static void begin(struct cprof_session *session, uint64_t time)
{
	session->block_begun_ns = time;
	cprof_builder_profile(session->block_builder)->time_ns = (int64_t)cprof_wall_ns();
	cprof_block_begin(session->block, time);
	cprof_perf_count_from(session->switches, time);
}

/* The stack of a dump, as the builder wants it; 0: there is none. */
static uint32_t stack_of(struct cprof_session *session, const struct cprof_dump_thread *thread)
{
	struct cprof_stack stack = {.frames = session->frames, .end = thread->end};

	for (size_t i = 0; i < thread->frame_count && stack.count < CPROF_FRAMES_SAMPLE; i++) {
		const struct cprof_dump_frame *dumped = &thread->frames[i];
		struct cprof_frame *frame = &stack.frames[stack.count];

		if (dumped->inlined || !dumped->pc)
			continue;
		frame->pc = dumped->pc;
		frame->exact = !stack.count++;
		frame->region = cprof_space_find(session->space, cprof_frame_lookup_pc(frame));
	}
	return stack.count ? cprof_builder_stack(session->block_builder, NULL, 0, &stack) : 0;
}

static bool is_asleep(char state)
{
	return state != 'R';
}

static void take_over(struct cprof_session *session, const struct cprof_dump *dump)
{
	for (size_t i = 0; i < dump->count; i++) {
		const struct cprof_dump_thread *thread = &dump->threads[i];
		enum cprof_wait_kind kind = thread->wait.kind;

		cprof_block_found(session->block, thread->tid, is_asleep(thread->state),
				  stack_of(session, thread),
				  kind == CPROF_WAIT_NONE ? CPROF_WAITS : kind);
	}
}

/* Without a dump: who sleeps is known, not where. */
static void look_at_states(struct cprof_session *session)
{
	CPROF_AUTO_FREE pid_t *tids = NULL;
	size_t count = 0;

	cprof_error_destroy(cprof_target_threads(session->target, &tids, &count));
	for (size_t i = 0; i < count; i++) {
		CPROF_AUTO_FREE char *text = NULL;
		const char *name_end;
		char path[64];
		size_t length;

		snprintf(path, sizeof(path), "task/%d/stat", (int)tids[i]);
		text = cprof_read_file_at(cprof_target_procfd(session->target), path, 4096,
					  &length);
		name_end = text ? strrchr(text, ')') : NULL;
		if (name_end && name_end[1])
			cprof_block_found(session->block, tids[i], is_asleep(name_end[2]), 0,
					  CPROF_WAIT_NONE);
	}
}

/* Threads that sleep throughout give no record: a dump says where. It wakes them for a moment, so
 * the accounts begin after it. */
void cprof_session_block_start(struct cprof_session *session)
{
	const struct cprof_dump_options how = {
		.threads = session->config.threads,
		.debug_dir = session->config.debug_dir,
		.no_inlines = true,
		.no_lines = true,
	};
	struct cprof_dump *dump = NULL;
	struct cprof_error *error = cprof_dump_take(session->dump_target, &how, &dump);

	if (!error) {
		session->stats.dump_stops += dump->stops;
		session->stats.dump_stopped_ns =
			CPROF_MAX(session->stats.dump_stopped_ns, dump->stopped_ns);
		take_over(session, dump);
	} else {
		snprintf(session->stats.block_problem, sizeof(session->stats.block_problem), "%s",
			 error->message);
		look_at_states(session);
	}
	cprof_error_destroy(error);
	cprof_dump_destroy(dump);
	begin(session, cprof_now_ns());
}

/* --- records ------------------------------------------------------------------------------- */

static void on_sample(struct cprof_session *session, const struct cprof_perf_record *record)
{
	struct cprof_session_counts *counts = &session->stats.block_counts;
	struct cprof_stack stack = {.frames = session->frames,
				    .capacity = CPROF_COUNT(session->frames)};

	if (!cprof_session_wants(session, record->tid))
		return;
	cprof_session_unwind(session, session->switches, record, counts, &stack);
	cprof_block_sample(session->block, record->tid, record->time,
			   cprof_builder_stack(session->block_builder, record->sample.kernel_chain,
					       record->sample.kernel_count, &stack));
}

static void on_wait(struct cprof_session *session, const struct cprof_perf_record *record)
{
	const struct cprof_perf_wait *wait = &record->wait;

	if (wait->from)
		cprof_block_wait(session->block, record->tid, wait);
	else
		cprof_block_in(session->block, record->tid, wait->until);
}

static void on_comm(struct cprof_session *session, const struct cprof_perf_record *record)
{
	if (record->comm.exec)
		cprof_block_exec(session->block, record->tid);
	else
		cprof_block_renamed(session->block, record->tid);
	if (record->comm.exec && !session->block_begun_ns)
		begin(session, record->time);
}

/* Under the lock. */
static void take(struct cprof_session *session, const struct cprof_perf_record *record)
{
	switch (record->type) {
	case CPROF_PERF_SAMPLE:
		if (session->block_begun_ns)
			on_sample(session, record);
		break;
	case CPROF_PERF_SWITCH:
		if (record->switched.out)
			cprof_block_out(session->block, record->tid, record->time,
					record->switched.preempted);
		else
			cprof_block_in(session->block, record->tid, record->time);
		break;
	case CPROF_PERF_WAIT:
		on_wait(session, record);
		break;
	case CPROF_PERF_COMM:
		on_comm(session, record);
		break;
	case CPROF_PERF_FORK:
		cprof_block_born(session->block, record->tid);
		break;
	case CPROF_PERF_EXIT:
		cprof_block_ended(session->block, record->tid, record->time);
		break;
	case CPROF_PERF_LOST:
		if (record->lost.records && session->stats.switches.way == CPROF_PERF_PER_THREAD)
			cprof_block_lost(session->block);
		cprof_error_destroy(cprof_perf_rescan(session->switches));
		break;
	case CPROF_PERF_MMAP:
	case CPROF_PERF_THROTTLE:
	case CPROF_PERF_OTHER:
		break;
	}
}

static void on_record(void *context, const struct cprof_perf_record *record)
{
	struct cprof_session *session = context;

	/* Where samples are taken too, their events tell of threads and mappings. */
	if (!session->perf && record->type != CPROF_PERF_SAMPLE)
		cprof_session_record(session, record);
	session->block_records++;
	pthread_mutex_lock(&session->lock);
	take(session, record);
	pthread_mutex_unlock(&session->lock);
}

static void on_waits(void *context, const struct cprof_perf_waits *waits)
{
	const struct cprof_session *session = context;

	cprof_block_sums(session->block, waits);
}

/* Not oftener than costs a fiftieth of a CPU: there may be thousands of threads. Under the lock. */
static void add_up(struct cprof_session *session, uint64_t drained_ns, bool final)
{
	uint64_t now = cprof_now_ns();
	bool all = final || now >= session->block_summed_ns + session->block_sum_every_ns;

	cprof_perf_waits(session->switches, all, on_waits, session);
	if (!all)
		return;
	session->block_summed_ns = now;
	session->block_sum_every_ns = CPROF_MAX(SUM_EVERY_NS, (cprof_now_ns() - now) * SUM_COST);
	if (!final)
		session->block_until_ns = drained_ns - MARGIN_NS;
}

void cprof_session_block_drain(struct cprof_session *session, bool final)
{
	struct cprof_session_stats *stats = &session->stats;
	struct cprof_perf_stats perf;
	uint64_t before = cprof_now_ns();

	cprof_perf_drain(session->switches, final, on_record, session);
	cprof_perf_stats(session->switches, &perf);
	pthread_mutex_lock(&session->lock);
	add_up(session, before, final);
	stats->switches = perf;
	stats->block_counts.lost = perf.lost;
	cprof_block_stats(session->block, &stats->block);
	if (session->live)
		cprof_session_live_waits(session);
	else
		cprof_block_fold(session->block, THREADS_MOST);
	pthread_mutex_unlock(&session->lock);
}

void cprof_session_block_finish(struct cprof_session *session)
{
	session->block_until_ns = cprof_now_ns();
	cprof_perf_disable(session->switches);
	cprof_session_block_drain(session, true);
}
