/* SPDX-License-Identifier: MIT
 *
 * The summary line, in the shape of Go's gctrace, and its warnings.
 */
#include "private.h"

#include <cprof/util.h>
#include <math.h>

#define MEGABYTE 0x1p20

#define NUMBER 32 /* text of a number */

/* "12", `unknown` where it is negative. */
static const char *megabytes(double bytes, const char *unknown, char text[NUMBER])
{
	if (!(bytes >= 0))
		return unknown;
	snprintf(text, NUMBER, "%.0f", fmin(bytes / MEGABYTE, 1e15));
	return text;
}

static double known(uint64_t bytes)
{
	return bytes == UINT64_MAX ? -1 : (double)bytes;
}

static const char *counted(uint32_t count, char text[NUMBER])
{
	if (!count)
		return "?";
	snprintf(text, NUMBER, "%u", count);
	return text;
}

static double milliseconds(uint64_t ns)
{
	return (double)ns / 1e6;
}

static const char *fragmentation(const struct cprof_memtrace_process *process, char text[NUMBER])
{
	if (!(process->held_bytes > 0) || !(process->in_use_bytes >= 0))
		return "?";
	snprintf(text, NUMBER, "%.0f%%",
		 100 * (1 - fmin(process->in_use_bytes / process->held_bytes, 1)));
	return text;
}

struct cprof_error *cprof_report_memtrace(const struct cprof_memtrace_line *line, FILE *out)
{
	const struct cprof_memtrace_process *process = &line->process;
	char texts[9][NUMBER];
	char kernel[NUMBER] = "?";
	double heap[5] = {-1, -1, -1, -1, -1};

	if (line->injected) {
		heap[0] = line->allocated_bytes;
		heap[1] = line->freed_bytes;
		heap[2] = line->live_start_bytes;
		heap[3] = line->live_peak_bytes;
		heap[4] = line->live_end_bytes;
	}
	if (!line->kernel_unknown)
		snprintf(kernel, sizeof(kernel), "%.0f", milliseconds(line->cpu.kernel_ns));
	fprintf(out, "heap %llu @%.3fs %.0f%%: %.0f ms clock, %.0f+%.0f/%s ms cpu, ",
		(unsigned long long)line->number, (double)line->since_attach_ns / 1e9,
		100 * cprof_memtrace_share(&line->cpu_total), milliseconds(line->clock_ns),
		milliseconds(line->cpu.malloc_ns), milliseconds(line->cpu.free_ns), kernel);
	fprintf(out, "~+%s-%s MB, ~%s->%s->%s MB, ", megabytes(heap[0], "?", texts[0]),
		megabytes(heap[1], "?", texts[1]), megabytes(heap[2], "?", texts[2]),
		megabytes(heap[3], "?", texts[3]), megabytes(heap[4], "?", texts[4]));
	fprintf(out, "%s MB rss, %s MB goal, %s frag, %s T, %s P\n",
		megabytes(known(process->rss_bytes), "?", texts[5]),
		megabytes(known(process->limit_bytes), "-", texts[6]),
		fragmentation(process, kernel), counted(process->threads, texts[7]),
		counted(process->cpus, texts[8]));
	return cprof_report_flush(out);
}

/* --- warnings ------------------------------------------------------------------------------ */

static double percent(double part, double whole)
{
	return whole > 0 ? 100 * part / whole : 0;
}

static void put_share(const struct cprof_memtrace_line *line, FILE *out)
{
	const struct cprof_memtrace_cpu *cpu = &line->cpu_recent;
	double allocator = (double)cpu->malloc_ns + (double)cpu->free_ns + (double)cpu->inside_ns;
	double all = (double)cpu->malloc_ns + (double)cpu->free_ns + (double)cpu->kernel_ns +
		     (double)cpu->other_ns;
	unsigned advice = cprof_memtrace_advice(cpu);
	char threads[NUMBER];

	fprintf(out,
		"the allocator takes %.0f%% of CPU time: malloc side %.0f%%, free side %.0f%%, its "
		"system calls and page faults %.0f%%",
		100 * cprof_memtrace_share(cpu), percent((double)cpu->malloc_ns, all),
		percent((double)cpu->free_ns, all), percent((double)cpu->inside_ns, all));
	if (advice)
		fprintf(out, "; worth trying:");
	if (advice & CPROF_MEMTRACE_TRY_ARENAS)
		fprintf(out,
			"\n    more arenas (MALLOC_ARENA_MAX, M_ARENA_MAX): %.0f%% of the "
			"allocator's time is in its locks, with %s threads",
			percent((double)cpu->wait_ns, allocator),
			counted(line->process.threads, threads));
	if (advice & CPROF_MEMTRACE_TRY_THRESHOLDS)
		fprintf(out,
			"\n    higher thresholds (MALLOC_TRIM_THRESHOLD_ and "
			"MALLOC_MMAP_THRESHOLD_, "
			"M_TRIM_THRESHOLD and M_MMAP_THRESHOLD): the allocator's system calls and "
			"page faults take %.0f%% of CPU time, all page faults %.0f%%",
			percent((double)cpu->inside_ns, all), percent((double)cpu->faults_ns, all));
	if (advice & CPROF_MEMTRACE_TRY_TCACHE)
		fprintf(out,
			"\n    a larger cache per thread (GLIBC_TUNABLES=glibc.malloc.tcache_count="
			"100): %.0f%% of the allocator's time is in malloc beyond that cache, "
			"which takes blocks of up to 1032 bytes",
			percent((double)cpu->slow_ns, allocator));
	if (advice & CPROF_MEMTRACE_TRY_OTHER)
		fprintf(out,
			"\n    another allocator (LD_PRELOAD of jemalloc or tcmalloc): %.0f%% of "
			"the "
			"allocator's time is in the C library's own code",
			percent((double)cpu->malloc_ns + (double)cpu->free_ns, allocator));
}

struct cprof_error *cprof_report_memtrace_warning(const struct cprof_memtrace_line *line,
						  unsigned warning, FILE *out)
{
	const struct cprof_memtrace_process *process = &line->process;
	double bytes = line->injected ? line->live_end_bytes : (double)process->rss_bytes;
	char now[NUMBER];
	char first[NUMBER];

	if (warning == CPROF_MEMTRACE_WARN_SHARE)
		put_share(line, out);
	else if (warning == CPROF_MEMTRACE_WARN_THREADS)
		fprintf(out, "threads may leak: %u now, %u at first", process->threads,
			line->first_threads);
	else if (warning == CPROF_MEMTRACE_WARN_HEAP)
		fprintf(out, "memory may leak: %s%s MB %s now, %s%s MB at first",
			line->injected ? "~" : "", megabytes(bytes, "?", now),
			line->injected ? "live" : "resident", line->injected ? "~" : "",
			megabytes(line->first_bytes, "?", first));
	putc('\n', out);
	return cprof_report_flush(out);
}
