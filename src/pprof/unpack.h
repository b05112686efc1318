/* SPDX-License-Identifier: MIT
 *
 * gzip data to plain bytes, bounded.
 */
#ifndef CPROF_PPROF_UNPACK_H
#define CPROF_PPROF_UNPACK_H

#include <cprof/error.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

bool cprof_gzip_is(const void *bytes, size_t length);
/* All members of a gzip file; the caller frees `*plain`. */
struct cprof_error *cprof_gzip_unpack(const void *bytes, size_t length, uint8_t **plain,
				      size_t *plain_length);
/* "not a profile: REASON" */
struct cprof_error *cprof_not_a_profile(const char *format, ...)
	__attribute__((format(printf, 1, 2)));

#endif
