/* SPDX-License-Identifier: MIT
 *
 * What the verbs that take something share: the name of the file, and what is told on stderr.
 */
#include "private.h"

#include <cprof/outfile.h>
#include <stdarg.h>
#include <string.h>
#include <time.h>

void cprof_note(const struct cprof_options *options, const char *format, ...)
{
	va_list arguments;

	if (options->quiet)
		return;
	fputs("cprof-attach: note: ", stderr);
	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	va_end(arguments);
	putc('\n', stderr);
}

struct cprof_error *cprof_output_name(const struct cprof_options *options, const char *kind,
				      pid_t pid, const char *comm, char **path)
{
	static const char *const extensions[] = {"pb.gz", "folded", "txt", "json"};
	struct cprof_outname name = {
		.event = kind,
		.comm = comm,
		.pid = pid,
		.wall_s = time(NULL),
		.extension = extensions[CPROF_MAX(options->format, 0)],
		.several = options->kinds & (options->kinds - 1),
	};

	if (options->output && !strcmp(options->output, "-")) {
		if (name.several)
			return cprof_usage_error(options->verb,
						 "-o -: several kinds cannot go to one place (name "
						 "the files with %%e)");
		*path = strdup("-");
		return *path ? NULL : cprof_error_nomem();
	}
	return cprof_outfile_name(options->output, &name, path);
}

/* "41 KB" */
static void format_size(size_t bytes, char *text, size_t size)
{
	if (bytes < 1024)
		snprintf(text, size, "%zu B", bytes);
	else if (bytes < 1024 * 1024)
		snprintf(text, size, "%zu KB", (bytes + 512) / 1024);
	else
		snprintf(text, size, "%.1f MB", (double)bytes / (1024 * 1024));
}

const struct cprof_session_counts *cprof_kind_counts(const struct cprof_session_stats *stats,
						     enum cprof_kind kind)
{
	if (kind == CPROF_KIND_HEAP)
		return &stats->heap_counts;
	return kind == CPROF_KIND_THREADS ? &stats->dump : &stats->cpu;
}

void cprof_tell_result(const struct cprof_result *result, const struct cprof_session_stats *stats)
{
	const struct cprof_session_counts *counts = cprof_kind_counts(stats, result->kind);
	/* Rounded down: 100.0% means all. */
	uint64_t tenths =
		counts->samples ? counts->ends[CPROF_END_COMPLETE] * 1000 / counts->samples : 1000;
	CPROF_AUTO_FREE char *shown =
		cprof_text_clean_dup(strcmp(result->path, "-") ? result->path : "stdout");
	char size[32];

	format_size(result->length, size, sizeof(size));
	fprintf(stderr,
		"%s: %llu samples, %llu lost, %llu.%llu%% complete stacks, %llu threads, %.1f s -> "
		"%s (%s)\n",
		cprof_kind_name(result->kind), (unsigned long long)counts->samples,
		(unsigned long long)counts->lost, (unsigned long long)tenths / 10,
		(unsigned long long)tenths % 10, (unsigned long long)result->threads,
		(double)stats->duration_ns / 1e9, shown ? shown : "?", size);
}
