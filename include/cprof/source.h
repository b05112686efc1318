/* SPDX-License-Identifier: MIT
 *
 * Where profiles come from: a live session or a saved file. The live view, HTTP and reports see
 * only this. Everything but snapshot(), live() and destroy() may be missing (NULL): a saved file
 * has a profile only. All calls may come from any one thread at a time, beside a running collector.
 */
#ifndef CPROF_SOURCE_H
#define CPROF_SOURCE_H

#include <cprof/error.h>
#include <cprof/profile.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/types.h>

struct cprof_dump;          /* threads.h */
struct cprof_memtrace_line; /* memtrace.h */
struct cprof_source;

/* What there is to say about one kind of profile. */
enum cprof_source_state {
	CPROF_SOURCE_ABSENT, /* this source will never have it */
	CPROF_SOURCE_OFF,    /* begin() starts it */
	CPROF_SOURCE_ON,
	CPROF_SOURCE_ENDED, /* what was collected stays */
};
struct cprof_source_kind {
	enum cprof_source_state state;
	char detail[256]; /* safe to show: why not, why it ended, or what is covered; "" nothing */
};

/* One moment of the target and of ourselves. Values that are not known are UINT64_MAX or < 0. */
struct cprof_source_figures {
	pid_t pid;
	char comm[64]; /* safe to show, as the following */
	char cmdline[256];
	uint64_t uptime_ns;  /* of the target */
	uint64_t elapsed_ns; /* since profiling began */
	uint32_t threads;
	double cpu;         /* CPUs used since the figures before: 1.5 is one and a half */
	uint64_t rss_bytes; /* of the target */
	double live_bytes;  /* heap, since attach; < 0 without the agent */
	double live_objects;
	unsigned rate; /* samples a second and thread */
	uint64_t samples;
	uint64_t lost;
	double complete; /* share of stacks, 0 to 1 */
	double own_cpu;  /* CPUs that the profiler used since the figures before */
	uint64_t own_rss_bytes;
	bool ended;         /* the target is no more … */
	char ended_how[64]; /* … and what is known about it; "" nothing */
	bool stopped;       /* it is in group-stop */
};

/* One thread, known without stopping it: from procfs, samples and memory reads. */
struct cprof_source_thread {
	pid_t tid;
	char name[64]; /* safe to show, as all text here */
	char state;    /* procfs's letter, 0 unknown */
	double cpu;    /* CPUs used since the list before, < 0: not known yet */
	uint64_t cpu_ns;
	char wait[12];        /* cprof_wait_name() of what it waits for, "" unknown */
	char wait_detail[96]; /* "held by \"main\" 812", "fd 5: pipe", …; "" nothing */
	char top[128];        /* function of its last sample or, asleep, system call; "" unknown */
};
struct cprof_source_threads {
	struct cprof_source_thread *threads; /* ascending tid */
	size_t count;
	char deadlock[256]; /* "3 threads wait for one another: 812 -> 815 -> 812", "" none */
};

struct cprof_source_ops {
	/* A copy of the profile of one kind ("cpu", "heap", …; NULL: the only or first one) as it
	 * stands now, named; the caller destroys it. */
	struct cprof_error *(*snapshot)(struct cprof_source *source, const char *kind,
					struct cprof_profile **profile);
	/* The same of the last `window_ns` only, about; 0: since the start. For kinds whose values
	 * are sums over time (cpu, cycles, mutex, block). `unnamed`: symbols that are not cached
	 * are left as addresses, so that the answer comes at once, and are looked up beside. */
	struct cprof_error *(*window)(struct cprof_source *source, const char *kind,
				      uint64_t window_ns, bool unnamed,
				      struct cprof_profile **profile);
	/* True while more data may come. */
	bool (*live)(struct cprof_source *source);
	void (*kind)(struct cprof_source *source, const char *kind,
		     struct cprof_source_kind *result);
	/* Starts a kind that is off: for heap and mutex, plants the agent. May take a while. */
	struct cprof_error *(*begin)(struct cprof_source *source, const char *kind);
	void (*figures)(struct cprof_source *source, struct cprof_source_figures *figures);
	/* Stops nobody. The caller frees with cprof_source_threads_destroy(). */
	struct cprof_error *(*threads)(struct cprof_source *source,
				       struct cprof_source_threads **threads);
	/* Stops the threads for a moment: all, or one (`tid` not 0). The caller destroys it. */
	struct cprof_error *(*dump)(struct cprof_source *source, pid_t tid,
				    struct cprof_dump **dump);
	/* Finished summary lines from number `from` (1 is the first) on, at most `most`, oldest
	 * first; `*count` is how many there were. Old ones are forgotten. */
	void (*memtrace)(struct cprof_source *source, uint64_t from,
			 struct cprof_memtrace_line *lines, size_t most, size_t *count);
	/* Opens a file as the target sees it, or -1 with errno. */
	int (*open)(struct cprof_source *source, const char *path);
	void (*destroy)(struct cprof_source *source);
};
struct cprof_source {
	const struct cprof_source_ops *ops;
};

/* A saved profile. Takes the profile over. */
struct cprof_error *cprof_source_create_saved(struct cprof_profile *profile,
					      struct cprof_source **source);
static inline void cprof_source_destroy(struct cprof_source *source)
{
	if (source)
		source->ops->destroy(source);
}
static inline void cprof_source_threads_destroy(struct cprof_source_threads *threads)
{
	if (threads)
		free(threads->threads);
	free(threads);
}

#endif
