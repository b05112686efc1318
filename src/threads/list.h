/* SPDX-License-Identifier: MIT
 *
 * Private to the files of the thread list.
 */
#ifndef CPROF_THREADS_LIST_H
#define CPROF_THREADS_LIST_H

#include "private.h"

#include <cprof/space.h>
#include <uthash.h>

#define CPROF_LIST_FRAMES 12 /* as many as tell what a futex is */

/* A name that was looked up. */
struct cprof_list_name {
	uint64_t pc;
	char function[128]; /* not safe to show; "" none */
	UT_hash_handle hh;
};

/* A thread as it was last found. */
struct cprof_list_thread {
	pid_t tid;
	char name[64];
	char state;
	bool seen;       /* in the list before */
	bool changed;    /* it has run since, or is new */
	bool in_call;    /* it sleeps in a system call that is known */
	uint64_t run_ns; /* schedstat: CPU time, … */
	uint64_t slices; /* … and how often it got a CPU */
	uint64_t read_ns;
	double cpu;
	struct cprof_snapshot_thread call; /* as a dump would find it, without a stack */
	struct cprof_dump_frame frames[CPROF_LIST_FRAMES];
	size_t frame_count;
	struct cprof_wait wait; /* without its detail */
	char detail[96];
};

struct cprof_thread_list {
	struct cprof_thread_list_options options;
	struct cprof_target *target;
	struct cprof_modules *modules;
	struct cprof_space *space;
	struct cprof_unwinder *unwinder;
	uint64_t fingerprint; /* of the code that `space` knows, 0 none */
	uint64_t refreshed_ns;
	struct cprof_areas areas;
	uint64_t areas_ns; /* when they were read, 0 never */
	struct cprof_list_name *names;
	struct cprof_list_thread *threads; /* ascending */
	size_t count;
};

/* The frames of a thread in a system call, as far as they tell what is waited for. */
void cprof_list_frames(struct cprof_thread_list *list, struct cprof_list_thread *thread);
/* The address space as it is now. */
struct cprof_error *cprof_list_refresh(struct cprof_thread_list *list);
void cprof_list_forget_names(struct cprof_thread_list *list);
/* "futex", "epoll_wait", …; NULL: it is none of those that wait. */
const char *cprof_list_call_name(int64_t number);

#endif
