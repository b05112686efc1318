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

/* CPU time by what it was spent on, in ns. */
struct cprof_memtrace_cpu {
	uint64_t malloc_ns; /* in functions that allocate */
	uint64_t free_ns;
	uint64_t kernel_ns; /* memory system calls and page faults, whoever caused them */
	uint64_t other_ns;
};

/* What the process and its surroundings say; UINT64_MAX or a negative number: not known. */
struct cprof_memtrace_process {
	uint64_t rss_bytes;
	uint64_t limit_bytes; /* smallest of cgroup memory.high and memory.max up the tree */
	uint32_t threads;
	uint32_t cpus;     /* allowed */
	uint64_t cpu_ns;   /* of the process so far */
	double held_bytes; /* by the allocator, in use or not; < 0 unknown */
	double in_use_bytes;
};

struct cprof_memtrace_line {
	uint64_t number; /* from 1 */
	uint64_t since_attach_ns;
	uint64_t clock_ns;                   /* length of the interval */
	struct cprof_memtrace_cpu cpu;       /* of the interval */
	struct cprof_memtrace_cpu cpu_total; /* since attach */
	bool injected;                       /* the following are known */
	double allocated_bytes;              /* in the interval */
	double freed_bytes;
	double live_start_bytes;
	double live_peak_bytes;
	double live_end_bytes;
	struct cprof_memtrace_process process;
};

/* Sorts a named CPU profile (types: samples, cpu) into its parts. Allocator functions are known by
 * name and by the modules that carry them. */
void cprof_memtrace_classify(const struct cprof_profile *profile, struct cprof_memtrace_cpu *cpu);
/* Reads what the process says. */
struct cprof_error *cprof_memtrace_process(const struct cprof_target *target,
					   struct cprof_memtrace_process *process);

/* One interval after the other. */
struct cprof_memtrace;
struct cprof_memtrace_config {
	uint64_t leak_threads; /* warn when so many threads more than at first, 0: never */
	uint64_t leak_bytes;   /* warn when live (or RSS without an agent) grew by so much */
};
enum {
	CPROF_MEMTRACE_WARN_SHARE = 1, /* the allocator takes more than 5 % of CPU */
	CPROF_MEMTRACE_WARN_THREADS = 2,
	CPROF_MEMTRACE_WARN_HEAP = 4,
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

#endif
