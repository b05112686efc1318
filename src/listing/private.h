/* SPDX-License-Identifier: MIT
 *
 * What the files of the listing floor share.
 */
#ifndef CPROF_LISTING_PRIVATE_H
#define CPROF_LISTING_PRIVATE_H

#include <cprof/listing.h>

/* Bounds of what is listed, whatever a profile or a file says. */
#define CPROF_LISTING_ROWS 20000
#define CPROF_LISTING_FILE (32u << 20) /* bytes of a source file */
#define CPROF_LISTING_CODE (1u << 20)  /* bytes of a function */

/* What a listing's strings live in. */
struct cprof_listing_memory {
	char *text; /* a file, or all instructions */
	char *function;
	char *file;
};

/* A listing without rows; NULL without memory. */
struct cprof_listing *cprof_listing_create(const struct cprof_profile *profile, uint32_t function,
					   const char *file);

/* Which functions of the profile are the one asked for: one function has several entries where its
 * inlined copies differ. NULL without memory; the caller frees. */
bool *cprof_listing_match(const struct cprof_profile *profile, uint32_t function);

/* Calls `visit` for every sample and frame location (with the innermost first) that has one of the
 * functions, with the sample's value; `line` is the first such line of it. */
struct cprof_listing_visit {
	uint32_t sample; /* its index */
	uint32_t location;
	uint32_t line; /* index into profile->lines */
	bool top;      /* it is in the innermost frame … */
	bool leaf;     /* … and the innermost line there */
	int64_t value;
};
void cprof_listing_walk(const struct cprof_profile *profile, const bool *match, size_t type,
			void (*visit)(void *context, const struct cprof_listing_visit *visit),
			void *context);

/* Adds a visit to the sums of the whole function. */
struct cprof_listing_sum {
	struct cprof_listing *listing;
	uint32_t seen; /* the last sample, plus one */
};
void cprof_listing_sum(struct cprof_listing_sum *sum, const struct cprof_listing_visit *visit);

void cprof_listing_find_hottest(struct cprof_listing *listing);

/* A regular file by the path that a profile names; -1 with errno. */
int cprof_listing_open(const struct cprof_listing_options *options, const char *path, bool source);
struct cprof_error *cprof_listing_check(const struct cprof_profile *profile, uint32_t function,
					const struct cprof_listing_options *options);

static inline int64_t cprof_listing_add(int64_t a, int64_t b)
{
	int64_t sum;

	if (__builtin_add_overflow(a, b, &sum))
		return b < 0 ? INT64_MIN : INT64_MAX;
	return sum;
}

/* disassemble.c: one instruction after the other. */
struct cprof_code;
struct cprof_error *cprof_code_create(struct cprof_code **code);
void cprof_code_destroy(struct cprof_code *code);
/* The length of the instruction at `bytes`; its text, and where it jumps or calls to, 0 nowhere.
 * What cannot be decoded is one byte. */
size_t cprof_code_next(struct cprof_code *code, const uint8_t *bytes, size_t length,
		       uint64_t address, char *text, size_t size, uint64_t *target);

#endif
