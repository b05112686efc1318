/* SPDX-License-Identifier: MIT
 *
 * GC-trace style summary lines: what an interval did to memory, and what it cost. Data, no text.
 */
#ifndef CPROF_MEMTRACE_H
#define CPROF_MEMTRACE_H

#include <cprof/error.h>
#include <cprof/heap.h>
#include <cprof/profile.h>
#include <cprof/target.h>
#include <stdbool.h>
#include <stdint.h>

/* CPU time by what it was spent on, in ns. Each sample counts once in the first four: kernel memory
 * work comes first, whoever asked for it, then the outermost allocator function decides. Samples
 * that were lost are in none, nor is what our own agent costs. */
struct cprof_memtrace_cpu {
	uint64_t malloc_ns; /* in functions that allocate, realloc among them */
	uint64_t free_ns;
	uint64_t kernel_ns; /* memory system calls and page faults, whoever caused them */
	uint64_t other_ns;
	uint64_t samples; /* that make up all of this */
	/* Parts of the above that advice rests on. */
	uint64_t inside_ns;  /* of kernel_ns: inside allocator functions */
	uint64_t faults_ns;  /* of kernel_ns: page faults */
	uint64_t wait_ns;    /* of malloc_ns and free_ns: in locks */
	uint64_t slow_ns;    /* of malloc_ns: glibc's, where its per-thread cache could not serve */
	uint64_t glibc_ns;   /* of malloc_ns, free_ns and inside_ns: glibc's allocator */
	uint64_t foreign_ns; /* of the same: an allocator that is no libc's */
};

/* What the process and its surroundings say. */
struct cprof_memtrace_process {
	uint64_t rss_bytes;   /* UINT64_MAX: unknown */
	uint64_t limit_bytes; /* smallest of the cgroup's limits up the tree, UINT64_MAX: none */
	uint32_t threads;     /* 0: unknown */
	uint32_t cpus;        /* allowed; 0: unknown */
	uint64_t cpu_ns;      /* of the process so far, 0: unknown */
	double held_bytes;    /* by the allocator, in use or not; < 0 unknown */
	double in_use_bytes;
};

struct cprof_memtrace_line {
	uint64_t number; /* from 1 */
	uint64_t since_attach_ns;
	uint64_t clock_ns;                    /* length of the interval */
	struct cprof_memtrace_cpu cpu;        /* of the interval */
	struct cprof_memtrace_cpu cpu_total;  /* since attach */
	struct cprof_memtrace_cpu cpu_recent; /* of the last intervals: what warnings go by */
	bool kernel_unknown;                  /* no kernel frames; for the caller to set */
	bool injected;                        /* the following are known */
	double allocated_bytes;               /* in the interval */
	double freed_bytes;
	double live_start_bytes;
	double live_peak_bytes;
	double live_end_bytes;
	double first_bytes; /* live (RSS without an agent) at the first line, < 0 unknown */
	uint32_t first_threads;
	struct cprof_memtrace_process process;
};

/* Sorts a named CPU profile (types: samples, cpu) into its parts. Allocator functions are known by
 * name and by the modules that carry them. */
struct cprof_error *cprof_memtrace_classify(const struct cprof_profile *profile,
					    struct cprof_memtrace_cpu *cpu);
void cprof_memtrace_cpu_add(struct cprof_memtrace_cpu *sum, const struct cprof_memtrace_cpu *more);
/* The allocator's share of CPU time, 0 to 1: malloc side, free side, and the kernel's work inside
 * of them. */
double cprof_memtrace_share(const struct cprof_memtrace_cpu *cpu);
/* Reads what the process says; what cannot be read is unknown. */
void cprof_memtrace_process(const struct cprof_target *target,
			    struct cprof_memtrace_process *process);

/* What is worth trying where the allocator's share is high, from what was measured; bits. */
enum {
	CPROF_MEMTRACE_TRY_ARENAS = 1,     /* threads wait for one another */
	CPROF_MEMTRACE_TRY_THRESHOLDS = 2, /* memory goes to and fro between libc and kernel */
	CPROF_MEMTRACE_TRY_TCACHE = 4,     /* the per-thread cache is passed by */
	CPROF_MEMTRACE_TRY_OTHER = 8,      /* libc's own code takes the time */
};
unsigned cprof_memtrace_advice(const struct cprof_memtrace_cpu *cpu);

/* One interval after the other. */
struct cprof_memtrace;
struct cprof_memtrace_config {
	uint64_t started_ns;   /* of the attach, CLOCK_MONOTONIC */
	uint64_t leak_threads; /* warn when so many threads more than at first, 0: never */
	uint64_t leak_bytes;   /* warn when live (or RSS without an agent) grew by so much */
};
enum {
	/* The allocator's share rose above 5 %: over the last ten intervals, or since the attach
	 * where these have less than a hundred samples. Below 4 % the next time counts again. */
	CPROF_MEMTRACE_WARN_SHARE = 1,
	CPROF_MEMTRACE_WARN_THREADS = 2, /* counts again when they are no longer too many */
	CPROF_MEMTRACE_WARN_HEAP = 4,    /* counts again when a tenth of the growth is gone */
};
struct cprof_error *cprof_memtrace_create(const struct cprof_memtrace_config *config,
					  struct cprof_memtrace **memtrace);
void cprof_memtrace_destroy(struct cprof_memtrace *memtrace);
/* `cpu` is the named CPU profile since attach; `heap` NULL without an agent. `warnings`: those
 * whose line was crossed in this interval. */
struct cprof_error *cprof_memtrace_step(struct cprof_memtrace *memtrace, uint64_t now_ns,
					const struct cprof_profile *cpu,
					const struct cprof_heap_stats *heap,
					const struct cprof_memtrace_process *process,
					struct cprof_memtrace_line *line, unsigned *warnings);
/* The same with what cprof_memtrace_classify() says since the attach. */
struct cprof_error *cprof_memtrace_step_cpu(struct cprof_memtrace *memtrace, uint64_t now_ns,
					    const struct cprof_memtrace_cpu *cpu,
					    const struct cprof_heap_stats *heap,
					    const struct cprof_memtrace_process *process,
					    struct cprof_memtrace_line *line, unsigned *warnings);

#endif
