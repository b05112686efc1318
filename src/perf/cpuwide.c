/* SPDX-License-Identifier: MIT
 *
 * The CPU-wide way: sampling events on every CPU, filtered by BPF.
 *
 * One clock per CPU would tick at equal distances, and a target that works in cycles of about the
 * same length (100 times a second, say) would be met at the same point of its cycle for seconds.
 * So four clocks of a quarter of the rate each run side by side, at periods without a common
 * measure: no cycle is in step with more than one of them, and no more interrupts are needed. Every
 * thousand periods they start anew at other speeds, so that none stays in step for long.
 *
 *   rate * P_i / 4 = 1 / SPEED_i, sum of SPEED_i / 4 = 1: a sample of any of them weighs one period
 *
 * Each clock first ticks a full (quarter-rate) period after its start: half a sample a clock would
 * be missing at the end, and the first sample would come late. A fifth clock, of the full rate,
 * bridges that: it counts for the first two periods only.
 */
#include "private.h"
#include <errno.h>
#include <sys/random.h>

#define CLOCKS        4
#define RENEW_PERIODS 1000

/* Four speeds with the sum CLOCKS: well apart, and each time others by up to a twentieth. */
static void draw_speeds(double speeds[CLOCKS])
{
	static const double middle[CLOCKS] = {1.17, 1.05, 0.94, 0.84};
	uint16_t random[CLOCKS] = {0};
	double sum = 0;

	if (getrandom(random, sizeof(random), GRND_NONBLOCK) < 0)
		random[0] = (uint16_t)cprof_now_ns();
	for (size_t i = 0; i < CLOCKS; i++) {
		speeds[i] = middle[i] * (0.95 + 0.1 * random[i] / UINT16_MAX);
		sum += speeds[i];
	}
	for (size_t i = 0; i < CLOCKS; i++)
		speeds[i] *= CLOCKS / sum;
}

/* Nothing is sampled into it. Where waits are summed up, it is told there how long each was. */
static int records_open(const struct cprof_perf *perf, struct cprof_ring *ring)
{
	int fd;

	if (!perf->waits || ring->waits >= 0)
		return 0;
	fd = cprof_event_waits(perf, ring);
	ring->waits = CPROF_MAX(fd, -1);
	return CPROF_MIN(fd, 0);
}

static int ring_open(struct cprof_perf *perf, size_t ring)
{
	uint64_t slow = CLOCKS * perf->period;
	struct cprof_event *bridge;
	double speeds[CLOCKS];
	int status;

	if (perf->rings[ring].records)
		return records_open(perf, &perf->rings[ring]);
	/* The period of cycles varies by itself, switches have none. */
	if (perf->config.clock != CPROF_PERF_CPU_CLOCK)
		return cprof_event_add(perf, -1, ring, perf->period, NULL);
	status = cprof_event_add(perf, -1, ring, perf->period, &bridge);
	if (status < 0)
		return status;
	bridge->bridge = true;
	draw_speeds(speeds);
	for (size_t i = 0; i < CLOCKS && status == 0; i++)
		status =
			cprof_event_add(perf, -1, ring, (uint64_t)((double)slow / speeds[i]), NULL);
	return status;
}

struct cprof_error *cprof_cpuwide_open(struct cprof_perf *perf)
{
	for (size_t i = 0; i < perf->ring_count; i++) {
		int status = ring_open(perf, i);

		if (status < 0 && status != -ENODEV)
			return cprof_event_error(perf, -status);
	}
	if (perf->enabled)
		cprof_cpuwide_started(perf, cprof_now_ns());
	return NULL;
}

void cprof_cpuwide_started(struct cprof_perf *perf, uint64_t now)
{
	for (struct cprof_event *event = perf->events; event; event = event->hh.next)
		if (event->bridge && event->fd >= 0)
			event->until = now + CLOCKS * perf->period / 2;
}

void cprof_cpuwide_settle(struct cprof_perf *perf, uint64_t now)
{
	for (struct cprof_event *event = perf->events; event; event = event->hh.next)
		if (event->bridge && event->fd >= 0 && event->until <= now)
			cprof_event_retire(perf, event, event->until, false);
	if (perf->way == CPROF_PERF_CPU_WIDE && perf->config.clock == CPROF_PERF_CPU_CLOCK &&
	    perf->enabled && now > perf->renewed_at + RENEW_PERIODS * perf->period)
		cprof_events_renew(perf, perf->format.stack_bytes);
}
