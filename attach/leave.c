/* SPDX-License-Identifier: MIT
 *
 * When the agent's memory may be unmapped: after it was switched off, no thread is in a hook's slow
 * path, and each has been seen outside of its text, or to have moved on.
 */
#include "agentparts.h"

#include <cprof/util.h>
#include <string.h>

#define PAUSE_US    1000
#define PROGRESS_NS 50000 /* CPU time in which a thread surely leaves a hook's few instructions */
#define STACK_SCAN  (256u << 10)
#define USER_CS     0x33

struct seen {
	pid_t tid;
	uint64_t cpu_ns;
	bool outside;
};

static bool is_inside(const struct cprof_place *place, uint64_t address)
{
	return address - place->base < CPROF_AGENT_CONFIG;
}

static bool shards_empty(const struct cprof_target *target, const struct cprof_place *place)
{
	size_t size = CPROF_AGENT_SHARDS * sizeof(struct cprof_agent_shard);
	CPROF_AUTO_FREE struct cprof_agent_shard *shards = malloc(size);
	uint64_t inside = 0;

	if (!shards ||
	    cprof_target_read(target, place->base + CPROF_AGENT_PRIVATE, shards, size) != size)
		return !place->private;
	for (size_t i = 0; i < CPROF_AGENT_SHARDS; i++)
		inside |= shards[i].owner | shards[i].inside;
	return inside == 0;
}

/* A handler may have interrupted the text: its frame has the rip, then eflags, then cs. */
static bool frame_inside(const struct cprof_target *target, const struct cprof_place *place,
			 uint64_t sp)
{
	CPROF_AUTO_FREE uint64_t *stack = malloc(STACK_SCAN);
	size_t count;

	if (!stack)
		return true;
	count = cprof_target_read(target, sp & ~7ull, stack, STACK_SCAN) / sizeof(*stack);
	for (size_t i = 0; i + 2 < count; i++)
		if (is_inside(place, stack[i]) && (stack[i + 2] & 0xffff) == USER_CS)
			return true;
	return false;
}

static uint64_t cpu_ns(const struct cprof_target *target, pid_t tid)
{
	char path[40];
	CPROF_AUTO_FREE char *text = NULL;

	snprintf(path, sizeof(path), "task/%d/schedstat", (int)tid);
	text = cprof_read_file_at(cprof_target_procfd(target), path, 128, NULL);
	return text ? strtoull(text, NULL, 10) : UINT64_MAX;
}

/* "NR arguments… sp pc" of a blocked thread, "-1 sp pc" of one blocked otherwise. */
static bool blocked_outside(const struct cprof_target *target, const struct cprof_place *place,
			    pid_t tid)
{
	char path[40];
	CPROF_AUTO_FREE char *text = NULL;
	char *pc;
	char *sp;

	snprintf(path, sizeof(path), "task/%d/syscall", (int)tid);
	text = cprof_read_file_at(cprof_target_procfd(target), path, 256, NULL);
	if (!text || strncmp(text, "running", 7) == 0)
		return false;
	pc = strrchr(text, ' ');
	if (!pc)
		return false;
	*pc++ = '\0';
	sp = strrchr(text, ' ');
	return sp && !is_inside(place, strtoull(pc, NULL, 16)) &&
	       !frame_inside(target, place, strtoull(sp + 1, NULL, 16));
}

static void look(const struct cprof_target *target, const struct cprof_place *place,
		 struct seen *seen)
{
	uint64_t now_ns = cpu_ns(target, seen->tid);

	seen->outside = now_ns == UINT64_MAX || /* it ended */
			now_ns > seen->cpu_ns + PROGRESS_NS ||
			blocked_outside(target, place, seen->tid);
}

bool cprof_leave_wait(const struct cprof_target *target, const struct cprof_place *place,
		      uint64_t limit_ns)
{
	uint64_t end = cprof_now_ns() + limit_ns;
	CPROF_AUTO_FREE pid_t *tids = NULL;
	CPROF_AUTO_FREE struct seen *seen = NULL;
	size_t count = 0;
	struct cprof_error *error = cprof_target_threads(target, &tids, &count);

	cprof_error_destroy(error);
	seen = calloc(count + 1, sizeof(*seen));
	if (error || !seen)
		return false;
	for (size_t i = 0; i < count; i++)
		seen[i] = (struct seen){.tid = tids[i], .cpu_ns = cpu_ns(target, tids[i])};
	do {
		size_t left = 0;

		for (size_t i = 0; i < count; i++) {
			if (!seen[i].outside)
				look(target, place, &seen[i]);
			left += !seen[i].outside;
		}
		if (!left && shards_empty(target, place))
			return true;
		usleep(PAUSE_US);
	} while (cprof_now_ns() < end);
	return false;
}
