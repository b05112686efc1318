/* SPDX-License-Identifier: MIT
 *
 * The agent's life: planted, kept up, detached.
 */
#include "agentparts.h"

#include <cprof/util.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <string.h>
#include <sys/mman.h>

#define UPDATE_NS 250000000ull /* between looks at maps */
#define LEAVE_NS  1000000000ull

/* After each patching slots are looked at again: a thread inside lazy binding may overwrite one. */
static const uint64_t verify_after_ns[] = {10000000, 100000000, 1000000000};

struct cprof_error *cprof_agent_gone(const struct cprof_agent *agent)
{
	return cprof_error_create(CPROF_NO_PROCESS, NULL,
				  "pid %d: ended, or became another program",
				  (int)cprof_target_info(agent->target)->pid);
}

/* --- orders --------------------------------------------------------------------------------- */

/* Config first: a hook must find its original from the first call on. */
static void publish(struct cprof_agent *agent, size_t *first)
{
	size_t count;
	const struct cprof_agent_order *orders = cprof_plan_orders(agent->plan, &count);

	*first = count;
	*agent->config = *cprof_plan_config(agent->plan);
	memcpy(agent->shared->orders, orders, count * sizeof(*orders));
	for (size_t i = count; i-- > 0;)
		if (orders[i].state == CPROF_AGENT_ORDER_WANTED)
			*first = i;
	agent->shared->order_count = (uint32_t)count;
	__sync_synchronize();
}

/* What came of them. The rest of an order is ours: the target may have written there. */
void cprof_agent_take_states(struct cprof_agent *agent)
{
	size_t count;
	struct cprof_agent_order *orders = cprof_plan_orders(agent->plan, &count);

	agent->stats.slots_patched = 0;
	for (size_t i = 0; i < count; i++) {
		uint32_t state = agent->shared->orders[i].state;

		if (state > CPROF_AGENT_ORDER_NONE && state <= CPROF_AGENT_ORDER_RESTORED)
			orders[i].state = state;
		agent->stats.slots_patched += orders[i].state == CPROF_AGENT_ORDER_DONE;
	}
}

void cprof_agent_note_modules(struct cprof_agent *agent)
{
	size_t count;
	const struct cprof_agent_module *modules = cprof_plan_modules(agent->plan, &count);

	agent->stats.modules_covered = 0;
	agent->stats.modules_bypassing = 0;
	for (size_t i = 0; i < count; i++) {
		agent->stats.modules_covered += modules[i].cover == CPROF_AGENT_COVER_HOOKED;
		agent->stats.modules_bypassing += modules[i].cover == CPROF_AGENT_COVER_BYPASS;
	}
}

void cprof_agent_note_stops(struct cprof_agent *agent)
{
	struct cprof_agent_stats *stats = &agent->stats;
	const struct cprof_remote *remote = agent->remote;
	size_t i = 0;

	stats->stops += remote->stops;
	stats->stopped_ns_max = CPROF_MAX(stats->stopped_ns_max, remote->held_ns);
	while (i < stats->stopped_threads && agent->held[i] != remote->tid)
		i++;
	if (remote->tid && i == stats->stopped_threads &&
	    cprof_grow(&agent->held, &agent->held_capacity, i + 1, sizeof(*agent->held)))
		agent->held[stats->stopped_threads++] = remote->tid;
}

static struct cprof_error *call_routine(struct cprof_agent *agent, uint64_t operation, size_t first)
{
	struct cprof_remote *remote = agent->remote;
	struct cprof_error *error;

	remote->base = agent->place.base;
	remote->plant = false;
	memset(remote->unmap, 0, sizeof(remote->unmap));
	remote->close_fd = -1;
	remote->call_count = 1;
	remote->calls[0] = (struct cprof_agent_call){
		.operation = operation,
		.first = first,
		.memfd = -1,
	};
	error = cprof_remote_run(agent->target, remote);
	cprof_agent_note_stops(agent);
	return error;
}

/* Where locks are not hooked, or have not been before: their hooks pass everything on. */
void cprof_agent_set_locks(struct cprof_agent_shared *shared, uint32_t every)
{
	shared->lock_fixed = every != 0;
	for (size_t i = 0; i < CPROF_AGENT_LOCK_BUCKETS; i++)
		shared->lock_rates[i].every = every ? CPROF_MIN(every, CPROF_AGENT_LOCK_EVERY) : 1;
}

/* --- beginning ------------------------------------------------------------------------------ */

/* Waits that cannot be timed must not be told as none. */
static struct cprof_error *check_clock(const struct cprof_agent *agent)
{
	if (!(agent->shared->forbidden & CPROF_AGENT_FORBID_CLOCK))
		return NULL;
	return cprof_error_create(
		CPROF_DENIED, "use -e block, which needs no hooks",
		"pid %d: its seccomp filter does not allow clock_gettime, by which "
		"hooks of locks measure",
		(int)cprof_target_info(agent->target)->pid);
}

struct cprof_error *cprof_agent_plant(struct cprof_target *target,
				      const struct cprof_agent_options *options,
				      struct cprof_remote *remote, cprof_agent_run *run,
				      void *context, struct cprof_agent **result)
{
	struct cprof_agent *agent = calloc(1, sizeof(*agent));
	struct cprof_error *error;

	if (!agent) {
		cprof_remote_destroy(remote);
		return cprof_error_nomem();
	}
	agent->target = target;
	agent->remote = remote;
	agent->memfd = -1;
	agent->kinds = options && options->kinds ? options->kinds : CPROF_AGENT_KIND_HEAP;
	agent->lock_every = options ? options->lock_every : 0;
	agent->detached = true; /* nothing is there yet */
	error = cprof_plant(agent, options, run, context);
	if (!error) {
		agent->detached = false;
		if (agent->kinds & CPROF_AGENT_KIND_LOCKS)
			error = check_clock(agent);
	}
	if (error) {
		cprof_agent_destroy(agent);
		return error;
	}
	*result = agent;
	return NULL;
}

static struct cprof_error *run_tracer(void *context, const struct cprof_target *target,
				      struct cprof_remote *remote)
{
	(void)context;
	return cprof_remote_run(target, remote);
}

struct cprof_error *cprof_agent_create(struct cprof_target *target,
				       const struct cprof_agent_options *options,
				       struct cprof_agent **agent)
{
	struct cprof_remote *remote;

	CPROF_TRY(cprof_remote_create(&remote));
	return cprof_agent_plant(target, options, remote, run_tracer, NULL, agent);
}

/* --- keeping up ----------------------------------------------------------------------------- */

/* An exec takes everything away. */
static bool still_there(const struct cprof_agent *agent)
{
	uint64_t magic = 0;

	return cprof_target_read(agent->target, agent->place.base, &magic, sizeof(magic)) ==
		       sizeof(magic) &&
	       magic == CPROF_AGENT_MAGIC;
}

static struct cprof_error *stop_looking(void *context, const struct cprof_mapping *mapping)
{
	(void)mapping;
	*(bool *)context = true;
	return cprof_error_create(CPROF_FAILED, NULL, "enough");
}

/* A process that is ending has no memory any more while it still counts as alive, and so has one
 * whose first thread has ended: neither is another program. */
static bool has_memory(const struct cprof_agent *agent)
{
	bool some = false;

	cprof_error_destroy(cprof_target_maps(agent->target, stop_looking, &some));
	return some;
}

static bool verify_is_due(struct cprof_agent *agent, uint64_t now)
{
	if (agent->verified == CPROF_COUNT(verify_after_ns) ||
	    now < agent->patched_ns + verify_after_ns[agent->verified])
		return false;
	while (agent->verified < CPROF_COUNT(verify_after_ns) &&
	       now >= agent->patched_ns + verify_after_ns[agent->verified])
		agent->verified++;
	return true;
}

static struct cprof_error *patch(struct cprof_agent *agent)
{
	struct cprof_error *error;
	size_t first;

	publish(agent, &first);
	error = call_routine(agent, CPROF_AGENT_PATCH, first);
	cprof_agent_take_states(agent);
	agent->patched_ns = cprof_now_ns();
	agent->verified = 0;
	return error;
}

struct cprof_error *cprof_agent_tick(struct cprof_agent *agent)
{
	uint64_t now = cprof_now_ns();
	bool verify;
	size_t fresh = 0;

	if (agent->detached)
		return NULL;
	__atomic_store_n(&agent->shared->heartbeat_ns, cprof_target_time_ns(agent->target, now),
			 __ATOMIC_RELEASE);
	verify = verify_is_due(agent, now);
	if (!verify && now < agent->updated_ns + UPDATE_NS)
		return NULL;
	agent->updated_ns = now;
	if (!cprof_target_alive(agent->target))
		return cprof_agent_gone(agent);
	if (!still_there(agent))
		return has_memory(agent) ? cprof_agent_gone(agent) : NULL;
	CPROF_TRY(cprof_plan_update(agent->plan, verify, &fresh));
	if (fresh)
		CPROF_TRY(patch(agent));
	cprof_agent_note_modules(agent);
	return NULL;
}

struct cprof_error *cprof_agent_add(struct cprof_agent *agent, unsigned kinds)
{
	unsigned before = agent->kinds;
	struct cprof_error *error = NULL;
	size_t fresh = 0;

	if (agent->detached)
		return cprof_agent_gone(agent);
	agent->kinds |= kinds;
	if (agent->kinds == before)
		return NULL;
	if (kinds & CPROF_AGENT_KIND_LOCKS)
		error = check_clock(agent);
	if (!error)
		error = cprof_plan_add(agent->plan, kinds, &fresh);
	if (!error && (kinds & CPROF_AGENT_KIND_LOCKS))
		cprof_agent_set_locks(agent->shared, agent->lock_every);
	if (!error && fresh)
		error = patch(agent);
	if (error)
		agent->kinds = before;
	cprof_agent_note_modules(agent);
	return error;
}

/* --- leaving -------------------------------------------------------------------------------- */

static void count_restored(struct cprof_agent *agent)
{
	size_t count;
	const struct cprof_agent_order *orders = cprof_plan_orders(agent->plan, &count);

	agent->stats.slots_restored = 0;
	agent->stats.slots_left = 0;
	for (size_t i = 0; i < count; i++) {
		agent->stats.slots_restored += orders[i].state == CPROF_AGENT_ORDER_RESTORED;
		agent->stats.slots_left += orders[i].state == CPROF_AGENT_ORDER_FAILED ||
					   orders[i].state == CPROF_AGENT_ORDER_CHANGED;
	}
}

static struct cprof_error *unmap(struct cprof_agent *agent)
{
	struct cprof_remote *remote = agent->remote;
	uint64_t base = agent->place.base;
	struct cprof_error *error;

	remote->call_count = 0;
	remote->unmap[0] = (struct cprof_mapped_range){
		base + CPROF_AGENT_PRIVATE, base + CPROF_AGENT_PRIVATE + CPROF_AGENT_PRIVATE_SIZE};
	remote->unmap[1] = (struct cprof_mapped_range){base + CPROF_AGENT_SHARED,
						       base + CPROF_AGENT_FILE_SIZE};
	error = cprof_remote_run(agent->target, remote);
	cprof_agent_note_stops(agent);
	return error;
}

static struct cprof_error *leave(struct cprof_agent *agent)
{
	struct cprof_error *error;
	size_t fresh;
	size_t first;

	/* Slots of modules that are gone by now must not be written. */
	cprof_error_destroy(cprof_plan_update(agent->plan, false, &fresh));
	publish(agent, &first);
	error = call_routine(agent, CPROF_AGENT_RESTORE, 0);
	cprof_agent_take_states(agent);
	count_restored(agent);
	if (error)
		return error;
	agent->detached = true;
	agent->stats.resident = true;
	if (!cprof_leave_wait(agent->target, &agent->place, LEAVE_NS))
		return NULL;
	CPROF_TRY(unmap(agent));
	agent->stats.resident = false;
	return NULL;
}

struct cprof_error *cprof_agent_detach(struct cprof_agent *agent)
{
	struct cprof_error *error;

	if (agent->detached)
		return NULL;
	if (!cprof_target_alive(agent->target) || !still_there(agent)) {
		agent->detached = true;
		return NULL;
	}
	error = leave(agent);
	/* Whatever happened: without it the hooks fall silent, and nobody is in the way of the next
	 * profiler. */
	__atomic_store_n(&agent->shared->heartbeat_ns, 0, __ATOMIC_RELEASE);
	if (error && error->status == CPROF_NO_PROCESS) {
		cprof_error_destroy(error);
		agent->detached = true;
		return NULL;
	}
	return error;
}

void cprof_agent_destroy(struct cprof_agent *agent)
{
	if (!agent)
		return;
	cprof_error_destroy(cprof_agent_detach(agent));
	cprof_plan_destroy(agent->plan);
	if (agent->shared)
		munmap(agent->shared, sizeof(*agent->shared));
	if (agent->config)
		munmap(agent->config, CPROF_AGENT_CONTROL - CPROF_AGENT_CONFIG);
	if (agent->memfd >= 0) {
		/* The text keeps the file alive: what only we read is given back. A thread that
		 * still writes there gets new pages. */
		if (agent->detached)
			fallocate(agent->memfd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				  CPROF_AGENT_SHARED, CPROF_AGENT_SHARED_SIZE);
		close(agent->memfd);
	}
	cprof_remote_destroy(agent->remote);
	free(agent->held);
	free(agent);
}

struct cprof_agent_shared *cprof_agent_shared(struct cprof_agent *agent)
{
	return agent->shared;
}

void cprof_agent_stats(const struct cprof_agent *agent, struct cprof_agent_stats *stats)
{
	*stats = agent->stats;
}

const struct cprof_agent_module *cprof_agent_modules(const struct cprof_agent *agent, size_t *count)
{
	return cprof_plan_modules(agent->plan, count);
}
