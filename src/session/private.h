/* SPDX-License-Identifier: MIT
 *
 * What the session's files share. The collector thread owns target, space, unwinder and perf while
 * it runs; `lock` guards the builder and the counters.
 */
#ifndef CPROF_SESSION_PRIVATE_H
#define CPROF_SESSION_PRIVATE_H

#include <cprof/builder.h>
#include <cprof/session.h>
#include <pthread.h>
#include <uthash.h>

/* So many threads that have ended are still known: their last samples come after their end. */
#define CPROF_SESSION_ENDED 4096

/* Kinds that the agent serves. */
#define CPROF_SESSION_AGENT (CPROF_KIND_HEAP | CPROF_KIND_MUTEX)

struct cprof_session_thread {
	pid_t tid;
	uint32_t labels; /* label set, 0: not made yet */
	bool wanted;     /* by the thread filter */
	bool ended;
	uint32_t last_stack; /* of a live session: of its last sample, 0 none */
	char name[64];
	UT_hash_handle hh;
};

struct cprof_session {
	struct cprof_source source;
	struct cprof_session_config config;
	struct cprof_target *target;
	struct cprof_target *dump_target; /* the same, for dumps: no other thread reads it */
	struct cprof_modules *modules;
	struct cprof_space *space;
	struct cprof_unwinder *unwinder;
	struct cprof_perf *perf; /* NULL: neither CPU nor CYCLES */

	pthread_t collector;
	bool collecting; /* the thread has been started and not joined */
	int stop_fd;
	bool awaiting_exec;    /* collector only, as are the following */
	bool main_unknown;     /* the program's mapping will be the next that is told */
	uint64_t refreshed_ns; /* when maps were read last */
	struct cprof_frame frames[CPROF_FRAMES_SAMPLE];

	struct cprof_perf *switches; /* with BLOCK, as the next three, which are under the lock */
	struct cprof_builder *block_builder;
	struct cprof_block *block;
	uint64_t block_begun_ns; /* 0: not yet */
	uint64_t block_until_ns; /* what happened before has been told */
	uint64_t block_records;  /* collector only, as the next two */
	uint64_t block_summed_ns;
	uint64_t block_sum_every_ns;

	/* With THREADCREATE; all but `perf` under the lock. */
	struct cprof_session_births {
		struct cprof_perf *perf;
		struct cprof_builder *builder;
		struct cprof_session_birth *open; /* hash by creator */
		uint64_t begun_ns;                /* 0: not yet */
		uint64_t until_ns;
		bool unsure; /* FORK records were lost */
	} births;

	/* With HEAP or MUTEX; these under both locks but for reading. */
	struct cprof_agent *agent;
	struct cprof_agent_records *records; /* of the agent; NULL: never hooked */
	struct cprof_heap *heap;             /* with HEAP */
	struct cprof_contention *contention; /* with MUTEX */
	uint64_t agent_started_ns;
	uint64_t ticked_ns; /* of the agent */
	uint64_t looked_ns;
	int agent_wait_ms; /* until the next drain; collector only */

	pthread_mutex_t tracing; /* held by who traces the target; never inside `lock` */
	pthread_mutex_t lock;
	struct cprof_builder *builder; /* with perf */
	struct cprof_session_thread *threads;
	pid_t ended_tids[CPROF_SESSION_ENDED]; /* a ring of those that ended last */
	size_t ended_next;
	uint32_t key_thread; /* string ids */
	uint32_t key_tid;
	struct cprof_session_stats stats;
	uint64_t cpu_ns; /* of the target when sampling began */
	uint64_t started_ns;
	uint64_t ended_ns; /* 0: still running */
	bool ended;        /* by the target's end */

	struct cprof_session_live *live; /* NULL: nobody watches */
	bool pausing;                    /* the collector is to leave without an end */
};

struct cprof_session_live;

/* collect.c */
void cprof_session_record(void *session, const struct cprof_perf_record *record);
/* Reads the threads there are. */
struct cprof_error *cprof_session_scan_threads(struct cprof_session *session);

/* collect.c: under the lock */
bool cprof_session_wants(struct cprof_session *session, pid_t tid);
/* Makes the program the first mapping of the profiles; false: it cannot be told yet. */
bool cprof_session_map_main(struct cprof_session *session);
/* Of a live session: that of a thread's last sample, 0 none. */
uint32_t cprof_session_last_stack(struct cprof_session *session, pid_t tid);
/* NULL: it is not wanted. */
const char *cprof_session_thread_name(void *session, pid_t tid);
/* Of a sample of `perf`. */
void cprof_session_unwind(struct cprof_session *session, struct cprof_perf *perf,
			  const struct cprof_perf_record *record,
			  struct cprof_session_counts *counts, struct cprof_stack *stack);
/* Where no record tells that a thread has ended or changed its name: look again. */
void cprof_session_forget_threads(struct cprof_session *session);

/* block.c */
struct cprof_error *cprof_session_block_open(struct cprof_session *session);
void cprof_session_block_start(struct cprof_session *session);
void cprof_session_block_drain(struct cprof_session *session, bool final);
void cprof_session_block_finish(struct cprof_session *session);

/* births.c */
struct cprof_error *cprof_session_births_open(struct cprof_session *session);
struct cprof_error *cprof_session_births_start(struct cprof_session *session);
void cprof_session_births_drain(struct cprof_session *session, bool final);
void cprof_session_births_finish(struct cprof_session *session);
void cprof_session_births_close(struct cprof_session *session);

/* agent.c */
/* Plants the agent, or has it hook what has been added to the kinds. */
struct cprof_error *cprof_session_agent_start(struct cprof_session *session);
void cprof_session_agent_work(struct cprof_session *session); /* collector: now and then */
void cprof_session_agent_finish(struct cprof_session *session);
#define CPROF_SESSION_EXEC "the process has become another program (exec)"
/* Under the lock: the agent is gone, what was live is not known any more. */
void cprof_session_agent_lose(struct cprof_session *session, const char *why);
/* Under the lock: fills in the stats. */
void cprof_session_agent_count(struct cprof_session *session);

/* collector.c */
struct cprof_error *cprof_session_collect(struct cprof_session *session);
/* Starts a thread that no signal disturbs. */
struct cprof_error *cprof_session_spawn(pthread_t *thread, void *(*run)(void *context),
					void *context);
/* Takes the collector away, so that what it owns can be changed; until it is started again. False:
 * there is none any more. */
bool cprof_session_pause(struct cprof_session *session);

/* session.c */
unsigned cprof_session_rate(const struct cprof_session *session);
struct cprof_error *cprof_session_source_snapshot(struct cprof_source *source, const char *kind,
						  struct cprof_profile **profile);
bool cprof_session_source_live(struct cprof_source *source);
void cprof_session_source_destroy(struct cprof_source *source);
struct cprof_error *cprof_session_open_perf(struct cprof_session *session);
struct cprof_error *cprof_session_start_perf(struct cprof_session *session);
/* Under the lock. */
void cprof_session_tell(struct cprof_session *session, struct cprof_session_stats *stats);

/* snapshot.c */
/* Counts of samples, for what is missing beside them. */
struct cprof_session_loss {
	uint64_t samples;
	uint64_t lost;
	uint64_t counted; /* CPU ns that the events counted, 0 unknown */
	uint64_t period;
};
/* Adds markers for what was lost; CPU time that was counted and never sampled. */
uint64_t cprof_session_add_loss(const struct cprof_session *session,
				const struct cprof_session_loss *loss,
				struct cprof_profile *profile);
/* Names a copy of that kind's builder; `unnamed`: later, where there is a worker. */
struct cprof_error *cprof_session_name(struct cprof_session *session, enum cprof_kind kind,
				       struct cprof_naming *naming, bool unnamed);
/* What builds the profile of a kind, NULL nothing yet. */
struct cprof_builder *cprof_session_builder(struct cprof_session *session, enum cprof_kind kind);
struct cprof_error *cprof_session_dump_of(struct cprof_session *session, const char *const *threads,
					  struct cprof_dump **dump);
/* Since the start or, of sums over time, of the last `window_ns` about. */
struct cprof_error *cprof_session_snapshot(struct cprof_session *session, enum cprof_kind kind,
					   uint64_t window_ns, bool unnamed,
					   struct cprof_profile **profile);

/* live.c, recent.c: of a live session */
extern const struct cprof_source_ops cprof_session_live_ops;
struct cprof_error *cprof_session_live_open(struct cprof_session *session);
void cprof_session_live_destroy(struct cprof_session *session);
/* Under the lock. */
void cprof_session_live_sample(struct cprof_session *session,
			       const struct cprof_perf_record *record,
			       struct cprof_session_thread *thread, uint32_t stack,
			       uint32_t labels);
void cprof_session_live_waits(struct cprof_session *session);
void cprof_session_live_mark(struct cprof_session *session);
/* Of the collector, without the lock: after each drain. */
void cprof_session_live_drained(struct cprof_session *session);
/* Leaves what came in the last `window_ns` (0: all) before `until` in the rows of waits or of
 * contention; `*from` is then when it began. False without memory. */
bool cprof_session_live_since(struct cprof_session *session, uint64_t window_ns,
			      struct cprof_block_rows *block, struct cprof_contention_rows *mutex,
			      uint64_t until, uint64_t *from);
/* Has what is not named yet of a kind named beside. */
void cprof_session_live_want_names(struct cprof_session *session, enum cprof_kind kind);

#endif
