/* SPDX-License-Identifier: MIT
 *
 * profile.proto, gzipped: written so that `go tool pprof` needs nothing else, read from anybody.
 * The format: github.com/google/pprof, proto/profile.proto.
 */
#ifndef CPROF_PPROF_H
#define CPROF_PPROF_H

#include <cprof/error.h>
#include <cprof/profile.h>

/* Encodes and compresses; the caller frees `*bytes`. All text is made valid, harmless UTF-8. */
struct cprof_error *cprof_pprof_encode(const struct cprof_profile *profile, void **bytes,
				       size_t *length);

/* Most bytes a profile may have, uncompressed. */
#define CPROF_PPROF_MAX (1ull << 30)

/* Decodes (gzipped or plain). Everything in it is checked: indices, ids, sizes, ratios. */
struct cprof_error *cprof_pprof_decode(const void *bytes, size_t length,
				       struct cprof_profile **profile);
/* Reads a file ("-" is stdin) of any size up to CPROF_PPROF_MAX; errors carry its name. */
struct cprof_error *cprof_pprof_read(const char *path, struct cprof_profile **profile);

#endif
