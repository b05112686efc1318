/* SPDX-License-Identifier: MIT
 *
 * How many bytes of stack a sample copies. It starts with as much as fits, so that no sample is
 * spent truncated. Where the rate makes copying expensive it shrinks to twice what stacks needed,
 * and grows back at once when one was cut off. It also shrinks as soon as a ring overflows.
 * Switches come so fast that this is done sooner for them, and more exactly.
 */
#include "private.h"

#define STACK_MIN   8192u
#define STACK_UNIT  4096u
#define STACK_FIRST 16384u /* for what is traced, as the next */
#define STACK_SMALL 1024u  /* least of births */
#define STACK_FINE  256u   /* least of switches, and the unit */
#define GROWTH      4
/* A record is shorter than 64 KB; this leaves room for registers and a kernel chain of 127. */
#define STACK_MAX     64240u
#define RATE_FREE     199 /* up to here 64 KB cost nothing that can be measured */
#define HOLD_NS       3000000000ull
#define HOLD_SHORT_NS 200000000ull
#define BURST_NS      20000000ull
#define HOLD_MAX_NS   96000000000ull

void cprof_stack_init(struct cprof_perf *perf)
{
	/* One dump takes an eighth of its ring at most, or a few would fill it. The first rings may
	 * be for records. */
	size_t limit = CPROF_MIN(STACK_MAX, perf->rings[perf->ring_count - 1].size / 8);

	if (perf->config.stack_bytes)
		limit = CPROF_MIN(limit, CPROF_MAX(perf->config.stack_bytes, 8u));
	perf->stack_limit = limit & ~(size_t)7;
	perf->stack_hold = perf->config.clock == CPROF_PERF_BIRTHS ? BURST_NS
			   : cprof_perf_is_traced(perf)            ? HOLD_SHORT_NS
								   : HOLD_NS;
	perf->format.stack_bytes = perf->config.user_stack ? perf->stack_limit : 0;
	if (cprof_perf_is_traced(perf) &&
	    !perf->config.stack_bytes) /* hundreds may come before the first look */
		perf->format.stack_bytes = CPROF_MIN(perf->format.stack_bytes, STACK_FIRST);
}

static void look_again(struct cprof_perf *perf, uint64_t now)
{
	perf->stack_since = now;
	perf->stack_need = 0;
	perf->stack_count = 0;
	perf->stack_truncated = false;
}

static void resize(struct cprof_perf *perf, uint32_t bytes, uint64_t now)
{
	cprof_events_renew(perf, bytes);
	look_again(perf, now);
}

/* Twice what was needed, in whole pages. Of switches, where every byte counts, not much more than
 * that. */
static uint32_t size_wanted(const struct cprof_perf *perf)
{
	bool switches = perf->config.clock == CPROF_PERF_SWITCHES;
	uint32_t least = switches                     ? STACK_FINE
			 : cprof_perf_is_traced(perf) ? STACK_SMALL
						      : STACK_MIN;
	uint32_t unit = CPROF_MIN(least, STACK_UNIT);
	uint64_t need = perf->stack_need;
	uint64_t want = switches ? need + need / 4 : 2 * need;

	want = (want + unit - 1) / unit * unit;
	return (uint32_t)CPROF_MIN(CPROF_MAX(want, least), perf->stack_limit);
}

/* After one was cut off. Of switches the next may be too, but few need as much as there can be. */
static uint32_t size_grown(const struct cprof_perf *perf)
{
	uint32_t size = perf->format.stack_bytes;

	if (perf->config.clock != CPROF_PERF_SWITCHES || size >= perf->stack_limit / GROWTH)
		return perf->stack_limit;
	return size * GROWTH;
}

/* Births come in bursts. A dump is as long as half a ring allows for as many as came in a tick: one
 * that is cut off tells more than one that is lost. */
static void adapt_to_births(struct cprof_perf *perf, bool losing, bool due, uint64_t now)
{
	uint64_t elapsed = CPROF_MAX(now - perf->stack_since, BURST_NS);
	uint64_t burst = 1 + perf->stack_count * BURST_NS / elapsed;
	size_t room = perf->rings[perf->ring_count - 1].size / 2 / burst;
	uint32_t most = (uint32_t)CPROF_MIN(room, perf->stack_limit) & ~7u;
	uint32_t size = perf->format.stack_bytes;
	uint32_t want = size_wanted(perf);

	if (losing)
		want = CPROF_MAX(CPROF_MIN(want, size / 2 & ~7u), STACK_SMALL);
	if (!losing && perf->stack_truncated && most > size) {
		perf->stack_hold = CPROF_MIN(perf->stack_hold * 2, HOLD_MAX_NS);
		resize(perf, most, now);
	} else if ((losing || (due && size > most / 2)) && perf->stack_need &&
		   want < size / 4 * 3) {
		resize(perf, want, now);
	} else if (due) {
		look_again(perf, now);
	}
}

void cprof_stack_adapt(struct cprof_perf *perf)
{
	uint32_t size = perf->format.stack_bytes;
	uint64_t now = cprof_now_ns();
	bool losing = perf->ring_lost > perf->stack_lost;
	bool fast = cprof_perf_is_traced(perf) || perf->config.rate > RATE_FREE;
	bool due = fast && now >= perf->stack_since + perf->stack_hold;

	if (!perf->enabled || !size || perf->config.stack_bytes)
		return;
	perf->stack_lost = perf->ring_lost;
	if (perf->config.clock == CPROF_PERF_BIRTHS) {
		adapt_to_births(perf, losing, due, now);
		return;
	}
	if (perf->stack_truncated && size < perf->stack_limit) {
		perf->stack_hold = CPROF_MIN(perf->stack_hold * 2, HOLD_MAX_NS);
		resize(perf, size_grown(perf), now);
		return;
	}
	/* A ring that overflows cannot wait, whatever the rate: we get too little time to drain. */
	if ((!due && !losing) || !perf->stack_need)
		return;
	if (size_wanted(perf) < size / 4 * 3) {
		resize(perf, size_wanted(perf), now);
		return;
	}
	perf->stack_since = now;
	perf->stack_need = 0;
}

void cprof_perf_stack_needed(struct cprof_perf *perf, size_t bytes, bool was_truncated)
{
	uint32_t need = (uint32_t)CPROF_MIN(bytes, perf->stack_limit);

	perf->stack_need = CPROF_MAX(perf->stack_need, need);
	perf->stack_truncated |= was_truncated;
	perf->stack_count++;
}
