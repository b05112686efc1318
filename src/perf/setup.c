/* SPDX-License-Identifier: MIT
 *
 * The rings: one per CPU that is online, as large as the mlock allowance permits.
 */
#include "private.h"
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>

#define RING_DEFAULT (4u << 20)
#define RING_MIN     (64u << 10)  /* an eighth of it is the smallest useful stack dump */
#define RING_MANY    (512u << 10) /* not below this just because there are many CPUs */
#define RINGS_TOTAL  (64u << 20)
#define CPUS_ONLINE  "/sys/devices/system/cpu/online"
#define CPUS_MAX     65536
/* Of each CPU when stack dumps are resized: two rings, what tells of waits, old and new clocks. */
#define DESCRIPTORS_CPU   16
#define DESCRIPTORS_SPARE 128 /* for everything else we open */

/* Fills perf->cpus from a list like "0-3,8"; returns how many, 0 if it cannot be read. */
static size_t cpus_read(struct cprof_perf *perf)
{
	FILE CPROF_AUTO_FCLOSE *stream = fopen(CPUS_ONLINE, "re");
	size_t capacity = 0;
	size_t count = 0;
	unsigned first;

	while (stream && fscanf(stream, "%u", &first) == 1) {
		unsigned last = first;

		if (fscanf(stream, "-%u", &last) < 0 || last >= CPUS_MAX)
			last = CPROF_MIN(first, CPUS_MAX - 1u);
		for (unsigned cpu = first; cpu <= last; cpu++) {
			if (!cprof_grow(&perf->cpus, &capacity, count + 1, sizeof(*perf->cpus)))
				return 0;
			perf->cpus[count++] = cpu;
		}
		if (fgetc(stream) != ',')
			break;
	}
	return count;
}

static struct cprof_error *cpus_find(struct cprof_perf *perf, size_t *count)
{
	long online = sysconf(_SC_NPROCESSORS_ONLN);

	*count = cpus_read(perf);
	if (*count)
		return NULL;
	/* Without sysfs, as in some containers. */
	free(perf->cpus);
	*count = online > 0 ? (size_t)online : 1;
	perf->cpus = calloc(*count, sizeof(*perf->cpus));
	if (!perf->cpus)
		return cprof_error_nomem();
	for (size_t i = 0; i < *count; i++)
		perf->cpus[i] = (unsigned)i;
	return NULL;
}

/* Records of waits or switches carry the times, FORK records the number of births: they get rings
 * of their own, where stacks cannot fill them. */
static bool apart(const struct cprof_perf *perf)
{
	return cprof_perf_is_traced(perf);
}

static bool has_switches(const struct cprof_perf *perf)
{
	return perf->config.clock == CPROF_PERF_SWITCHES;
}

/* 150,000 switches a second on a CPU are 17 MB of records, if each is told. Otherwise it is stacks
 * that come in bursts. */
static bool ring_is_large(const struct cprof_perf *perf, const struct cprof_ring *ring)
{
	bool all = has_switches(perf) && (perf->way == CPROF_PERF_PER_THREAD || !perf->config.rate);

	return apart(perf) && ring->records == all;
}

/* Opens the dummy that owns the ring of a CPU. It wakes us when a quarter of the ring is full. */
static int owner_open(struct cprof_perf *perf, const struct cprof_ring *ring, size_t size)
{
	/* A dummy on ourselves never ends, as one on a thread of the target would. */
	pid_t pid = perf->way == CPROF_PERF_CPU_WIDE ? -1 : getpid();
	struct perf_event_attr attr;
	int fd;

	cprof_event_attr_dummy(perf, &attr);
	attr.wakeup_watermark = (uint32_t)(size / 4);
	if (apart(perf) && !ring->records)
		attr.mmap = attr.mmap2 = attr.comm = attr.comm_exec = attr.task = 0;
	fd = cprof_event_open(&attr, pid, (int)ring->cpu);
	if (fd == -EINVAL && perf->has_format_lost) { /* before Linux 6.0 */
		perf->has_format_lost = false;
		attr.read_format = 0;
		fd = cprof_event_open(&attr, pid, (int)ring->cpu);
	}
	return fd;
}

static void rings_deinit(struct cprof_perf *perf)
{
	for (size_t i = 0; i < perf->ring_count; i++)
		cprof_ring_deinit(&perf->rings[i]);
	perf->ring_count = 0;
}

/* All rings get the same size; `*too_big` when the mlock allowance does not permit it. */
static struct cprof_error *rings_try(struct cprof_perf *perf, size_t cpus, size_t size,
				     bool *too_big)
{
	rings_deinit(perf);
	*too_big = false;
	for (size_t i = 0; i < cpus * (apart(perf) ? 2 : 1); i++) {
		struct cprof_ring *ring = &perf->rings[perf->ring_count];
		int fd;
		int status;

		*ring = (struct cprof_ring){
			.fd = -1,
			.waits = -1,
			.cpu = perf->cpus[i % cpus],
			.records = apart(perf) && i < cpus,
		};
		fd = owner_open(perf, ring, size);

		if (fd == -ENODEV) /* went offline */
			continue;
		if (fd < 0)
			return cprof_event_error(perf, -fd);
		ring->fd = fd;
		perf->ring_count++;
		status = cprof_ring_map(ring, ring_is_large(perf, ring) ? 2 * size : size);
		*too_big = status == -EPERM || status == -ENOMEM;
		if (*too_big)
			return NULL;
		if (status < 0)
			return cprof_error_errno(CPROF_FAILED, -status, NULL,
						 "mapping a perf ring");
	}
	if (!perf->ring_count)
		return cprof_error_errno(CPROF_FAILED, ENODEV, NULL, "no CPU can be sampled");
	return NULL;
}

static struct cprof_error *rings_fit(struct cprof_perf *perf, size_t cpus)
{
	size_t size = RING_DEFAULT;
	bool too_big = true;

	while (size > RING_MANY && size * cpus * (apart(perf) ? 3 : 1) > RINGS_TOTAL)
		size /= 2;
	for (; size >= RING_MIN && too_big; size /= 2)
		CPROF_TRY(rings_try(perf, cpus, size, &too_big));
	if (!too_big) /* by now it is half of what was locked */
		return perf->config.beside_another && size >= RING_MIN && size < RING_DEFAULT / 2
			       ? rings_try(perf, cpus, size, &too_big)
			       : NULL;
	return cprof_error_errno(CPROF_DENIED, EPERM,
				 "raise ulimit -l or sysctl kernel.perf_event_mlock_kb",
				 "no memory may be locked for %zu rings of %u KB "
				 "(kernel.perf_event_mlock_kb is %ld)",
				 cpus, RING_MIN >> 10,
				 cprof_perf_setting("/proc/sys/kernel/perf_event_mlock_kb", 0));
}

bool cprof_descriptors_raise(size_t *total, uint64_t *allowed)
{
	struct rlimit limit;
	struct rlimit more;

	*total += DESCRIPTORS_SPARE;
	if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur >= *total)
		return true;
	*allowed = limit.rlim_max;
	more = (struct rlimit){*total, CPROF_MAX(*total, limit.rlim_max)};
	return setrlimit(RLIMIT_NOFILE, &more) == 0;
}

struct cprof_error *cprof_rings_open(struct cprof_perf *perf)
{
	size_t descriptors;
	uint64_t allowed;
	size_t cpus;

	CPROF_TRY(cpus_find(perf, &cpus));
	/* Where that is not allowed, fewer may do: opening tells. */
	descriptors = cpus * DESCRIPTORS_CPU;
	cprof_descriptors_raise(&descriptors, &allowed);
	perf->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (perf->epoll < 0)
		return cprof_error_errno(CPROF_FAILED, errno, NULL, "epoll_create");
	perf->rings = calloc(2 * cpus, sizeof(*perf->rings));
	if (!perf->rings)
		return cprof_error_nomem();
	CPROF_TRY(rings_fit(perf, cpus));
	for (size_t i = 0; i < perf->ring_count; i++) {
		int fd = perf->rings[i].fd;
		struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};

		if (epoll_ctl(perf->epoll, EPOLL_CTL_ADD, fd, &event) < 0)
			return cprof_error_errno(CPROF_FAILED, errno, NULL, "watching a perf ring");
	}
	return NULL;
}

void cprof_rings_close(struct cprof_perf *perf)
{
	rings_deinit(perf);
	free(cprof_take(perf->rings));
	free(cprof_take(perf->cpus));
	if (perf->epoll >= 0)
		close(perf->epoll);
	perf->epoll = -1;
}
