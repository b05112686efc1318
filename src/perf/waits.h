/* SPDX-License-Identifier: MIT
 *
 * What the program that sums up waits shares with who reads it: its maps. Times are
 * CLOCK_MONOTONIC.
 */
#ifndef CPROF_PERF_WAITS_H
#define CPROF_PERF_WAITS_H

#include "bpf.h"

#define STRATA_ROOM 16 /* so that the program need not compare */

/* Of a thread, in the map; the program alone changes it. Times are CLOCK_MONOTONIC. */
struct entry {
	uint64_t task;      /* where the kernel keeps it: whether this is still the same one */
	uint64_t out_ns;    /* when it last left its CPU, 0 it is dead */
	uint64_t flags;     /* of the wait since then, as in struct cprof_told */
	uint64_t share;     /* so many of 2^32 are kept */
	uint64_t window_ns; /* since when they are counted */
	uint64_t count;
	uint64_t limit; /* beyond which there are more than was expected */
	struct cprof_perf_stratum strata[STRATA_ROOM];
};

/* The same for all. */
struct control {
	uint64_t begin_ns; /* what was before does not count */
	uint64_t level;    /* of 2^-16 samples that a thread may give in a window */
	struct entry blank;
};

/* Of a CPU. */
#define FRAMES_MAX 127
struct cpu {
	uint64_t switched_ns;
	uint64_t comes;   /* who has it since then: its task, or its number if not raw */
	uint64_t unknown; /* switches of threads for which there was no room */
	struct cprof_told told;
	uint64_t frames[FRAMES_MAX]; /* right behind it */
};

struct cprof_waits {
	int control; /* maps */
	int cpus;
	int threads;
	int events;
	bool raw; /* the tracepoint is, and not its record */
	uint32_t cpu_count;
	uint64_t begin_ns; /* as the program knows it, and the level */
	uint64_t level;
	struct cprof_known *known; /* all, by key */
	struct cprof_known *alive; /* by tid */
	size_t ended;              /* how many are not */
	struct cpu *states;        /* of each CPU, as last seen */
};

/* A descriptor, or -1 with errno. */
int cprof_waits_program(const struct cprof_perf *perf);

#endif
