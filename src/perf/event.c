/* SPDX-License-Identifier: MIT
 *
 * Sampling events: attributes, opening with its fallbacks, counts, and why it was refused.
 */
#include "private.h"
#include <asm/perf_regs.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <time.h>

#define PARANOID       "/proc/sys/kernel/perf_event_paranoid"
#define FILTER_THREADS "clone_flags & 0x10000" /* CLONE_THREAD */

long cprof_perf_setting(const char *path, long missing)
{
	FILE CPROF_AUTO_FCLOSE *stream = fopen(path, "re");
	long value;

	return stream && fscanf(stream, "%ld", &value) == 1 ? value : missing;
}

int cprof_event_open(const struct perf_event_attr *attr, pid_t pid, int cpu)
{
	int fd = (int)syscall(SYS_perf_event_open, attr, pid, cpu, -1, PERF_FLAG_FD_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

/* What all events of a session have in common, the dummies included. */
static void attr_common(const struct cprof_perf *perf, struct perf_event_attr *attr)
{
	*attr = (struct perf_event_attr){
		.size = sizeof(*attr),
		.sample_type = perf->format.sample_type,
		.sample_regs_user = perf->format.regs_mask,
		.sample_stack_user = perf->format.stack_bytes,
		.read_format = perf->has_format_lost ? PERF_FORMAT_LOST : 0,
		.disabled = 1,
		.exclude_kernel = !perf->kernel,
		.exclude_hv = 1,
		.exclude_guest = 1,
		.exclude_callchain_user = 1,
		.sample_id_all = 1,
		.watermark = 1,
		.use_clockid = 1,
		.clockid = CLOCK_MONOTONIC,
	};
}

void cprof_event_attr_dummy(const struct cprof_perf *perf, struct perf_event_attr *attr)
{
	attr_common(perf, attr);
	attr->type = PERF_TYPE_SOFTWARE;
	attr->config = PERF_COUNT_SW_DUMMY;
	attr->exclude_kernel = 1; /* it never samples; asking for less needs less permission */
	if (perf->way == CPROF_PERF_CPU_WIDE)
		attr->mmap = attr->mmap2 = attr->comm = attr->comm_exec = attr->task = 1;
}

static void attr_sampling(const struct cprof_perf *perf, uint64_t period,
			  struct perf_event_attr *attr)
{
	attr_common(perf, attr);
	attr->exclude_idle = 1;
	if (perf->config.clock == CPROF_PERF_CYCLES) {
		attr->type = PERF_TYPE_HARDWARE;
		attr->config = PERF_COUNT_HW_CPU_CYCLES;
		attr->freq = 1;
		attr->sample_freq = perf->config.rate;
	} else if (cprof_perf_is_traced(perf) && perf->way == CPROF_PERF_CPU_WIDE) {
		attr->type = PERF_TYPE_SOFTWARE;
		attr->config = PERF_COUNT_SW_BPF_OUTPUT;
		attr->sample_period = 1;
	} else if (perf->config.clock == CPROF_PERF_SWITCHES) {
		attr->type = PERF_TYPE_SOFTWARE;
		attr->config = PERF_COUNT_SW_CONTEXT_SWITCHES;
		attr->sample_period = 1;
	} else if (perf->config.clock == CPROF_PERF_BIRTHS) {
		attr->type = PERF_TYPE_TRACEPOINT;
		attr->config = perf->tracepoint;
		attr->sample_period = 1;
	} else {
		attr->type = PERF_TYPE_SOFTWARE;
		attr->config = PERF_COUNT_SW_CPU_CLOCK;
		attr->sample_period = period;
	}
	if (perf->way == CPROF_PERF_PER_THREAD) {
		attr->inherit = 1;
		attr->inherit_thread = perf->has_inherit_thread;
		attr->mmap = attr->mmap2 = attr->comm = attr->comm_exec = attr->task =
			!cprof_perf_is_traced(perf);
	}
}

/* Per-thread way: what tells of threads and their switches, in a ring apart from samples. */
static void attr_records(const struct cprof_perf *perf, struct perf_event_attr *attr)
{
	attr_common(perf, attr);
	attr->type = PERF_TYPE_SOFTWARE;
	attr->config = PERF_COUNT_SW_DUMMY;
	attr->inherit = 1;
	attr->inherit_thread = perf->has_inherit_thread;
	attr->context_switch = perf->config.clock == CPROF_PERF_SWITCHES;
	attr->mmap = attr->mmap2 = attr->comm = attr->comm_exec = attr->task = 1;
}

int cprof_event_waits(const struct cprof_perf *perf, const struct cprof_ring *ring)
{
	struct perf_event_attr attr;
	int fd;

	attr_common(perf, &attr);
	attr.type = PERF_TYPE_SOFTWARE;
	attr.config = PERF_COUNT_SW_BPF_OUTPUT;
	attr.sample_period = 1;
	attr.sample_type = perf->wait_format.sample_type;
	attr.sample_regs_user = 0;
	attr.sample_stack_user = 0;
	fd = cprof_event_open(&attr, -1, (int)ring->cpu);
	if (fd >= 0) {
		int status = ioctl(fd, PERF_EVENT_IOC_SET_OUTPUT, ring->fd) < 0
				     ? -errno
				     : cprof_waits_event(perf, ring->cpu, fd);

		if (status < 0) {
			close(fd);
			return status;
		}
	}
	return fd;
}

/* Takes back one wish that this kernel or our rights do not grant; false if none is left. */
static bool wish_less(struct cprof_perf *perf, int errnum)
{
	if ((errnum == EACCES || errnum == EPERM) && perf->kernel &&
	    !cprof_perf_is_traced(perf)) { /* which only the kernel does */
		perf->kernel = false;
		perf->format.sample_type &= ~(uint64_t)PERF_SAMPLE_CALLCHAIN;
		return true;
	}
	if (errnum != EINVAL)
		return false;
	if (perf->has_format_lost) { /* before Linux 6.0 */
		perf->has_format_lost = false;
		return true;
	}
	if (perf->has_inherit_thread && perf->way == CPROF_PERF_PER_THREAD) { /* before 5.13 */
		perf->has_inherit_thread = false;
		return true;
	}
	return false;
}

/* What an event does not sample: other processes; what is born and is no thread. */
static int event_filter(const struct cprof_perf *perf, int fd, const struct cprof_event *event)
{
	int status = 0;

	if (perf->way == CPROF_PERF_CPU_WIDE && !cprof_perf_is_traced(perf))
		status = ioctl(fd, PERF_EVENT_IOC_SET_BPF, perf->bpf_program);
	else if (perf->way == CPROF_PERF_PER_THREAD && perf->config.clock == CPROF_PERF_BIRTHS &&
		 !perf->rings[event->ring].records)
		status = ioctl(fd, PERF_EVENT_IOC_SET_FILTER, FILTER_THREADS);
	return status < 0 ? -errno : 0;
}

/* Redirects the event into its ring, sets the filter and books it. */
static int event_adopt(struct cprof_perf *perf, int fd, struct cprof_event *event)
{
	int status;

	if (ioctl(fd, PERF_EVENT_IOC_SET_OUTPUT, perf->rings[event->ring].fd) < 0 ||
	    ioctl(fd, PERF_EVENT_IOC_ID, &event->id) < 0)
		return -errno;
	status = event_filter(perf, fd, event);
	if (status < 0)
		return status;
	if (perf->enabled && ioctl(fd, PERF_EVENT_IOC_ENABLE, 0) < 0)
		return -errno;
	if (perf->way == CPROF_PERF_CPU_WIDE && cprof_perf_is_traced(perf)) {
		status = cprof_bpf_output(perf, perf->rings[event->ring].cpu, fd);
		if (status < 0)
			return status;
	}
	HASH_ADD(hh, perf->events, id, sizeof(event->id), event);
	return 0;
}

int cprof_event_add(struct cprof_perf *perf, pid_t pid, size_t ring, uint64_t period,
		    struct cprof_event **added)
{
	struct cprof_event *event;
	int status;
	int fd;

	do {
		struct perf_event_attr attr;

		if (perf->rings[ring].records)
			attr_records(perf, &attr);
		else
			attr_sampling(perf, period, &attr);
		fd = cprof_event_open(&attr, pid, (int)perf->rings[ring].cpu);
	} while (fd < 0 && !perf->events && wish_less(perf, -fd));
	if (fd < 0)
		return fd;
	event = calloc(1, sizeof(*event));
	if (!event) {
		close(fd);
		return -ENOMEM;
	}
	event->fd = fd;
	event->ring = ring;
	event->tid = pid;
	event->until = UINT64_MAX;
	event->generation = perf->generation;
	status = event_adopt(perf, fd, event);
	if (status < 0) {
		close(fd);
		free(event);
	} else if (added) {
		*added = event;
	}
	return status;
}

void cprof_event_tally(const struct cprof_perf *perf, const struct cprof_event *event,
		       uint64_t *count, uint64_t *lost)
{
	uint64_t ignored = 0;

	/* A bridge may run on a little after what it counts for: its losses are not ours. */
	cprof_event_read(perf, event->fd, count, event->bridge ? &ignored : lost);
}

void cprof_event_read(const struct cprof_perf *perf, int fd, uint64_t *count, uint64_t *lost)
{
	uint64_t values[2] = {0};

	if (fd < 0 || read(fd, values, sizeof(values)) < (ssize_t)sizeof(values[0]))
		return;
	*count += values[0];
	*lost += perf->has_format_lost ? values[1] : 0;
}

void cprof_event_retire(struct cprof_perf *perf, struct cprof_event *event, uint64_t until,
			bool keep_count)
{
	uint64_t counted = 0;

	if (event->fd < 0)
		return;
	ioctl(event->fd, PERF_EVENT_IOC_DISABLE, 0);
	cprof_event_tally(perf, event, &counted,
			  perf->rings[event->ring].records ? &perf->retired_lost_records
							   : &perf->retired_lost);
	if (keep_count)
		perf->retired_counted += counted;
	close(event->fd);
	event->fd = -1;
	event->until = until;
}

void cprof_event_forget(struct cprof_perf *perf, struct cprof_event *event)
{
	HASH_DEL(perf->events, event);
	if (event->fd >= 0)
		close(event->fd);
	free(event);
}

static struct cprof_error *error_denied(const struct cprof_perf *perf, int errnum)
{
	long paranoid = cprof_perf_setting(PARANOID, 2);
	pid_t pid = cprof_target_info(perf->target)->pid;

	if (perf->way == CPROF_PERF_CPU_WIDE && paranoid > 0)
		return cprof_error_errno(
			CPROF_DENIED, errnum, "run as root, or with CAP_PERFMON and CAP_BPF",
			"CPU-wide sampling: kernel.perf_event_paranoid is %ld", paranoid);
	if (paranoid > 1 && cprof_perf_is_traced(perf))
		return cprof_error_errno(CPROF_DENIED, errnum,
					 "run as root or with CAP_PERFMON, or allow it: sysctl "
					 "kernel.perf_event_paranoid=1",
					 "%s of pid %d: kernel.perf_event_paranoid is %ld",
					 perf->config.clock == CPROF_PERF_SWITCHES
						 ? "context switches"
						 : "thread creations",
					 (int)pid, paranoid);
	if (paranoid > 2)
		return cprof_error_errno(
			CPROF_DENIED, errnum,
			"run as root, or allow it: sysctl kernel.perf_event_paranoid=2",
			"sampling pid %d: kernel.perf_event_paranoid is %ld", (int)pid, paranoid);
	if (errnum == EPERM)
		return cprof_error_errno(
			CPROF_DENIED, errnum, "run outside the container, or allow perf_event_open",
			"sampling pid %d: perf_event_open is refused (by seccomp or "
			"a security module; kernel.perf_event_paranoid is %ld)",
			(int)pid, paranoid);
	return cprof_error_errno(CPROF_DENIED, errnum,
				 "run as root, or as the user the process belongs to",
				 "sampling pid %d: it may not be traced by us "
				 "(kernel.perf_event_paranoid is %ld)",
				 (int)pid, paranoid);
}

struct cprof_error *cprof_event_error(const struct cprof_perf *perf, int errnum)
{
	pid_t pid = cprof_target_info(perf->target)->pid;

	switch (errnum) {
	case EACCES:
	case EPERM:
		return error_denied(perf, errnum);
	case ENOENT:
	case EOPNOTSUPP:
		if (perf->config.clock == CPROF_PERF_CYCLES)
			return cprof_error_errno(CPROF_DENIED, errnum, "use -e cpu",
						 "no hardware counters here");
		break;
	case ENOSYS:
		return cprof_error_errno(CPROF_DENIED, errnum,
					 "use a kernel with CONFIG_PERF_EVENTS",
					 "this kernel has no perf_event_open");
	case ESRCH:
		return cprof_error_create(CPROF_NO_PROCESS, NULL, "process %d has ended", (int)pid);
	case ENOMEM:
		return cprof_error_nomem();
	case EMFILE:
		return cprof_error_errno(CPROF_FAILED, errnum, "raise ulimit -n", "sampling pid %d",
					 (int)pid);
	}
	return cprof_error_errno(CPROF_FAILED, errnum, NULL, "sampling pid %d", (int)pid);
}

/* Both run for a moment, but a sample counts for one of them only. */
void cprof_events_renew(struct cprof_perf *perf, uint32_t bytes)
{
	uint32_t before = perf->format.stack_bytes;
	struct cprof_event *event;
	struct cprof_event *next;
	struct cprof_error *error;
	uint64_t change;

	/* Those of the last time have no records in the rings any more. */
	HASH_ITER(hh, perf->events, event, next)
	{
		if (event->fd < 0)
			cprof_event_forget(perf, event);
	}
	perf->generation++;
	perf->format.stack_bytes = bytes;
	error = perf->way == CPROF_PERF_CPU_WIDE ? cprof_cpuwide_open(perf)
						 : cprof_perthread_open(perf);
	change = cprof_now_ns();
	HASH_ITER(hh, perf->events, event, next)
	{
		bool fresh = event->generation == perf->generation;

		if (fresh && error)
			cprof_event_retire(perf, event, 0, false);
		else if (fresh)
			event->from = change;
		else if (!error)
			cprof_event_retire(perf, event, change, true);
	}
	if (error)
		perf->format.stack_bytes = before;
	cprof_error_destroy(error);
	perf->renewed_at = change;
}
