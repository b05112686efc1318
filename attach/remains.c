/* SPDX-License-Identifier: MIT
 *
 * What a profiler that was killed has left in the target, and how it is removed.
 */
#include "agentparts.h"

#include <cprof/util.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#define PAUSE_US   5000
#define LEAVE_NS   1000000000ull
#define IDLE_NS    5000000000ull
#define ROUTINE_NS 1200000000ull /* a routine whose tracer has died is over by then */

/* --- looking -------------------------------------------------------------------------------- */

struct journal {
	uint64_t heartbeat_ns;
	uint32_t host_pid;
	uint32_t order_count;
};

static bool read_journal(const struct cprof_target *target, const struct cprof_place *place,
			 struct journal *journal)
{
	struct cprof_agent_shared shared;
	size_t size = offsetof(struct cprof_agent_shared, reserved);

	if (!place->shared ||
	    cprof_target_read(target, place->base + CPROF_AGENT_SHARED, &shared, size) != size ||
	    shared.magic != CPROF_AGENT_MAGIC)
		return false;
	*journal = (struct journal){
		.heartbeat_ns = shared.heartbeat_ns,
		.host_pid = shared.host_pid,
		.order_count = CPROF_MIN(shared.order_count, CPROF_AGENT_ORDERS),
	};
	return true;
}

static bool same_pid_namespace(const struct cprof_target *target)
{
	const struct cprof_target_info *info = cprof_target_info(target);
	struct stat own;

	return stat("/proc/self/ns/pid", &own) == 0 && own.st_dev == info->pid_ns_dev &&
	       own.st_ino == info->pid_ns_ino;
}

uint32_t cprof_remains_own_pid(const struct cprof_target *target)
{
	return same_pid_namespace(target) ? (uint32_t)getpid() : 0;
}

/* A zombie is dead. */
static bool process_lives(uint32_t pid)
{
	struct cprof_target *target = NULL;
	struct cprof_error *error = cprof_target_create((pid_t)pid, &target);
	bool lives = !error || error->status != CPROF_NO_PROCESS;

	cprof_error_destroy(error);
	cprof_target_destroy(target);
	return lives;
}

static bool in_use(const struct cprof_target *target, const struct journal *journal)
{
	if (cprof_target_time_ns(target, cprof_now_ns()) - journal->heartbeat_ns >
	    CPROF_AGENT_QUIET_NS)
		return false;
	return journal->host_pid != (uint32_t)getpid() &&
	       (!journal->host_pid || !same_pid_namespace(target) ||
		process_lives(journal->host_pid));
}

struct cprof_error *cprof_remains_check(const struct cprof_target *target,
					const struct cprof_place *place)
{
	struct journal journal;

	if (!read_journal(target, place, &journal) || !in_use(target, &journal))
		return NULL;
	return cprof_error_create(CPROF_DENIED, "end that one first",
				  "pid %d: another profiler is at work there (pid %u)",
				  (int)cprof_target_info(target)->pid, journal.host_pid);
}

/* Slots that lead to hooks now, by the journal. */
static uint64_t count_hooked(const struct cprof_target *target, const struct cprof_place *place,
			     const struct journal *journal)
{
	size_t size = journal->order_count * sizeof(struct cprof_agent_order);
	CPROF_AUTO_FREE struct cprof_agent_order *orders = malloc(size + 1);
	uint64_t count = 0;
	uint64_t value;

	if (!orders)
		return 0;
	size = cprof_target_read(target,
				 place->base + CPROF_AGENT_SHARED +
					 offsetof(struct cprof_agent_shared, orders),
				 orders, size);
	for (size_t i = 0; i < size / sizeof(*orders); i++)
		count += orders[i].hook &&
			 cprof_target_read(target, orders[i].slot, &value, sizeof(value)) ==
				 sizeof(value) &&
			 value == orders[i].hook;
	return count;
}

/* The same without a journal, as after a fork: by looking at all slots. */
static uint64_t count_planned(struct cprof_target *target, const struct cprof_place *place)
{
	struct cprof_agent_config config;
	struct cprof_plan *plan = NULL;
	struct cprof_error *error;
	uint64_t hooked = 0;
	size_t count = 0;
	size_t fresh;

	if (cprof_target_read(target, place->base + CPROF_AGENT_CONFIG, &config, sizeof(config)) !=
	    sizeof(config))
		return 0;
	error = cprof_plan_create(target, place->base,
				  CPROF_AGENT_KIND_HEAP | CPROF_AGENT_KIND_LOCKS, &place->header,
				  &config, &plan);
	if (!error)
		error = cprof_plan_update(plan, true, &fresh);
	/* That there is nothing more to hook is no error here. */
	if (plan) {
		const struct cprof_agent_order *orders = cprof_plan_orders(plan, &count);

		for (size_t i = 0; i < count; i++)
			hooked += orders[i].state == CPROF_AGENT_ORDER_DONE;
	}
	cprof_error_destroy(error);
	cprof_plan_destroy(plan);
	return hooked;
}

static void describe(struct cprof_target *target, const struct cprof_place *place,
		     struct cprof_agent_remains *remains)
{
	struct journal journal = {.host_pid = 0};
	bool known = read_journal(target, place, &journal);

	*remains = (struct cprof_agent_remains){
		.base = place->base,
		.mapped = place->private || place->shared,
		.memfd = place->memfd >= 0,
		.in_use = known && in_use(target, &journal),
		.host_pid = (int)journal.host_pid,
	};
	if (place->base)
		remains->slots = known ? count_hooked(target, place, &journal)
				       : count_planned(target, place);
	remains->hooked = remains->slots > 0;
}

struct cprof_error *cprof_agent_find(struct cprof_target *target,
				     struct cprof_agent_remains *remains)
{
	struct cprof_place place;

	CPROF_TRY(cprof_place_find(target, 0, &place));
	describe(target, &place, remains);
	return NULL;
}

/* --- removing ------------------------------------------------------------------------------- */

static void prepare(struct cprof_remote *remote, const struct cprof_place *place)
{
	remote->base = place->base;
	remote->plant = false;
	remote->call_count = 0;
	remote->close_fd = -1;
	memset(remote->unmap, 0, sizeof(remote->unmap));
	memset(remote->calls, 0, sizeof(remote->calls));
}

/* A thread may still be in the routine of a profiler that was killed: it would not survive that its
 * memory is taken away. */
static void await_routine(const struct cprof_target *target, const struct cprof_place *place)
{
	struct journal journal;
	uint64_t end = cprof_target_time_ns(target, cprof_now_ns()) + ROUTINE_NS;

	if (read_journal(target, place, &journal))
		end = CPROF_MIN(end, journal.heartbeat_ns + ROUTINE_NS);
	while (cprof_target_time_ns(target, cprof_now_ns()) < end && cprof_target_alive(target))
		usleep(PAUSE_US);
	if (place->base)
		cprof_leave_wait(target, place, LEAVE_NS);
}

/* It is slow where it gets no CPU. One whose thread was taken back in the middle is never idle
 * again: not for ever, therefore. */
static void await_idle(const struct cprof_target *target, const struct cprof_place *place)
{
	uint64_t address =
		place->base + CPROF_AGENT_CONTROL + offsetof(struct cprof_agent_control, busy);
	uint64_t end = cprof_now_ns() + IDLE_NS;
	uint64_t busy = 0;

	while (place->control && cprof_now_ns() < end &&
	       cprof_target_read(target, address, &busy, sizeof(busy)) == sizeof(busy) && busy)
		usleep(PAUSE_US);
}

bool cprof_remains_unfinished(const struct cprof_place *place)
{
	return place->memfd >= 0 || place->private || place->shared ||
	       (place->text && !place->control);
}

struct cprof_error *cprof_remains_clear(const struct cprof_target *target,
					struct cprof_remote *remote, bool in_flight,
					struct cprof_place *place, uint64_t *restored)
{
	struct journal journal;

	*restored = 0;
	if (!cprof_remains_unfinished(place) && !in_flight)
		return NULL;
	await_routine(target, place);
	CPROF_TRY(cprof_place_find(target, place->header.build, place));
	await_idle(target, place);
	CPROF_TRY(cprof_place_find(target, place->header.build, place));
	prepare(remote, place);
	if (place->control && read_journal(target, place, &journal)) {
		remote->calls[0].operation = CPROF_AGENT_RESTORE;
		remote->calls[0].memfd = -1;
		remote->call_count = 1;
		CPROF_TRY(cprof_remote_run(target, remote));
		*restored = remote->calls[0].changed;
	}
	if ((place->private || place->shared) && cprof_leave_wait(target, place, LEAVE_NS)) {
		prepare(remote, place);
		if (place->private)
			remote->unmap[0] = (struct cprof_mapped_range){
				place->base + CPROF_AGENT_PRIVATE,
				place->base + CPROF_AGENT_PRIVATE + CPROF_AGENT_PRIVATE_SIZE};
		if (place->shared)
			remote->unmap[1] =
				(struct cprof_mapped_range){place->base + CPROF_AGENT_SHARED,
							    place->base + CPROF_AGENT_FILE_SIZE};
		remote->close_fd = place->memfd;
		CPROF_TRY(cprof_remote_run(target, remote));
	} else if (place->memfd >= 0) {
		prepare(remote, place);
		remote->close_fd = place->memfd;
		CPROF_TRY(cprof_remote_run(target, remote));
	}
	return cprof_place_find(target, place->header.build, place);
}

/* Without a journal the slots are restored by who adopts the agent, and leaves. */
static struct cprof_error *adopt_and_leave(struct cprof_target *target)
{
	struct cprof_agent *agent;
	struct cprof_error *error;

	CPROF_TRY(cprof_agent_create(target, NULL, &agent));
	error = cprof_agent_detach(agent);
	cprof_agent_destroy(agent);
	return error;
}

static struct cprof_error *clean(struct cprof_target *target, struct cprof_remote *remote,
				 struct cprof_agent_remains *remains)
{
	struct cprof_place place;
	uint64_t restored = 0;
	uint64_t adopted = 0;

	CPROF_TRY(cprof_place_find(target, 0, &place));
	CPROF_TRY(cprof_remains_check(target, &place));
	CPROF_TRY(cprof_remains_clear(target, remote, false, &place, &restored));
	if (place.base)
		adopted = count_planned(target, &place);
	if (adopted)
		CPROF_TRY(adopt_and_leave(target));
	CPROF_TRY(cprof_place_find(target, 0, &place));
	describe(target, &place, remains);
	remains->slots = restored + adopted;
	return NULL;
}

struct cprof_error *cprof_agent_clean(struct cprof_target *target,
				      struct cprof_agent_remains *remains)
{
	struct cprof_remote *remote;
	struct cprof_error *error;

	CPROF_TRY(cprof_remote_create(&remote));
	error = clean(target, remote, remains);
	cprof_remote_destroy(remote);
	return error;
}
