/* SPDX-License-Identifier: MIT
 *
 * The agent is planted: its place, its memory, the slots that lead to it.
 */
#include "agentparts.h"
#include "blob.h"

#include <cprof/util.h>
#include <errno.h>
#include <linux/memfd.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <sys/utsname.h>

#define RATE_USUAL  (512u << 10)
#define STACK_USUAL 16384
#define TRIES       16 /* of planting: the target may map and close meanwhile */

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8u
#endif

/* Since Linux 6.3 a memfd is asked to be one that cannot be executed as a file. */
static uint32_t memfd_flags(void)
{
	struct utsname system;
	char *minor;
	unsigned long major;

	if (uname(&system) != 0)
		return MFD_CLOEXEC | MFD_ALLOW_SEALING;
	major = strtoul(system.release, &minor, 10);
	if (major > 6 || (major == 6 && *minor == '.' && strtoul(minor + 1, NULL, 10) >= 3))
		return MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL;
	return MFD_CLOEXEC | MFD_ALLOW_SEALING;
}

/* FNV-1a: the same in every process. */
static uint64_t hash_blob(const uint8_t *bytes, size_t size)
{
	uint64_t hash = 0xcbf29ce484222325ull;

	for (size_t i = 0; i < size; i++)
		hash = (hash ^ bytes[i]) * 0x100000001b3ull;
	return hash;
}

static void fill_text(struct cprof_remote *remote, struct cprof_agent_header *header)
{
	struct cprof_remote_area *area = cprof_remote_area(remote);
	size_t size = (size_t)(cprof_agent_blob_end - cprof_agent_blob);

	memcpy(area->text, cprof_agent_blob, size);
	memcpy(header, area->text, sizeof(*header));
	header->build = hash_blob(cprof_agent_blob, size);
	memcpy(area->text, header, sizeof(*header));
}

static void fill_image(struct cprof_agent *agent, const struct cprof_agent_options *options)
{
	struct cprof_remote_area *area = cprof_remote_area(agent->remote);
	size_t count;
	const struct cprof_agent_order *orders = cprof_plan_orders(agent->plan, &count);

	memcpy(area->text + CPROF_AGENT_CONFIG, cprof_plan_config(agent->plan),
	       sizeof(struct cprof_agent_config));
	cprof_agent_shorten(area->text, cprof_plan_config(agent->plan), agent->place.base);
	area->shared.magic = CPROF_AGENT_MAGIC;
	area->shared.heartbeat_ns = cprof_target_time_ns(agent->target, cprof_now_ns());
	area->shared.rate = options && options->heap_rate ? options->heap_rate : RATE_USUAL;
	area->shared.epoch = 1;
	area->shared.stack_max = STACK_USUAL;
	area->shared.host_pid = cprof_remains_own_pid(agent->target);
	area->shared.order_count = (uint32_t)count;
	area->shared.forbidden = 0;
	if (agent->kinds & CPROF_AGENT_KIND_LOCKS)
		cprof_agent_set_locks(&area->shared, agent->lock_every);
	memcpy(area->shared.orders, orders, count * sizeof(*orders));
	agent->remote->order_count = count;
}

static void order_start(struct cprof_agent *agent, const struct cprof_agent_options *options)
{
	struct cprof_remote *remote = agent->remote;
	uint64_t seed = options ? options->seed : 0;

	if (!seed && getrandom(&seed, sizeof(seed), GRND_NONBLOCK) != sizeof(seed))
		seed = cprof_now_ns();
	remote->base = agent->place.base;
	remote->plant = true;
	remote->replace = agent->place.text;
	remote->memfd_flags = memfd_flags();
	remote->close_fd = -1;
	memset(remote->unmap, 0, sizeof(remote->unmap));
	remote->call_count = 1;
	remote->calls[0] = (struct cprof_agent_call){
		.operation = CPROF_AGENT_START,
		.adopt = agent->place.control,
		.seed = seed ? seed : 1,
	};
}

/* An earlier agent of the same build is taken over where it is, if it can have its memory there;
 * another build stays beside. */
static struct cprof_error *take_place(struct cprof_agent *agent,
				      const struct cprof_agent_header *header, unsigned attempt,
				      struct cprof_agent_config *kept)
{
	struct cprof_place *place = &agent->place;
	uint64_t ignored;

	CPROF_TRY(cprof_place_find(agent->target, header->build, place));
	CPROF_TRY(cprof_remains_check(agent->target, place));
	if (cprof_remains_unfinished(place))
		CPROF_TRY(
			cprof_remains_clear(agent->target, agent->remote, false, place, &ignored));
	if (place->text && place->header.build == header->build && !place->private &&
	    !place->shared && !place->taken &&
	    cprof_target_read(agent->target, place->base + CPROF_AGENT_CONFIG, kept,
			      sizeof(*kept)) == sizeof(*kept)) {
		agent->stats.adopted = true;
	} else {
		*place = (struct cprof_place){.memfd = -1};
		CPROF_TRY(cprof_place_choose(agent->target, attempt, &place->base));
	}
	place->header = *header;
	return NULL;
}

/* The target may map something there, or close our descriptor, at any moment: then again. */
static bool worth_repeating(const struct cprof_remote *remote)
{
	switch (remote->result) {
	case CPROF_REMOTE_LOST:
		return true;
	case CPROF_REMOTE_SYSCALL:
		return remote->syscall == SYS_mmap &&
		       (remote->errnum == EEXIST || remote->errnum == EBADF);
	case CPROF_REMOTE_ROUTINE:
		return remote->errnum == EEXIST || remote->errnum == EBADF;
	default:
		return false;
	}
}

static struct cprof_error *plant_once(struct cprof_agent *agent,
				      const struct cprof_agent_options *options, unsigned attempt,
				      cprof_agent_run *run, void *context)
{
	struct cprof_agent_config kept;
	struct cprof_agent_header header;
	struct cprof_error *error;
	size_t fresh;

	/* Refusals first, before anything is looked at or changed. */
	CPROF_TRY(cprof_remote_begin(agent->target, agent->remote));
	agent->stats.adopted = false;
	fill_text(agent->remote, &header);
	CPROF_TRY(take_place(agent, &header, attempt, &kept));
	fill_text(agent->remote, &header);
	cprof_plan_destroy(cprof_take(agent->plan));
	CPROF_TRY(cprof_plan_create(agent->target, agent->place.base, agent->kinds, &header,
				    agent->stats.adopted ? &kept : NULL, &agent->plan));
	CPROF_TRY(cprof_plan_update(agent->plan, true, &fresh));
	fill_image(agent, options);
	order_start(agent, options);
	error = run(context, agent->target, agent->remote);
	cprof_agent_note_stops(agent);
	return error;
}

/* What a failed attempt may have left: its tracer was killed, or gave up. */
static void undo(struct cprof_agent *agent)
{
	const struct cprof_remote *remote = agent->remote;
	bool in_flight = remote->result == CPROF_REMOTE_NONE || remote->result == CPROF_REMOTE_LATE;
	struct cprof_place place;
	uint64_t ignored;

	if (!cprof_target_alive(agent->target))
		return;
	cprof_error_destroy(cprof_place_find(agent->target, 0, &place));
	cprof_error_destroy(
		cprof_remains_clear(agent->target, agent->remote, in_flight, &place, &ignored));
}

static struct cprof_error *map_memfd(struct cprof_agent *agent)
{
	void *config;

	agent->memfd = agent->remote->memfd;
	agent->shared = mmap(NULL, sizeof(*agent->shared), PROT_READ | PROT_WRITE, MAP_SHARED,
			     agent->memfd, CPROF_AGENT_SHARED);
	config = mmap(NULL, CPROF_AGENT_CONTROL - CPROF_AGENT_CONFIG, PROT_READ | PROT_WRITE,
		      MAP_SHARED, agent->memfd, CPROF_AGENT_CONFIG);
	if (agent->shared == MAP_FAILED)
		agent->shared = NULL;
	agent->config = config == MAP_FAILED ? NULL : config;
	if (!agent->shared || !agent->config)
		return cprof_error_errno(CPROF_FAILED, errno, NULL, "mapping the agent's memory");
	agent->place.text = true;
	agent->place.control = true;
	agent->place.private = true;
	agent->place.shared = true;
	return NULL;
}

struct cprof_error *cprof_plant(struct cprof_agent *agent,
				const struct cprof_agent_options *options, cprof_agent_run *run,
				void *context)
{
	struct cprof_error *error = NULL;

	for (unsigned attempt = 0; attempt < TRIES; attempt++) {
		cprof_error_destroy(error);
		error = plant_once(agent, options, attempt, run, context);
		if (!error || !worth_repeating(agent->remote))
			break;
	}
	if (error) {
		if (agent->remote->tid)
			undo(agent);
		/* Whatever it looked like. */
		if (!cprof_target_alive(agent->target)) {
			cprof_error_destroy(error);
			error = cprof_agent_gone(agent);
		}
		return error;
	}
	agent->stats.attach_stops = agent->remote->stops;
	agent->stats.attach_stopped_ns = agent->remote->held_ns;
	error = map_memfd(agent);
	if (error) {
		undo(agent);
		return error;
	}
	cprof_agent_take_states(agent);
	cprof_agent_note_modules(agent);
	agent->patched_ns = cprof_now_ns();
	agent->updated_ns = agent->patched_ns;
	return NULL;
}
