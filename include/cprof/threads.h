/* SPDX-License-Identifier: MIT
 *
 * Thread dumps: what every thread does, what it waits for and who has that, who is deadlocked.
 * Data only; text and JSON are the report floor's (report.h).
 */
#ifndef CPROF_THREADS_H
#define CPROF_THREADS_H

#include <cprof/attach.h>
#include <cprof/error.h>
#include <cprof/profile.h>
#include <cprof/source.h>
#include <cprof/target.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What a thread waits for; names as in CLI.md. */
enum cprof_wait_kind {
	CPROF_WAIT_NONE, /* it runs */
	CPROF_WAIT_RUNQ, /* it would run, but has no CPU */
	CPROF_WAIT_MUTEX,
	CPROF_WAIT_RWLOCK,
	CPROF_WAIT_COND,
	CPROF_WAIT_SEM,
	CPROF_WAIT_JOIN,
	CPROF_WAIT_SLEEP,
	CPROF_WAIT_POLL,
	CPROF_WAIT_FILE,
	CPROF_WAIT_PIPE,
	CPROF_WAIT_SOCKET,
	CPROF_WAIT_FUTEX, /* some futex: its user is not known */
	CPROF_WAITS
};
const char *cprof_wait_name(enum cprof_wait_kind kind);
/* What a function means for a futex that is waited for in it, or in what it calls: a kind by libc's
 * names; NONE: its callers say more; FUTEX: it is none of libc's. */
enum cprof_wait_kind cprof_wait_of_function(const char *name);

struct cprof_wait {
	enum cprof_wait_kind kind;
	uint64_t address; /* of the lock, condition, …; 0 none */
	pid_t owner;      /* who has it (mutex, rwlock's writer, join: who is awaited); 0 unknown */
	bool owner_gone;  /* the owner is no thread of the process any more */
	int64_t left_ns;  /* until its timeout, at the snapshot; -1 none or unknown */
	char *detail;     /* "queue_lock+0x8 in service", "fd 5: pipe:[123]", "10.0.0.1:80", …;
			   * safe to show; NULL none */
};

struct cprof_dump_frame {
	uint64_t pc;
	const char *function; /* demangled, NULL unknown; not safe to show, as all text here */
	uint64_t offset;      /* of pc in the function */
	const char *module;   /* path, "" unknown */
	const char *file;     /* NULL unknown */
	uint32_t line;        /* 0 unknown */
	bool inlined;         /* into the next frame; its pc is the same */
};

struct cprof_dump_thread {
	pid_t tid;
	char name[64];
	char state;
	bool held; /* false: it could not be stopped, there are no frames */
	bool late; /* seen when the others had gone on: it lacked a CPU to stop on */
	struct cprof_wait wait;
	struct cprof_dump_frame *frames; /* innermost first; equal stacks share them: same pointer.
					  * Of a stack too deep the innermost and outermost are
					  * kept, and a frame without a pc says what was left out */
	size_t frame_count;
	enum cprof_end end;
};

struct cprof_dump_mapping { /* executable memory that frames are in */
	uint64_t start;
	uint64_t end;
	uint64_t offset;      /* in its file */
	const char *path;     /* "" unknown; not safe to show */
	const char *build_id; /* lower-case hexadecimal, "" none */
	bool program;         /* it is the program's own code */
};

/* Threads that wait for one another in a circle, in waiting order, the first not repeated. */
struct cprof_deadlock {
	pid_t *tids; /* one alone: it waits for what it has itself */
	size_t count;
};

struct cprof_dump {
	pid_t pid;
	char comm[64];
	char *cmdline;
	uint64_t taken_ns; /* wall clock */
	uint64_t stopped_ns;
	uint64_t stops;
	struct cprof_dump_thread *threads; /* ascending tid */
	size_t count;
	size_t unstoppable;
	size_t late;
	bool dumping_core;                   /* it has crashed; nobody was stopped */
	struct cprof_dump_mapping *mappings; /* ascending */
	size_t mapping_count;
	struct cprof_deadlock *deadlocks;
	size_t deadlock_count;
	uint64_t waiting[CPROF_WAITS]; /* threads by what they wait for */
	void *memory;                  /* private: what the strings live in */
};

struct cprof_dump_options {
	const char *const *threads; /* only these: tid or name each; NULL-ended; NULL: all */
	const char *debug_dir;
	bool no_inlines;
	bool no_lines;
};

/* Stops, copies, resumes (attach.h), then unwinds, names and looks for owners. A deadlock is read
 * again from memory before it is reported. */
struct cprof_error *cprof_dump_take(struct cprof_target *target,
				    const struct cprof_dump_options *options,
				    struct cprof_dump **dump);
void cprof_dump_destroy(struct cprof_dump *dump);

/* The dump as a profile of type threads/count, labels thread, tid, wait. */
struct cprof_error *cprof_dump_profile(const struct cprof_dump *dump,
				       struct cprof_profile **profile);

/*
 * The threads as often as one likes, stopping none: procfs and memory as they are, the one a moment
 * after the other. What is kept between two lists makes the next one cheap: a thread that has not
 * run since is not looked at again, but for who has the lock that it waits for.
 */
struct cprof_thread_list;
struct cprof_thread_list_options {
	const char *debug_dir;
	/* What a thread that runs was last seen in, safe to show; NULL unknown. */
	void (*top)(void *context, pid_t tid, char *text, size_t size);
	void *context;
};
/* The target is not owned. */
struct cprof_error *cprof_thread_list_create(struct cprof_target *target,
					     const struct cprof_thread_list_options *options,
					     struct cprof_thread_list **list);
void cprof_thread_list_destroy(struct cprof_thread_list *list);
struct cprof_error *cprof_thread_list_read(struct cprof_thread_list *list,
					   struct cprof_source_threads **threads);

#endif
