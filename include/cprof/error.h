/* SPDX-License-Identifier: MIT
 *
 * Errors: every fallible call returns `struct cprof_error *`, NULL meaning success. The caller owns
 * what it gets and either hands it up or ends it with cprof_error_destroy().
 */
#ifndef CPROF_ERROR_H
#define CPROF_ERROR_H

#include <stdio.h>

/* What went wrong, as the process's exit status tells it. */
enum cprof_status {
	CPROF_OK = 0,
	CPROF_FAILED = 1, /* the work failed */
	CPROF_USAGE = 2,  /* the command line makes no sense */
	CPROF_DENIED = 3, /* not permitted or not supported here; `remedy` says what would help */
	CPROF_NO_PROCESS = 4, /* no such process, or a zombie */
};

struct cprof_error {
	enum cprof_status status;
	int errnum;    /* the errno behind it, 0 if none */
	char *message; /* "what: why", one line, safe for a terminal */
	char *remedy;  /* what the user can do about it, or NULL */
};

/* Both build an error; `remedy` may be NULL. The _errno form appends ": " and strerror(errnum).
 * Never fails: without memory it returns a static error that says so. */
struct cprof_error *cprof_error_create(enum cprof_status status, const char *remedy,
				       const char *format, ...)
	__attribute__((format(printf, 3, 4)));
struct cprof_error *cprof_error_errno(enum cprof_status status, int errnum, const char *remedy,
				      const char *format, ...)
	__attribute__((format(printf, 4, 5)));
struct cprof_error *cprof_error_nomem(void);
void cprof_error_destroy(struct cprof_error *error); /* NULL is fine */

/* Writes "cprof-attach: message (remedy)\n" in one write. */
void cprof_error_print(const struct cprof_error *error, FILE *stream);

/* Hands an error up: CPROF_TRY(call(...)); */
#define CPROF_TRY(call)                                                                            \
	do {                                                                                       \
		struct cprof_error *cprof_try_error_ = (call);                                     \
		if (cprof_try_error_)                                                              \
			return cprof_try_error_;                                                   \
	} while (0)

#endif
