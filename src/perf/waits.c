/* SPDX-License-Identifier: MIT
 *
 * Waits, CPU-wide: a thread may switch 100,000 times a second, and a record of each is too much.
 * So they are summed up where they happen, by a program at the tracepoint of switches:
 *  - of each CPU it notes when it last switched: whoever leaves it has had it since then;
 *  - of each thread it notes when it left its CPU. When it leaves one the next time, the wait
 *    between is over and is added to the sums of waits of its length;
 *  - some waits are kept, by chance: at their beginning there is a sample, and when they have
 *    been added a record of their length. How many says thin.c.
 */
#include "waits.h"

#include <errno.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define THREADS_MIN 16384 /* for which there is room, and at most */
#define THREADS_MAX 262144
#define THREADS_NEW 4 /* times as many as there are at first */
/* Before waits count, one sample of each is enough: where it goes on to wait. */
#define LEVEL_BEFORE (2ull << 16)
#define LEAVE_NS     50000000 /* after its end a thread has left its CPU for good */

/* A thread that was told of. */
struct cprof_known {
	uint64_t key;
	pid_t tid;
	uint64_t ended_ns;       /* 0: it lives */
	UT_hash_handle hh;       /* by key */
	UT_hash_handle hh_alive; /* by tid */
};

/* --- its life ------------------------------------------------------------------------------ */

static const uint32_t the_one = 0; /* of an array of one */

static void tell_program(const struct cprof_waits *waits)
{
	const struct control control = {
		.begin_ns = waits->begin_ns,
		.level = waits->begin_ns == UINT64_MAX ? CPROF_MIN(waits->level, LEVEL_BEFORE)
						       : waits->level,
	};

	cprof_bpf_set(waits->control, &the_one, &control);
}

void cprof_waits_level(struct cprof_perf *perf, double samples)
{
	uint64_t level = (uint64_t)CPROF_MIN(samples * 65536, (double)UINT32_MAX);

	if (level == perf->waits->level)
		return;
	perf->waits->level = level;
	tell_program(perf->waits);
}

void cprof_waits_begin(struct cprof_perf *perf, uint64_t time)
{
	if (!perf->waits)
		return;
	perf->waits->begin_ns = time;
	tell_program(perf->waits);
}

static size_t count_threads(const struct cprof_perf *perf)
{
	CPROF_AUTO_FREE pid_t *tids = NULL;
	size_t count = 0;

	cprof_error_destroy(cprof_target_threads(perf->target, &tids, &count));
	return count;
}

static bool maps_create(struct cprof_waits *waits, const struct cprof_perf *perf, size_t threads)
{
	size_t room = CPROF_MIN(CPROF_MAX(threads * THREADS_NEW, (size_t)THREADS_MIN),
				(size_t)THREADS_MAX);
	long cpus = sysconf(_SC_NPROCESSORS_CONF);

	waits->cpu_count = cpus > 0 ? (uint32_t)cpus : 1;
	/* There may be numbers between that no CPU has. */
	for (size_t i = 0; i < perf->ring_count; i++)
		waits->cpu_count = CPROF_MAX(waits->cpu_count, perf->rings[i].cpu + 1);
	waits->states = calloc(waits->cpu_count, sizeof(*waits->states));
	waits->control =
		cprof_bpf_map(BPF_MAP_TYPE_ARRAY, sizeof(uint32_t), sizeof(struct control), 1);
	waits->cpus = cprof_bpf_map(BPF_MAP_TYPE_ARRAY, sizeof(uint32_t), sizeof(struct cpu),
				    waits->cpu_count);
	waits->threads = cprof_bpf_map(BPF_MAP_TYPE_HASH, sizeof(uint64_t), sizeof(struct entry),
				       (uint32_t)room);
	waits->events = cprof_bpf_events(perf);
	return waits->states && waits->control >= 0 && waits->cpus >= 0 && waits->threads >= 0 &&
	       waits->events >= 0;
}

bool cprof_waits_without_raw;

static struct cprof_error *load(struct cprof_perf *perf, bool raw)
{
	perf->waits->raw = raw;
	cprof_bpf_drop(&perf->bpf_program);
	perf->bpf_program = cprof_waits_program(perf);
	return perf->bpf_program < 0 ? cprof_bpf_denied(errno) : NULL;
}

/* At the ordinary tracepoint, of which one event runs it on all CPUs. */
static struct cprof_error *attach_to_record(struct cprof_perf *perf)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_TRACEPOINT,
		.size = sizeof(attr),
		.sample_period = 1,
	};
	uint64_t id;

	CPROF_TRY(load(perf, false));
	CPROF_TRY(cprof_tracepoint_find("sched/sched_switch", &id));
	attr.config = id;
	perf->bpf_link = cprof_event_open(&attr, -1, (int)perf->cpus[0]);
	if (perf->bpf_link < 0)
		return cprof_event_error(perf, -perf->bpf_link);
	if (ioctl(perf->bpf_link, PERF_EVENT_IOC_SET_BPF, perf->bpf_program) < 0 ||
	    ioctl(perf->bpf_link, PERF_EVENT_IOC_ENABLE, 0) < 0)
		return cprof_bpf_denied(errno);
	return NULL;
}

static struct cprof_error *attach(struct cprof_perf *perf)
{
	if (cprof_waits_without_raw)
		return attach_to_record(perf);
	CPROF_TRY(load(perf, true));
	perf->bpf_link = cprof_bpf_attach(perf->bpf_program, "sched_switch");
	if (perf->bpf_link >= 0)
		return NULL;
	/* Before Linux 5.18 it does not tell in what state a task leaves. */
	return errno == EINVAL ? attach_to_record(perf) : cprof_bpf_denied(errno);
}

struct cprof_error *cprof_waits_open(struct cprof_perf *perf)
{
	struct cprof_waits *waits = calloc(1, sizeof(*waits));
	size_t threads = count_threads(perf);

	if (!waits)
		return cprof_error_nomem();
	perf->waits = waits;
	*waits = (struct cprof_waits){-1, -1, -1, -1, .begin_ns = UINT64_MAX, .level = UINT32_MAX};
	if (!maps_create(waits, perf, threads))
		return cprof_bpf_denied(errno);
	tell_program(waits);
	cprof_thin_open(perf, threads);
	return attach(perf);
}

void cprof_waits_close(struct cprof_perf *perf)
{
	struct cprof_waits *waits = perf->waits;
	struct cprof_known *known;
	struct cprof_known *next;

	if (!waits)
		return;
	HASH_CLEAR(hh_alive, waits->alive);
	HASH_ITER(hh, waits->known, known, next)
	{
		HASH_DEL(waits->known, known);
		free(known);
	}
	cprof_bpf_drop(&waits->control);
	cprof_bpf_drop(&waits->cpus);
	cprof_bpf_drop(&waits->threads);
	cprof_bpf_drop(&waits->events);
	free(waits->states);
	free(cprof_take(perf->waits));
}

int cprof_waits_event(const struct cprof_perf *perf, unsigned cpu, int fd)
{
	return cprof_bpf_set(perf->waits->events, &cpu, &fd) < 0 ? -errno : 0;
}

/* --- what it tells ------------------------------------------------------------------------- */

static void set_alive(struct cprof_waits *waits, struct cprof_known *known, pid_t tid)
{
	if (known->ended_ns)
		waits->ended--;
	else if (known->tid)
		HASH_DELETE(hh_alive, waits->alive, known);
	known->tid = tid;
	known->ended_ns = 0;
	HASH_ADD(hh_alive, waits->alive, tid, sizeof(known->tid), known);
}

static void set_ended(struct cprof_waits *waits, struct cprof_known *known)
{
	HASH_DELETE(hh_alive, waits->alive, known);
	known->ended_ns = cprof_now_ns();
	waits->ended++;
}

static struct cprof_known *find_alive(const struct cprof_waits *waits, pid_t tid)
{
	struct cprof_known *known;

	HASH_FIND(hh_alive, waits->alive, &tid, sizeof(tid), known);
	return known;
}

static struct cprof_known *find_known(const struct cprof_waits *waits, uint64_t key)
{
	struct cprof_known *known;

	HASH_FIND(hh, waits->known, &key, sizeof(key), known);
	return known;
}

/* What is told first of a thread, with its number as we see it. Another one may have had either. */
static struct cprof_known *get_to_know(struct cprof_waits *waits, uint64_t key, pid_t tid)
{
	struct cprof_known *known = find_known(waits, key);
	struct cprof_known *former = find_alive(waits, tid);

	if (former && former != known)
		set_ended(waits, former);
	if (!known) {
		known = calloc(1, sizeof(*known));
		if (!known)
			return NULL;
		known->key = key;
		HASH_ADD(hh, waits->known, key, sizeof(known->key), known);
	}
	set_alive(waits, known, tid);
	return known;
}

bool cprof_waits_told(struct cprof_perf *perf, struct cprof_perf_record *record)
{
	const struct cprof_known *known;

	if (!perf->waits)
		return false;
	/* One past its end tells its last wait: it has no number any more. */
	known = record->wait.from ? find_known(perf->waits, record->wait.key)
				  : get_to_know(perf->waits, record->wait.key, record->tid);
	if (!known)
		return false;
	record->pid = cprof_target_info(perf->target)->pid;
	record->tid = known->tid;
	return true;
}

void cprof_waits_ended(struct cprof_perf *perf, pid_t tid)
{
	struct cprof_known *known = perf->waits ? find_alive(perf->waits, tid) : NULL;

	if (known)
		set_ended(perf->waits, known);
}

/* --- sums ---------------------------------------------------------------------------------- */

static void look_at_cpus(struct cprof_waits *waits)
{
	for (uint32_t cpu = 0; cpu < waits->cpu_count; cpu++)
		if (cprof_bpf_get(waits->cpus, &cpu, &waits->states[cpu]) < 0)
			waits->states[cpu] = (struct cpu){0};
}

/* Since when it has a CPU, 0: it has none. */
static uint64_t running_since(const struct cprof_waits *waits, uint64_t key,
			      const struct entry *entry)
{
	uint64_t who = waits->raw ? entry->task : (uint32_t)key;

	for (uint32_t cpu = 0; cpu < waits->cpu_count; cpu++)
		if (waits->states[cpu].comes == who &&
		    waits->states[cpu].switched_ns >= entry->out_ns)
			return waits->states[cpu].switched_ns;
	return 0;
}

static bool is_over(const struct cprof_known *known, uint64_t now)
{
	return known->ended_ns && known->ended_ns + LEAVE_NS < now;
}

void cprof_perf_waits(struct cprof_perf *perf, bool all, cprof_perf_waits_handler *handler,
		      void *context)
{
	struct cprof_waits *waits = perf->waits;
	uint64_t now = cprof_now_ns();
	struct cprof_known *known;
	struct cprof_known *next;

	if (!waits || (!all && !waits->ended))
		return;
	/* First: who has one now and is out when its entry is read counts as out. */
	if (all)
		look_at_cpus(waits);
	HASH_ITER(hh, waits->known, known, next)
	{
		bool over = is_over(known, now);
		struct entry entry;

		if ((all || over) && cprof_bpf_get(waits->threads, &known->key, &entry) == 0) {
			struct cprof_perf_waits told = {
				.tid = known->tid,
				.ended = known->ended_ns,
				.out_ns = entry.out_ns,
				.in_ns = over ? 0 : running_since(waits, known->key, &entry),
				.preempted = entry.flags & CPROF_WAIT_PREEMPTED,
				.sampled = entry.flags & CPROF_WAIT_KEPT,
			};

			memcpy(told.strata, entry.strata, sizeof(told.strata));
			handler(context, &told);
		}
		if (over) {
			cprof_bpf_delete(waits->threads, &known->key);
			HASH_DEL(waits->known, known);
			free(known);
			waits->ended--;
		}
	}
}

uint64_t cprof_waits_unknown(const struct cprof_perf *perf)
{
	uint64_t sum = 0;

	if (!perf->waits)
		return 0;
	look_at_cpus(perf->waits);
	for (uint32_t cpu = 0; cpu < perf->waits->cpu_count; cpu++)
		sum += perf->waits->states[cpu].unknown;
	return sum;
}
