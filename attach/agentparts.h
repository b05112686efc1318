/* SPDX-License-Identifier: MIT
 *
 * The parts of the agent's life on the profiler's side: a place, a plant, a leave.
 */
#ifndef CPROF_ATTACH_AGENTPARTS_H
#define CPROF_ATTACH_AGENTPARTS_H

#include "plan.h"
#include "remote.h"

/* --- place.c: where an agent is or could be ------------------------------------------------- */

struct cprof_place {
	uint64_t base; /* 0: none */
	struct cprof_agent_header header;
	bool text; /* what is mapped of it */
	bool control;
	bool private;
	bool shared;
	bool taken; /* something that is not the agent's lies where its memory would be */
	int memfd;  /* a descriptor of the target that was left open, -1 none */
};
/* The agent that is mapped in the target, if one is: the one at work, else one of that build, else
 * any. */
struct cprof_error *cprof_place_find(const struct cprof_target *target, uint64_t build,
				     struct cprof_place *place);
/* An address for a new one; another one for each `attempt`. */
struct cprof_error *cprof_place_choose(const struct cprof_target *target, unsigned attempt,
				       uint64_t *base);

/* --- leave.c -------------------------------------------------------------------------------- */

/* Waits, but for no more than so long, until no thread is inside the agent any more; it must have
 * been switched off before. */
bool cprof_leave_wait(const struct cprof_target *target, const struct cprof_place *place,
		      uint64_t limit_ns);

/* --- remains.c ------------------------------------------------------------------------------ */

/* Refuses if another profiler is at work there. */
struct cprof_error *cprof_remains_check(const struct cprof_target *target,
					const struct cprof_place *place);
/* Whether it is more than what a detach leaves: being planted, at work, or left by a killed one. */
bool cprof_remains_unfinished(const struct cprof_place *place);
/*
 * Waits until no routine can be running any more, restores by the journal in SHARED, unmaps what
 * may be, closes; looks again; `*restored`: slots. `in_flight`: even if nothing is to be seen yet.
 */
struct cprof_error *cprof_remains_clear(const struct cprof_target *target,
					struct cprof_remote *remote, bool in_flight,
					struct cprof_place *place, uint64_t *restored);
/* Our pid as the target would see it, 0 if it would not. */
uint32_t cprof_remains_own_pid(const struct cprof_target *target);

/* --- shortcut.c ----------------------------------------------------------------------------- */

/* Makes the hooks in `text` (before it is planted) jump directly to the originals in reach. */
void cprof_agent_shorten(uint8_t *text, const struct cprof_agent_config *config, uint64_t base);

/* --- agent.c -------------------------------------------------------------------------------- */

struct cprof_agent {
	struct cprof_target *target;
	struct cprof_remote *remote;
	struct cprof_plan *plan;
	struct cprof_place place;
	struct cprof_agent_shared *shared; /* ours of the memfd */
	struct cprof_agent_config *config;
	int memfd;
	struct cprof_agent_stats stats;
	unsigned kinds; /* enum cprof_agent_kind */
	uint32_t lock_every;
	uint64_t patched_ns;
	uint64_t updated_ns;
	unsigned verified; /* of verify_after_ns */
	bool detached;
	pid_t *held; /* threads that ever were */
	size_t held_capacity;
};

struct cprof_error *cprof_agent_gone(const struct cprof_agent *agent);
/* What came of the orders. */
void cprof_agent_take_states(struct cprof_agent *agent);
void cprof_agent_note_modules(struct cprof_agent *agent);
/* Of the remote call that was just made. */
void cprof_agent_note_stops(struct cprof_agent *agent);
/* How many waits are timed, 0: it is chosen. */
void cprof_agent_set_locks(struct cprof_agent_shared *shared, uint32_t every);

/* How a remote call is run: by a tracer of its own, or by one that holds the target already. */
typedef struct cprof_error *cprof_agent_run(void *context, const struct cprof_target *target,
					    struct cprof_remote *remote);
/* `remote` is taken over. */
struct cprof_error *cprof_agent_plant(struct cprof_target *target,
				      const struct cprof_agent_options *options,
				      struct cprof_remote *remote, cprof_agent_run *run,
				      void *context, struct cprof_agent **agent);

/* --- plant.c -------------------------------------------------------------------------------- */

/* Plants, again where the target was in the way by chance; after an error nothing is left. */
struct cprof_error *cprof_plant(struct cprof_agent *agent,
				const struct cprof_agent_options *options, cprof_agent_run *run,
				void *context);

#endif
