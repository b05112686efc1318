/* SPDX-License-Identifier: MIT
 *
 * One process to profile: who it is, its threads, its memory map, its files as it sees them.
 * Identity is a pidfd and the /proc/PID directory, both opened once: a recycled pid is never
 * mistaken for the target. Nothing here stops or changes the process.
 */
#ifndef CPROF_TARGET_H
#define CPROF_TARGET_H

#include <cprof/error.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct cprof_target;

struct cprof_target_info {
	pid_t pid;           /* in our pid namespace */
	pid_t inner_pid;     /* in the target's own (innermost) pid namespace */
	uint64_t pid_ns_dev; /* device and inode of that namespace */
	uint64_t pid_ns_ino;
	uint64_t start_ticks; /* since boot, in clock ticks: pid and this are an identity */
	uint64_t start_stack; /* where the main thread's stack began: argc lies there; 0 unknown */
	int64_t clock_offset_ns; /* of its CLOCK_MONOTONIC to ours: time namespaces */
	char comm[16 * 4];       /* name of the main thread, safe to show */
	char *cmdline; /* arguments joined by spaces, safe to show; comm if there are none */
	char *exe;     /* where /proc/PID/exe points, safe to show; "" if unknown */
};

/* Opens a process. A thread id stands for its process: `info.pid` then differs from `pid`.
 * Errors: CPROF_NO_PROCESS for a missing pid or a zombie; CPROF_DENIED for a kernel thread, a
 * process we may not look into (with rule and remedy), or a 32-bit one. */
struct cprof_error *cprof_target_create(pid_t pid, struct cprof_target **target);
void cprof_target_destroy(struct cprof_target *target);

const struct cprof_target_info *cprof_target_info(const struct cprof_target *target);
int cprof_target_pidfd(const struct cprof_target *target);  /* readable once the process ended */
int cprof_target_procfd(const struct cprof_target *target); /* the /proc/PID directory */
bool cprof_target_alive(const struct cprof_target *target);
/* Procfs's state letter of the main thread ('T' stopped), or 0. */
char cprof_target_state(const struct cprof_target *target);

/* After an exec: the new exe, comm, cmdline and start_stack, which no other thread may be reading
 * meanwhile; the rest of the info never changes. */
struct cprof_error *cprof_target_reload(struct cprof_target *target);

/* A time of our CLOCK_MONOTONIC as the target's has it; NULL: the same. */
uint64_t cprof_target_time_ns(const struct cprof_target *target, uint64_t ns);
/* The effective uid now; (uid_t)-1 if the process is gone. From any thread. */
uid_t cprof_target_uid(const struct cprof_target *target);

/* Thread ids now, ascending; the caller frees. */
struct cprof_error *cprof_target_threads(const struct cprof_target *target, pid_t **tids,
					 size_t *count);
/* A thread's name, safe to show; false once it is gone. */
bool cprof_target_thread_name(const struct cprof_target *target, pid_t tid, char *name,
			      size_t size);
/* Whether a --thread filter (a tid or a name each, NULL-ended) names this thread. */
bool cprof_thread_matches(const char *const *filter, pid_t tid, const char *name);
/* CPU time of the whole process so far (user + system, dead threads included), in ns; 0 unknown. */
uint64_t cprof_target_cpu_ns(const struct cprof_target *target);

/* One line of /proc/PID/maps. */
struct cprof_mapping {
	uint64_t start;
	uint64_t end;
	uint64_t offset; /* in the file */
	uint64_t inode;  /* 0: not a file */
	uint32_t device_major;
	uint32_t device_minor;
	uint8_t prot;     /* PROT_READ | PROT_WRITE | PROT_EXEC */
	const char *path; /* as the kernel shows it ("" if anonymous), not safe to show */
};

/* Calls `each` for every mapping in ascending order; stops when it returns an error.
 * `path` lives only during the call. */
struct cprof_error *cprof_target_maps(const struct cprof_target *target,
				      struct cprof_error *(*each)(void *context,
								  const struct cprof_mapping *),
				      void *context);

/* A number that changes when the executable mappings of files do: much cheaper than all maps.
 * False where the kernel cannot tell (before 6.11), or the process is gone. */
bool cprof_target_code_fingerprint(const struct cprof_target *target, uint64_t *fingerprint);

/*
 * Opens the file behind a mapping, read-only: by map_files, by exe, else by path inside the
 * target's root (no link leads out of it). Only regular files are opened; -1 with errno set.
 * Works for a while after the target's end. `*verified`: it is that very file. If not, device or
 * inode differ from the mapping's (as on file systems with devices of their own, or because
 * another file stands there now): the caller must compare more, the build-id say.
 */
int cprof_target_open_file(const struct cprof_target *target, const struct cprof_mapping *mapping,
			   bool *verified);
/* Opens a path inside the target's root, regular files only; `follow`: a link at its end too (it
 * cannot lead out of the root). -1 with errno set. */
int cprof_target_open_path(const struct cprof_target *target, const char *path, bool follow);

/* Copies from the target's memory; returns the bytes copied, from the front, up to the first that
 * cannot be read. */
size_t cprof_target_read(const struct cprof_target *target, uint64_t address, void *buffer,
			 size_t length);

#endif
