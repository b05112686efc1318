/* SPDX-License-Identifier: MIT
 *
 * Thinning of switch samples, CPU-wide: a stack costs some microseconds, and a thread may switch
 * 100,000 times a second. Each thread keeps up to a level of stacks a second, chosen so that all
 * together keep to what was asked for: those that seldom switch lose none. Which are kept is left
 * to chance: every n-th would fall in step with the program.
 */
#include "private.h"

#define LOOK_NS      20000000ull
#define SAME         0.2 /* a share that is this close is left as it is */
#define LEVEL_STEP   1.25
#define SHARE_LEAST  1e-6
#define FORGET_LOOKS 50 /* without a switch: the thread sleeps, or has ended */

struct cprof_thin {
	pid_t tid;
	uint64_t switches; /* since the last look */
	unsigned idle;     /* looks without any */
	double share;
	double before; /* until `since` */
	uint64_t since;
	UT_hash_handle hh;
};

static struct cprof_thin *find(const struct cprof_perf *perf, pid_t tid)
{
	struct cprof_thin *thin;

	HASH_FIND_INT(perf->thins, &tid, thin);
	return thin;
}

void cprof_thin_saw(struct cprof_perf *perf, pid_t tid)
{
	struct cprof_thin *thin;

	if (perf->bpf_shares < 0)
		return;
	thin = find(perf, tid);
	if (!thin) {
		thin = calloc(1, sizeof(*thin));
		if (!thin)
			return;
		thin->tid = tid;
		thin->share = thin->before = 1;
		HASH_ADD_INT(perf->thins, tid, thin);
	}
	thin->switches++;
}

double cprof_thin_weight(const struct cprof_perf *perf, const struct cprof_perf_record *record)
{
	const struct cprof_thin *thin = find(perf, record->tid);

	if (!thin)
		return 1;
	return 1 / (record->time < thin->since ? thin->before : thin->share);
}

/* How many stacks a thread may keep for all to keep no more than `budget`. */
static double find_level(const struct cprof_perf *perf, double budget)
{
	double level = budget;
	double kept;

	do {
		kept = 0;
		for (const struct cprof_thin *thin = perf->thins; thin; thin = thin->hh.next)
			kept += CPROF_MIN((double)thin->switches, level);
		if (kept > budget)
			level /= LEVEL_STEP;
	} while (kept > budget && level > SHARE_LEAST);
	return level;
}

static void set_share(struct cprof_perf *perf, struct cprof_thin *thin, double share)
{
	if (share == thin->share ||
	    (share < 1 && share > thin->share * (1 - SAME) && share < thin->share * (1 + SAME)) ||
	    !cprof_bpf_share(perf, (uint32_t)thin->tid, share))
		return;
	thin->before = thin->share;
	thin->share = share;
	thin->since = cprof_now_ns();
}

void cprof_thin_adapt(struct cprof_perf *perf)
{
	uint64_t now = cprof_now_ns();
	uint64_t elapsed = now - perf->thin_looked;
	struct cprof_thin *thin;
	struct cprof_thin *next;
	double level;

	if (perf->bpf_shares < 0 || elapsed < LOOK_NS)
		return;
	perf->thin_looked = now;
	if (elapsed > 1000000000ull) /* the first look */
		elapsed = LOOK_NS;
	level = find_level(perf, (double)perf->config.rate * (double)elapsed / 1e9);
	HASH_ITER(hh, perf->thins, thin, next)
	{
		double share = 1;

		if ((double)thin->switches > level)
			share = CPROF_MAX(level / (double)thin->switches, SHARE_LEAST);
		set_share(perf, thin, share);
		thin->idle = thin->switches ? 0 : thin->idle + 1;
		thin->switches = 0;
		if (thin->idle > FORGET_LOOKS) {
			HASH_DEL(perf->thins, thin);
			free(thin);
		}
	}
}

void cprof_thin_close(struct cprof_perf *perf)
{
	struct cprof_thin *thin;
	struct cprof_thin *next;

	HASH_ITER(hh, perf->thins, thin, next)
	{
		HASH_DEL(perf->thins, thin);
		free(thin);
	}
}
