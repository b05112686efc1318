/* SPDX-License-Identifier: MIT
 *
 * Output that is whole or not there: a temporary in the same directory, fsync, rename; mode 0600;
 * under sudo it belongs to the invoking user. Devices, FIFOs and "-" (stdout) are written directly;
 * "/dev/stdout" and the like are followed, any other symlink is refused.
 */
#ifndef CPROF_OUTFILE_H
#define CPROF_OUTFILE_H

#include <cprof/error.h>
#include <stdbool.h>
#include <stddef.h>

/* Whether `path` could be written, told before the work is done: missing directory, read-only
 * file system, symlink, no permission. Writes and creates nothing. */
struct cprof_error *cprof_outfile_check(const char *path);

/* Writes all of it; on any error (a full disk included) nothing is left behind and what was there
 * before is untouched. A FIFO without a reader waits for one, or for a signal whose handler does
 * not restart calls. */
struct cprof_error *cprof_outfile_write(const char *path, const void *bytes, size_t length);

struct cprof_outname {
	const char *event;     /* %e */
	const char *comm;      /* %c */
	const char *extension; /* for the default name: "pb.gz", "txt", … */
	int pid;               /* %p; 0 not known: not part of the default name */
	long long wall_s;      /* %t: seconds since the epoch */
	bool several;          /* more than one kind is written: a pattern without %e is refused */
};

/* Fills in a pattern of -o (NULL: "%c.%p.%e.%n.EXT"). The caller frees `*path`.
 * An unknown % sequence is a usage error. %n is the first number from 001 whose file is missing. */
struct cprof_error *cprof_outfile_name(const char *pattern, const struct cprof_outname *name,
				       char **path);

#endif
