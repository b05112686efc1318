/* SPDX-License-Identifier: MIT
 *
 * Waits that nobody waits any more. A handler that leaves a wait by longjmp leaves the agent's
 * entry of it; the agent notices when that thread comes again to the same bucket, which it does not
 * if it has ended or does something else. Until then every unlock is charged with a wait that is
 * none, and a bucket full of them leaves no room for others.
 *
 * A thread may end and another have its number by now: then its entry stays.
 */
#include "contention.h"

#include <cprof/util.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define YOUNG_NS  500000000ull /* a wait before it is looked at */
#define LOOKS     2            /* in a row that must not find it */
#define MOST      256          /* threads that one check looks at */
#define LOCK_SIZE 64           /* no lock is larger */

struct tid_pair {
	uint32_t inner; /* as the target has it */
	pid_t outer;
};
struct tids {
	struct tid_pair *pairs;
	size_t count;
};

static bool is_other_namespace(const struct cprof_target *target)
{
	const struct cprof_target_info *info = cprof_target_info(target);
	struct stat ours;

	return stat("/proc/self/ns/pid", &ours) != 0 || ours.st_dev != info->pid_ns_dev ||
	       ours.st_ino != info->pid_ns_ino;
}

static char *read_of_thread(const struct cprof_target *target, pid_t tid, const char *name)
{
	char path[64];

	snprintf(path, sizeof(path), "task/%d/%s", (int)tid, name);
	return cprof_read_file_at(cprof_target_procfd(target), path, 65536, NULL);
}

/* The last number of "NSpid:"; 0 unknown. */
static uint32_t inner_tid(const struct cprof_target *target, pid_t tid)
{
	CPROF_AUTO_FREE char *status = read_of_thread(target, tid, "status");
	char *line = status ? strstr(status, "\nNSpid:") : NULL;
	char *end = line ? strchr(line + 1, '\n') : NULL;

	if (!end)
		return 0;
	*end = '\0';
	line = strrchr(line, '\t');
	return line ? (uint32_t)strtoul(line, NULL, 10) : 0;
}

/* False where not all are known. */
static bool read_tids(const struct cprof_target *target, struct tids *tids)
{
	CPROF_AUTO_FREE pid_t *outer = NULL;
	bool other = is_other_namespace(target);
	struct cprof_error *error = cprof_target_threads(target, &outer, &tids->count);

	tids->pairs = error || !tids->count ? NULL : calloc(tids->count, sizeof(*tids->pairs));
	cprof_error_destroy(error);
	if (!tids->pairs)
		return false;
	for (size_t i = 0; i < tids->count; i++) {
		tids->pairs[i].outer = outer[i];
		tids->pairs[i].inner = other ? inner_tid(target, outer[i]) : (uint32_t)outer[i];
	}
	return true;
}

/* Whether a thread sleeps in a system call that is not this wait: one restarted has another number,
 * but the same address to wait at. A handler may sleep on top of the wait, but hardly for long. */
static bool is_elsewhere(const struct cprof_target *target, pid_t tid, uint64_t lock)
{
	CPROF_AUTO_FREE char *text = read_of_thread(target, tid, "syscall");
	unsigned long long futex;

	/* number, arguments, sp, pc; "running"; or -1, sp, pc */
	return text && text[0] != '-' && sscanf(text, "%*d 0x%llx", &futex) == 1 &&
	       (futex < lock || futex >= lock + LOCK_SIZE);
}

static bool is_absent(const struct cprof_target *target, const struct tids *tids, uint32_t tid,
		      uint64_t lock)
{
	for (size_t i = 0; i < tids->count; i++)
		if (tids->pairs[i].inner == tid)
			return is_elsewhere(target, tids->pairs[i].outer, lock);
	return true;
}

/* The entry is the target's: it may do the same at this moment, or have another wait there. What
 * unlocks have been charged with was waited for all that is known. */
static void end(struct cprof_contention *contention, struct cprof_contention_wait *wait,
		struct cprof_agent_wait *entry, uint64_t now)
{
	struct cprof_agent_shared *shared = contention->records->shared;
	uint64_t address = contention->locks[wait->lock]->address;
	uint64_t charged = __atomic_load_n(&entry->charged_ns, __ATOMIC_ACQUIRE);
	uint32_t state = __atomic_load_n(&entry->state, __ATOMIC_ACQUIRE);
	uint32_t fresh = CPROF_AGENT_WAIT_STATE(wait->id, CPROF_AGENT_WAIT_FRESH);

	if ((state != fresh &&
	     state != CPROF_AGENT_WAIT_STATE(wait->id, CPROF_AGENT_WAIT_CHARGED)) ||
	    !__atomic_compare_exchange_n(&entry->state, &state, CPROF_AGENT_WAIT_OVER, false,
					 __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
		return;
	__atomic_sub_fetch(
		&shared->waiting[(address >> CPROF_AGENT_LOCK_SHIFT) % CPROF_AGENT_LOCK_BUCKETS],
		state == fresh ? CPROF_AGENT_ONE_FRESH : CPROF_AGENT_ONE_CHARGED, __ATOMIC_ACQ_REL);
	__atomic_store_n(&entry->lock, 0, __ATOMIC_RELEASE);
	if (charged < wait->began_ns || charged > now)
		charged = wait->began_ns;
	cprof_contention_settle(contention, wait, charged - wait->began_ns);
}

void cprof_contention_end_gone(struct cprof_contention *contention)
{
	const struct cprof_target *target = cprof_space_target(contention->records->space);
	struct cprof_contention_wait *wait;
	struct cprof_contention_wait *next;
	struct tids tids = {0};
	uint64_t now = cprof_target_time_ns(target, cprof_now_ns());
	unsigned looks = 0;

	HASH_ITER(hh, contention->waits, wait, next)
	{
		struct cprof_agent_wait *entry;

		if (!target || looks == MOST)
			break;
		if (!wait->tid || now < wait->began_ns + YOUNG_NS)
			continue;
		entry = cprof_contention_entry(contention, wait);
		if (!entry)
			continue;
		if (looks++ == 0 && !read_tids(target, &tids))
			break;
		wait->absent =
			is_absent(target, &tids, wait->tid, contention->locks[wait->lock]->address)
				? wait->absent + 1
				: 0;
		if (wait->absent >= LOOKS)
			end(contention, wait, entry, now);
	}
	free(tids.pairs);
}
