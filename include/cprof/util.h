/* SPDX-License-Identifier: MIT
 *
 * What every floor needs: cleanup attributes, growing arrays, hashes, clocks, safe text.
 */
#ifndef CPROF_UTIL_H
#define CPROF_UTIL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* Runs `function(&variable)` when the variable goes out of scope; cprof_take() gives it away. */
#define CPROF_CLEANUP(function) __attribute__((cleanup(function)))
#define CPROF_AUTO_FREE         CPROF_CLEANUP(cprof_auto_free_)
#define CPROF_AUTO_CLOSE        CPROF_CLEANUP(cprof_auto_close_)
#define CPROF_AUTO_FCLOSE       CPROF_CLEANUP(cprof_auto_fclose_)

static inline void cprof_auto_free_(void *pointer)
{
	free(*(void **)pointer);
}

static inline void cprof_auto_close_(const int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

static inline void cprof_auto_fclose_(FILE **stream)
{
	if (*stream)
		fclose(*stream);
}

/* The value of a pointer variable, which becomes NULL. */
#define cprof_take(variable)                                                                       \
	({                                                                                         \
		__typeof__(variable) cprof_taken_ = (variable);                                    \
		(variable) = NULL;                                                                 \
		cprof_taken_;                                                                      \
	})

#define CPROF_COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define CPROF_MIN(a, b)    ((a) < (b) ? (a) : (b))
#define CPROF_MAX(a, b)    ((a) > (b) ? (a) : (b))

/* Makes room for `need` items of `size` bytes in the array `*items` of `*capacity`.
 * False without memory; the array is then unchanged. */
bool cprof_grow(void *items, size_t *capacity, size_t need, size_t size);

/* A well mixed hash of one word; of a byte string. */
static inline uint64_t cprof_hash_u64(uint64_t x)
{
	x *= 0x9e3779b97f4a7c15ull; /* 2^64 / golden ratio (Fibonacci hashing) */
	return x ^ (x >> 32);
}
uint64_t cprof_hash_bytes(const void *bytes, size_t length);

/* Nanoseconds: CLOCK_MONOTONIC, the wall clock, CPU time of this process. */
uint64_t cprof_now_ns(void);
uint64_t cprof_wall_ns(void);
uint64_t cprof_own_cpu_ns(void);
/* CPU time of the calling thread, in ns. */
uint64_t cprof_thread_cpu_ns(void);

/* Resident set of this process now and at its peak, in bytes (0 if procfs cannot tell). */
uint64_t cprof_own_rss(void);
uint64_t cprof_own_peak_rss(void);

/*
 * Copies text for showing: control characters (C0, DEL, C1), bidirectional overrides and invalid
 * UTF-8 become '?'. `target` is always terminated; a cut never splits a character. Returns the
 * length written. In place is fine. The result is never longer than the source.
 */
size_t cprof_text_clean(const char *source, size_t length, char *target, size_t size);
/* The same as a new string; NULL without memory. */
char *cprof_text_clean_dup(const char *source);

/* Reads a small procfs-like file whole, terminated; what is beyond `limit` bytes is cut off.
 * `length` may be NULL. NULL with errno set. */
char *cprof_read_file_at(int dirfd, const char *path, size_t limit, size_t *length);

#endif
