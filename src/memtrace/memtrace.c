/* SPDX-License-Identifier: MIT
 *
 * Intervals: what is new since the last one, what has been crossed, what would help.
 */
#include "private.h"

#include <cprof/util.h>

#define RECENT        10  /* intervals that warnings go by */
#define RECENT_FEWEST 100 /* samples; with fewer a share is chance */
#define SHARE_HIGH    0.05
#define SHARE_LOW     0.04
/* What part of the allocator's time must be of a kind for its advice. */
#define ADVISE_WAIT    0.10
#define ADVISE_KERNEL  0.30
#define ADVISE_SLOW    0.30
#define ADVISE_LIBC    0.50
#define ADVISE_FOREIGN 0.50

struct cprof_memtrace {
	struct cprof_memtrace_config config;
	struct cprof_memtrace_cpu totals[RECENT]; /* after each of the last lines, a ring */
	uint64_t lines;
	uint64_t last_ns;
	double allocated_bytes; /* as of the last line */
	double live_bytes;
	double first_bytes;
	bool injected; /* at the last line */
	uint32_t first_threads;
	unsigned crossed; /* WARN bits whose line is crossed now */
};

struct cprof_error *cprof_memtrace_create(const struct cprof_memtrace_config *config,
					  struct cprof_memtrace **result)
{
	struct cprof_memtrace *memtrace = calloc(1, sizeof(*memtrace));

	if (!memtrace)
		return cprof_error_nomem();
	memtrace->config = *config;
	memtrace->last_ns = config->started_ns;
	*result = memtrace;
	return NULL;
}

void cprof_memtrace_destroy(struct cprof_memtrace *memtrace)
{
	free(memtrace);
}

/* --- shares -------------------------------------------------------------------------------- */

static double allocator_ns(const struct cprof_memtrace_cpu *cpu)
{
	return (double)cpu->malloc_ns + (double)cpu->free_ns + (double)cpu->inside_ns;
}

double cprof_memtrace_share(const struct cprof_memtrace_cpu *cpu)
{
	double all = (double)cpu->malloc_ns + (double)cpu->free_ns + (double)cpu->kernel_ns +
		     (double)cpu->other_ns;

	return all > 0 ? allocator_ns(cpu) / all : 0;
}

unsigned cprof_memtrace_advice(const struct cprof_memtrace_cpu *cpu)
{
	double all = allocator_ns(cpu);
	/* A page that was given back costs a fault when it comes again, in whatever touches it. */
	double kernel = (double)cpu->inside_ns + (double)cpu->faults_ns;
	unsigned advice = 0;

	if (all <= 0 || (double)cpu->foreign_ns >= all * ADVISE_FOREIGN)
		return 0;
	if ((double)cpu->glibc_ns >= all * ADVISE_LIBC) {
		if ((double)cpu->wait_ns >= all * ADVISE_WAIT)
			advice |= CPROF_MEMTRACE_TRY_ARENAS;
		if (kernel >= (all + (double)cpu->faults_ns) * ADVISE_KERNEL)
			advice |= CPROF_MEMTRACE_TRY_THRESHOLDS;
		if ((double)cpu->slow_ns >= all * ADVISE_SLOW)
			advice |= CPROF_MEMTRACE_TRY_TCACHE;
	}
	if ((double)cpu->malloc_ns + (double)cpu->free_ns >= all * ADVISE_LIBC)
		advice |= CPROF_MEMTRACE_TRY_OTHER;
	return advice;
}

/* A location may get its name later than its first sample (a JIT's): a part can shrink. */
static uint64_t less(uint64_t now, uint64_t before)
{
	return now > before ? now - before : 0;
}

static struct cprof_memtrace_cpu difference(const struct cprof_memtrace_cpu *now,
					    const struct cprof_memtrace_cpu *before)
{
	return (struct cprof_memtrace_cpu){
		.malloc_ns = less(now->malloc_ns, before->malloc_ns),
		.free_ns = less(now->free_ns, before->free_ns),
		.kernel_ns = less(now->kernel_ns, before->kernel_ns),
		.other_ns = less(now->other_ns, before->other_ns),
		.samples = less(now->samples, before->samples),
		.inside_ns = less(now->inside_ns, before->inside_ns),
		.faults_ns = less(now->faults_ns, before->faults_ns),
		.wait_ns = less(now->wait_ns, before->wait_ns),
		.slow_ns = less(now->slow_ns, before->slow_ns),
		.glibc_ns = less(now->glibc_ns, before->glibc_ns),
		.foreign_ns = less(now->foreign_ns, before->foreign_ns),
	};
}

void cprof_memtrace_cpu_add(struct cprof_memtrace_cpu *sum, const struct cprof_memtrace_cpu *more)
{
	sum->malloc_ns += more->malloc_ns;
	sum->free_ns += more->free_ns;
	sum->kernel_ns += more->kernel_ns;
	sum->other_ns += more->other_ns;
	sum->samples += more->samples;
	sum->inside_ns += more->inside_ns;
	sum->faults_ns += more->faults_ns;
	sum->wait_ns += more->wait_ns;
	sum->slow_ns += more->slow_ns;
	sum->glibc_ns += more->glibc_ns;
	sum->foreign_ns += more->foreign_ns;
}

static void account_cpu(struct cprof_memtrace *memtrace, struct cprof_memtrace_line *line)
{
	static const struct cprof_memtrace_cpu nothing;
	uint64_t lines = memtrace->lines;
	const struct cprof_memtrace_cpu *last =
		lines ? &memtrace->totals[(lines - 1) % RECENT] : &nothing;
	struct cprof_memtrace_cpu *oldest = &memtrace->totals[lines % RECENT];

	line->cpu = difference(&line->cpu_total, last);
	line->cpu_recent = difference(&line->cpu_total, lines < RECENT ? &nothing : oldest);
	if (line->cpu_recent.samples < RECENT_FEWEST)
		line->cpu_recent = line->cpu_total;
	*oldest = line->cpu_total;
}

/* --- memory -------------------------------------------------------------------------------- */

static void account_heap(struct cprof_memtrace *memtrace, const struct cprof_heap_stats *heap,
			 struct cprof_memtrace_line *line)
{
	line->injected = true;
	line->allocated_bytes = CPROF_MAX(heap->alloc_bytes - memtrace->allocated_bytes, 0);
	line->live_start_bytes = memtrace->live_bytes;
	line->live_end_bytes = heap->live_bytes;
	line->live_peak_bytes = CPROF_MAX(heap->peak_bytes,
					  CPROF_MAX(line->live_start_bytes, line->live_end_bytes));
	line->freed_bytes = CPROF_MAX(
		line->allocated_bytes - (line->live_end_bytes - line->live_start_bytes), 0);
	memtrace->allocated_bytes = heap->alloc_bytes;
	memtrace->live_bytes = heap->live_bytes;
}

/* What grows when memory leaks, < 0 unknown. */
static double held(const struct cprof_memtrace_line *line)
{
	if (line->injected)
		return line->live_end_bytes;
	return line->process.rss_bytes == UINT64_MAX ? -1 : (double)line->process.rss_bytes;
}

/* --- warnings ------------------------------------------------------------------------------ */

/* Above `high` a line is crossed, and it stays so while above `low`. True at the crossing. */
static unsigned cross(struct cprof_memtrace *memtrace, unsigned bit, double value, double high,
		      double low)
{
	bool was = memtrace->crossed & bit;

	if (value > (was ? low : high))
		memtrace->crossed |= bit;
	else
		memtrace->crossed &= ~bit;
	return !was && memtrace->crossed & bit ? bit : 0;
}

static unsigned warn(struct cprof_memtrace *memtrace, const struct cprof_memtrace_line *line)
{
	const struct cprof_memtrace_config *config = &memtrace->config;
	double bytes = held(line);
	unsigned warnings = 0;

	if (line->cpu_recent.samples >= RECENT_FEWEST)
		warnings |= cross(memtrace, CPROF_MEMTRACE_WARN_SHARE,
				  cprof_memtrace_share(&line->cpu_recent), SHARE_HIGH, SHARE_LOW);
	if (config->leak_threads && line->process.threads && line->first_threads) {
		double most = (double)config->leak_threads;

		warnings |= cross(memtrace, CPROF_MEMTRACE_WARN_THREADS,
				  (double)line->process.threads - line->first_threads, most, most);
	}
	if (config->leak_bytes && bytes >= 0 && line->first_bytes >= 0) {
		double most = (double)config->leak_bytes;

		warnings |= cross(memtrace, CPROF_MEMTRACE_WARN_HEAP, bytes - line->first_bytes,
				  most, most * 0.9);
	}
	return warnings;
}

struct cprof_error *cprof_memtrace_step(struct cprof_memtrace *memtrace, uint64_t now_ns,
					const struct cprof_profile *cpu,
					const struct cprof_heap_stats *heap,
					const struct cprof_memtrace_process *process,
					struct cprof_memtrace_line *line, unsigned *warnings)
{
	struct cprof_memtrace_cpu total;

	CPROF_TRY(cprof_memtrace_classify(cpu, &total));
	return cprof_memtrace_step_cpu(memtrace, now_ns, &total, heap, process, line, warnings);
}

struct cprof_error *cprof_memtrace_step_cpu(struct cprof_memtrace *memtrace, uint64_t now_ns,
					    const struct cprof_memtrace_cpu *cpu,
					    const struct cprof_heap_stats *heap,
					    const struct cprof_memtrace_process *process,
					    struct cprof_memtrace_line *line, unsigned *warnings)
{
	*line = (struct cprof_memtrace_line){
		.number = memtrace->lines + 1,
		.since_attach_ns = less(now_ns, memtrace->config.started_ns),
		.clock_ns = less(now_ns, memtrace->last_ns),
		.process = *process,
		.cpu_total = *cpu,
	};
	account_cpu(memtrace, line);
	if (heap)
		account_heap(memtrace, heap, line);
	if (!memtrace->lines)
		memtrace->first_threads = process->threads;
	/* Live bytes and resident ones do not compare: an agent may be lost on the way. */
	if (!memtrace->lines || line->injected != memtrace->injected)
		memtrace->first_bytes = held(line);
	memtrace->injected = line->injected;
	line->first_bytes = memtrace->first_bytes;
	line->first_threads = memtrace->first_threads;
	*warnings = warn(memtrace, line);
	memtrace->last_ns = now_ns;
	memtrace->lines++;
	return NULL;
}
