/* SPDX-License-Identifier: MIT
 *
 * How many waits are kept, CPU-wide: a stack costs some microseconds, and a thread may switch
 * 100,000 times a second. Each thread gives up to a level of samples in a window of time, and the
 * level is such that all together keep to what was asked for: those that seldom switch lose none.
 * Which are kept is left to chance: every n-th would fall in step with the program.
 */
#include "private.h"

#define LOOK_NS    20000000ull
#define THREADS    16 /* that are expected to switch much, at first */
#define LEVEL_MIN  (1.0 / 65536)
#define STEP_UP    1.25
#define STEP_DOWN  0.125 /* at most */
#define SHARE_MUCH 1.1   /* of what was asked for */
#define SHARE_FEW  0.9

static double most(const struct cprof_perf *perf)
{
	return perf->config.rate * (CPROF_WAITS_WINDOW_NS / 1e9);
}

void cprof_thin_open(struct cprof_perf *perf, size_t threads)
{
	if (!perf->config.rate)
		return;
	perf->thin_level = most(perf) * CPROF_MIN(1.0, (double)THREADS / (double)(threads + 1));
	cprof_waits_level(perf, perf->thin_level);
}

void cprof_thin_adapt(struct cprof_perf *perf)
{
	uint64_t now = cprof_now_ns();
	uint64_t elapsed = now - perf->thin_looked;
	double asked = (double)perf->config.rate * (double)elapsed / 1e9;
	double came = (double)perf->thin_samples;

	if (!perf->waits || !perf->config.rate || elapsed < LOOK_NS)
		return;
	perf->thin_samples = 0;
	if (perf->thin_looked) {
		if (came > asked * SHARE_MUCH)
			perf->thin_level *= CPROF_MAX(asked / came, STEP_DOWN);
		else if (came < asked * SHARE_FEW)
			perf->thin_level *= STEP_UP;
		perf->thin_level = CPROF_MIN(CPROF_MAX(perf->thin_level, LEVEL_MIN), most(perf));
		cprof_waits_level(perf, perf->thin_level);
	}
	perf->thin_looked = now;
}
