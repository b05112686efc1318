/* SPDX-License-Identifier: MIT
 *
 * What the memtrace floor's files and tests share.
 */
#ifndef CPROF_MEMTRACE_PRIVATE_H
#define CPROF_MEMTRACE_PRIVATE_H

#include <cprof/memtrace.h>

/* --- names.c: functions that work for memory ------------------------------------------------- */

enum { /* bits; a function has one side at most */
       CPROF_MEMTRACE_MALLOC = 1,
       CPROF_MEMTRACE_FREE = 2,
       CPROF_MEMTRACE_SLOW = 4,     /* glibc's allocation past the per-thread cache */
       CPROF_MEMTRACE_WAIT = 8,     /* in a lock */
       CPROF_MEMTRACE_FOREIGN = 16, /* of an allocator that is no libc's */
       CPROF_MEMTRACE_CALL = 32,    /* the kernel's: a system call for memory */
       CPROF_MEMTRACE_FAULT = 64,   /* the kernel's: a page fault */
};

enum cprof_memtrace_module {
	CPROF_MEMTRACE_ANY,
	CPROF_MEMTRACE_GLIBC,
	CPROF_MEMTRACE_ALLOCATOR, /* a library that is nothing but an allocator */
	CPROF_MEMTRACE_AGENT,     /* our own, inside the target */
	CPROF_MEMTRACE_KERNEL,
	CPROF_MEMTRACE_MODULES
};

/* Of a mapping's file. */
enum cprof_memtrace_module cprof_memtrace_module(const char *path);
/* The bits of a function in such a module, by system name (mangled, where it is C++); "": none.
 * What stands in an allocator's library is FOREIGN, on whatever side. */
unsigned cprof_memtrace_function(enum cprof_memtrace_module module, const char *name);

/* --- process.c ------------------------------------------------------------------------------- */

/* The smallest memory limit of the groups in `groups` (as /proc/PID/cgroup) and of those above
 * them; `rootfd`: /sys/fs/cgroup. UINT64_MAX: none that can be seen. */
uint64_t cprof_memtrace_limit(int rootfd, const char *groups);
/* CPUs in a mask as /proc/PID/status has it: "ff,ffffffff". */
uint32_t cprof_memtrace_count_cpus(const char *mask);

#endif
