/* SPDX-License-Identifier: MIT
 *
 * A function of a profile, line by line or instruction by instruction, each with its cost. Data,
 * no text layout. Text in here comes from the target's files and is not safe to show.
 */
#ifndef CPROF_LISTING_H
#define CPROF_LISTING_H

#include <cprof/error.h>
#include <cprof/profile.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cprof_listing_row {
	int64_t line;     /* source: its number; code: the source line it comes from, 0 unknown */
	uint64_t address; /* code: as in the file; source: 0 */
	int64_t flat;     /* in the unit of the value type; code: of what is inlined there, too */
	int64_t cum;
	const char *text; /* the line, or the instruction ("mov (%rdi),%rax") */
};
struct cprof_listing {
	const char *function;
	const char *file; /* source file, or the binary's path */
	struct cprof_listing_row *rows;
	size_t count;
	size_t hottest; /* index of the row with the most flat (then cum) */
	int64_t flat;   /* of the whole function */
	int64_t cum;
	void *memory; /* private: what the strings live in */
};

struct cprof_listing_options {
	int type; /* index of the value type */
	/* Opens a file by the path that the profile names, or -1 with errno; NULL: open(2), and for
	 * source files also below `source_path`. */
	int (*open)(void *context, const char *path);
	void *context;
	const char *source_path; /* directories, ':' between, NULL none */
};

/* The lines of a function's source file around those that have samples. CPROF_FAILED with the
 * reason where the file is not there or is not regular. */
struct cprof_error *cprof_listing_source(const struct cprof_profile *profile, uint32_t function,
					 const struct cprof_listing_options *options,
					 struct cprof_listing **listing);
/* The instructions of a function, from the binary (checked by build-id where the profile has one).
 */
struct cprof_error *cprof_listing_code(const struct cprof_profile *profile, uint32_t function,
				       const struct cprof_listing_options *options,
				       struct cprof_listing **listing);
void cprof_listing_destroy(struct cprof_listing *listing);

#endif
