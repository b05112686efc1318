/* SPDX-License-Identifier: MIT
 *
 * A session: which way, opening, draining all rings in the order of time, statistics.
 */
#include "private.h"
#include <asm/perf_regs.h>
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

#define RATE_MAX "/proc/sys/kernel/perf_event_max_sample_rate"
/* A record becomes visible this long after the time in it at most (a stack copy, an interrupt). */
#define MARGIN_NS 1000000ull
/* Events are read this often at most: there may be thousands. */
#define READ_EVERY_NS 1000000000ull

#define REG_BITS(first, last) ((2ull << (last)) - (1ull << (first)))

const char *cprof_perf_way_name(enum cprof_perf_way way)
{
	return way == CPROF_PERF_CPU_WIDE     ? "cpu-wide"
	       : way == CPROF_PERF_PER_THREAD ? "per-thread"
					      : "auto";
}

unsigned cprof_perf_stratum_of(uint64_t ns, bool preempted)
{
	unsigned stratum = 0;

	if (preempted)
		return CPROF_PERF_STRATUM_RUNQ;
	for (ns >>= CPROF_PERF_STRATUM_FIRST; ns && stratum < CPROF_PERF_STRATUM_RUNQ - 1;
	     ns >>= CPROF_PERF_STRATUM_BITS)
		stratum++;
	return stratum;
}

/* --- opening ------------------------------------------------------------------------------- */

static void format_init(struct cprof_perf *perf)
{
	struct cprof_perf_format *format = &perf->format;

	*format = (struct cprof_perf_format){
		.sample_type = PERF_SAMPLE_IDENTIFIER | PERF_SAMPLE_TID | PERF_SAMPLE_TIME |
			       PERF_SAMPLE_CPU,
		.sample_id_all = true,
	};
	if (!cprof_perf_is_traced(perf))
		format->sample_type |= PERF_SAMPLE_PERIOD;
	if (perf->way == CPROF_PERF_CPU_WIDE && perf->config.clock == CPROF_PERF_SWITCHES)
		format->sample_type |= PERF_SAMPLE_RAW;
	else if (perf->kernel && perf->config.clock != CPROF_PERF_BIRTHS)
		format->sample_type |= PERF_SAMPLE_CALLCHAIN;
	perf->wait_format = *format;
	perf->wait_format.only_waits = true;
	if (perf->config.user_stack) {
		format->sample_type |= PERF_SAMPLE_REGS_USER | PERF_SAMPLE_STACK_USER;
		format->regs_mask = REG_BITS(PERF_REG_X86_AX, PERF_REG_X86_IP) |
				    REG_BITS(PERF_REG_X86_R8, PERF_REG_X86_R15);
	}
}

static void way_close(struct cprof_perf *perf)
{
	struct cprof_event *event;
	struct cprof_event *next;

	HASH_ITER(hh, perf->events, event, next)
	{
		cprof_event_forget(perf, event);
	}
	cprof_perthread_close(perf);
	cprof_rings_close(perf);
	cprof_bpf_close(perf);
}

static struct cprof_error *way_open(struct cprof_perf *perf, enum cprof_perf_way way)
{
	perf->way = way;
	/* Of switches, what happens in the kernel says what is waited for. */
	perf->kernel = perf->config.kernel || cprof_perf_is_traced(perf);
	perf->has_format_lost = perf->has_inherit_thread = true;
	format_init(perf);
	if (way == CPROF_PERF_PER_THREAD && perf->config.clock == CPROF_PERF_BIRTHS)
		CPROF_TRY(cprof_tracepoint_find("task/task_newtask", &perf->tracepoint));
	CPROF_TRY(cprof_rings_open(perf));
	if (way == CPROF_PERF_CPU_WIDE)
		CPROF_TRY(cprof_bpf_open(perf));
	cprof_stack_init(perf);
	return way == CPROF_PERF_CPU_WIDE ? cprof_cpuwide_open(perf) : cprof_perthread_open(perf);
}

static struct cprof_error *ways_open(struct cprof_perf *perf)
{
	enum cprof_perf_way way = perf->config.way;
	struct cprof_error *error;

	if (way != CPROF_PERF_AUTO)
		return way_open(perf, way);
	error = way_open(perf, CPROF_PERF_CPU_WIDE);
	/* Without descriptors the other way, which needs more, is no help. */
	if (!error || error->errnum == EMFILE || error->errnum == ENFILE)
		return error;
	perf->way_reason = strdup(error->message);
	cprof_error_destroy(error);
	way_close(perf);
	return way_open(perf, CPROF_PERF_PER_THREAD);
}

static struct cprof_error *rate_check(unsigned rate)
{
	long most = cprof_perf_setting(RATE_MAX, 100000);

	if (!rate)
		return cprof_error_create(CPROF_USAGE, NULL, "a sampling rate of 0");
	if (most > 0 && rate > (unsigned long)most)
		return cprof_error_create(CPROF_DENIED, "lower the rate, or raise it by sysctl",
					  "rate %u: kernel.perf_event_max_sample_rate is %ld", rate,
					  most);
	return NULL;
}

struct cprof_error *cprof_perf_create(const struct cprof_target *target,
				      const struct cprof_perf_config *config,
				      struct cprof_perf **out)
{
	struct cprof_perf *perf;
	struct cprof_error *error;

	bool traced = config->clock == CPROF_PERF_SWITCHES || config->clock == CPROF_PERF_BIRTHS;

	if (!traced)
		CPROF_TRY(rate_check(config->rate));
	perf = calloc(1, sizeof(*perf));
	if (!perf)
		return cprof_error_nomem();
	perf->target = target;
	perf->config = *config;
	perf->period = traced ? 1 : 1000000000ull / config->rate;
	perf->epoll = perf->bpf_map = perf->bpf_program = -1;
	perf->bpf_outputs = perf->bpf_link = -1;
	error = ways_open(perf);
	if (error) {
		cprof_perf_destroy(perf);
		return error;
	}
	*out = perf;
	return NULL;
}

void cprof_perf_destroy(struct cprof_perf *perf)
{
	if (!perf)
		return;
	way_close(perf);
	free(perf->way_reason);
	free(perf);
}

struct cprof_error *cprof_perf_enable(struct cprof_perf *perf)
{
	struct cprof_event *event;
	struct cprof_event *next;

	/* Rings' owners first: they tell of mappings and threads from here on. */
	for (size_t i = 0; i < perf->ring_count; i++)
		if (ioctl(perf->rings[i].fd, PERF_EVENT_IOC_ENABLE, 0) < 0)
			return cprof_event_error(perf, errno);
	HASH_ITER(hh, perf->events, event, next)
	{
		if (event->fd >= 0 && ioctl(event->fd, PERF_EVENT_IOC_ENABLE, 0) < 0)
			return cprof_event_error(perf, errno);
	}
	for (size_t i = 0; i < perf->ring_count; i++)
		if (perf->rings[i].waits >= 0 &&
		    ioctl(perf->rings[i].waits, PERF_EVENT_IOC_ENABLE, 0) < 0)
			return cprof_event_error(perf, errno);
	perf->enabled = true;
	perf->stack_since = cprof_now_ns();
	perf->renewed_at = perf->stack_since;
	cprof_cpuwide_started(perf, perf->stack_since);
	return NULL;
}

void cprof_perf_disable(struct cprof_perf *perf)
{
	struct cprof_event *event;
	struct cprof_event *next;

	if (perf->waits) /* the sums stay as they are */
		cprof_bpf_detach(perf);
	HASH_ITER(hh, perf->events, event, next)
	{
		if (event->fd >= 0)
			ioctl(event->fd, PERF_EVENT_IOC_DISABLE, 0);
	}
	for (size_t i = 0; i < perf->ring_count; i++)
		ioctl(perf->rings[i].fd, PERF_EVENT_IOC_DISABLE, 0);
	perf->enabled = false;
	perf->read_at = 0;
}

int cprof_perf_fd(const struct cprof_perf *perf)
{
	return perf->epoll;
}

struct cprof_error *cprof_perf_rescan(struct cprof_perf *perf)
{
	return perf->way == CPROF_PERF_PER_THREAD ? cprof_perthread_rescan(perf) : NULL;
}

/* --- draining ------------------------------------------------------------------------------ */

static bool sample_counts(struct cprof_perf *perf, const struct cprof_perf_record *record)
{
	struct cprof_event *event;

	HASH_FIND(hh, perf->events, &record->sample.id, sizeof(record->sample.id), event);
	if (event && perf->config.clock == CPROF_PERF_BIRTHS) /* the FORK records tell how many */
		return true;
	if (!event || record->time < event->from || record->time >= event->until)
		return false;
	return perf->way == CPROF_PERF_CPU_WIDE || cprof_perthread_accept(perf, record, event);
}

/* Notes what concerns us; false if the record is not for the handler. */
static bool record_concerns(struct cprof_perf *perf, struct cprof_perf_record *record)
{
	bool per_thread = perf->way == CPROF_PERF_PER_THREAD;

	switch (record->type) {
	case CPROF_PERF_LOST:
		perf->ring_lost += record->lost.count;
		return true;
	case CPROF_PERF_THROTTLE:
		return true;
	case CPROF_PERF_OTHER:
		return false;
	default:
		break;
	}
	if (record->type == CPROF_PERF_WAIT)
		return cprof_waits_told(perf, record);
	if (record->pid != cprof_target_info(perf->target)->pid)
		return false;
	if (record->tid <= 0) /* a thread past its end, that only has to leave its CPU */
		return false;
	if (record->type == CPROF_PERF_SAMPLE) {
		perf->thin_samples += record->time >= perf->thin_looked;
		return sample_counts(perf, record);
	}
	if (record->type == CPROF_PERF_EXIT)
		cprof_waits_ended(perf, record->tid);
	if (per_thread && record->type == CPROF_PERF_FORK)
		cprof_perthread_started(perf, record->tid);
	if (per_thread && record->type == CPROF_PERF_EXIT)
		cprof_perthread_ended(perf, record->tid);
	return true;
}

/* The ring whose next record is the oldest of all and older than `horizon`. */
static struct cprof_ring *ring_oldest(struct cprof_perf *perf, uint64_t horizon)
{
	struct cprof_ring *oldest = NULL;

	for (size_t i = 0; i < perf->ring_count; i++) {
		struct cprof_ring *ring = &perf->rings[i];

		if (!cprof_ring_next(ring, ring->waits >= 0 ? &perf->wait_format : &perf->format) ||
		    ring->record.time >= horizon)
			continue;
		if (!oldest || ring->record.time < oldest->record.time)
			oldest = ring;
	}
	return oldest;
}

/* A sample can tell of the wait before its own. */
static void hand_out_wait(struct cprof_perf *perf, const struct cprof_perf_record *record,
			  void (*handler)(void *, const struct cprof_perf_record *), void *context)
{
	struct cprof_perf_record wait = {
		.type = CPROF_PERF_WAIT,
		.pid = record->pid,
		.tid = record->tid,
		.time = record->time,
		.cpu = record->cpu,
		.wait = record->sample.before,
	};

	if (record_concerns(perf, &wait))
		handler(context, &wait);
}

void cprof_perf_drain(struct cprof_perf *perf, bool final,
		      void (*handler)(void *context, const struct cprof_perf_record *record),
		      void *context)
{
	/* Taken before the heads: what is older and not yet visible was written late. */
	uint64_t horizon = final ? UINT64_MAX : cprof_now_ns() - MARGIN_NS;
	struct cprof_ring *ring;

	for (size_t i = 0; i < perf->ring_count; i++)
		cprof_ring_refresh(&perf->rings[i]);
	while ((ring = ring_oldest(perf, horizon))) {
		/* Each of several clocks ticks more slowly: see cpuwide.c. */
		if (ring->record.type == CPROF_PERF_SAMPLE &&
		    perf->config.clock == CPROF_PERF_CPU_CLOCK)
			ring->record.sample.period = perf->period;
		if (ring->record.type == CPROF_PERF_LOST)
			ring->record.lost.records = ring->records;
		if (ring->record.type == CPROF_PERF_SAMPLE && ring->record.sample.before.from)
			hand_out_wait(perf, &ring->record, handler, context);
		if (record_concerns(perf, &ring->record))
			handler(context, &ring->record);
		cprof_ring_consume(ring);
	}
	cprof_cpuwide_settle(perf, cprof_now_ns());
	cprof_thin_adapt(perf);
	cprof_stack_adapt(perf);
}

/* --- statistics ---------------------------------------------------------------------------- */

static void events_read(struct cprof_perf *perf)
{
	uint64_t ignored = 0;
	struct cprof_event *event;
	struct cprof_event *next;

	perf->read_lost = perf->read_counted = 0;
	perf->read_lost_records = cprof_waits_unknown(perf);
	HASH_ITER(hh, perf->events, event, next)
	{
		bool records = perf->rings[event->ring].records;

		cprof_event_tally(perf, event, &perf->read_counted,
				  records ? &perf->read_lost_records : &perf->read_lost);
	}
	for (size_t i = 0; i < perf->ring_count; i++) {
		cprof_event_read(perf, perf->rings[i].fd, &ignored, &perf->read_lost_records);
		cprof_event_read(perf, perf->rings[i].waits, &ignored, &perf->read_lost_records);
	}
}

static uint64_t lost_samples(const struct cprof_perf *perf)
{
	return perf->has_format_lost ? perf->retired_lost + perf->read_lost : perf->ring_lost;
}

void cprof_perf_count_from(struct cprof_perf *perf, uint64_t time)
{
	cprof_waits_begin(perf, time);
	events_read(perf);
	perf->lost_before = lost_samples(perf);
}

void cprof_perf_stats(struct cprof_perf *perf, struct cprof_perf_stats *stats)
{
	static const char *const clocks[] = {
		[CPROF_PERF_CPU_CLOCK] = "cpu-clock",
		[CPROF_PERF_CYCLES] = "cycles",
		[CPROF_PERF_SWITCHES] = "context-switches",
		[CPROF_PERF_BIRTHS] = "task_newtask",
	};
	bool cpu_clock = perf->config.clock == CPROF_PERF_CPU_CLOCK;
	uint64_t now = cprof_now_ns();

	if (!perf->read_at || now >= perf->read_at + READ_EVERY_NS) {
		events_read(perf);
		perf->read_at = now;
	}
	*stats = (struct cprof_perf_stats){
		.way = perf->way,
		.clock = clocks[perf->config.clock],
		.kernel = perf->kernel,
		.period = cpu_clock ? perf->period : 0,
		.lost = lost_samples(perf) - perf->lost_before,
		.lost_records = perf->retired_lost_records + perf->read_lost_records,
		.stack_bytes = perf->format.stack_bytes,
		.events = (uint32_t)perf->ring_count,
		.way_reason = perf->way_reason,
	};
	if (perf->way == CPROF_PERF_PER_THREAD && cpu_clock)
		stats->counted = perf->retired_counted + perf->read_counted;
	for (size_t i = 0; i < perf->ring_count; i++) {
		stats->malformed += perf->rings[i].malformed;
		stats->ring_bytes += perf->rings[i].size;
	}
	for (struct cprof_event *event = perf->events; event; event = event->hh.next)
		stats->events += event->fd >= 0;
}
