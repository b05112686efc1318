/* SPDX-License-Identifier: MIT */
#include <cprof/error.h>
#include <cprof/util.h>
#include <errno.h>
#include <stdarg.h>
#include <string.h>

static char no_memory_message[] = "out of memory";
static struct cprof_error no_memory = {
	.status = CPROF_FAILED,
	.errnum = ENOMEM,
	.message = no_memory_message,
};

struct cprof_error *cprof_error_nomem(void)
{
	return &no_memory;
}

/* Takes `message` over; NULL means that there was no memory for it. */
static struct cprof_error *error_of(enum cprof_status status, int errnum, const char *remedy,
				    char *message)
{
	struct cprof_error *error = malloc(sizeof(*error));
	char *remedy_copy = remedy ? cprof_text_clean_dup(remedy) : NULL;

	if (!error || !message || (remedy && !remedy_copy)) {
		free(error);
		free(message);
		free(remedy_copy);
		return &no_memory;
	}
	cprof_text_clean(message, strlen(message), message, strlen(message) + 1);
	*error = (struct cprof_error){
		.status = status,
		.errnum = errnum,
		.message = message,
		.remedy = remedy_copy,
	};
	return error;
}

struct cprof_error *cprof_error_create(enum cprof_status status, const char *remedy,
				       const char *format, ...)
{
	va_list arguments;
	char *message;

	va_start(arguments, format);
	if (vasprintf(&message, format, arguments) < 0)
		message = NULL;
	va_end(arguments);
	return error_of(status, 0, remedy, message);
}

struct cprof_error *cprof_error_errno(enum cprof_status status, int errnum, const char *remedy,
				      const char *format, ...)
{
	CPROF_AUTO_FREE char *what = NULL;
	char reason[128];
	va_list arguments;
	char *message;

	va_start(arguments, format);
	if (vasprintf(&what, format, arguments) < 0)
		what = NULL;
	va_end(arguments);
	if (!what ||
	    asprintf(&message, "%s: %s", what, strerror_r(errnum, reason, sizeof(reason))) < 0)
		message = NULL;
	return error_of(status, errnum, remedy, message);
}

void cprof_error_destroy(struct cprof_error *error)
{
	if (!error || error == &no_memory)
		return;
	free(error->message);
	free(error->remedy);
	free(error);
}

void cprof_error_print(const struct cprof_error *error, FILE *stream)
{
	CPROF_AUTO_FREE char *line = NULL;
	int length;

	if (error->remedy)
		length = asprintf(&line, "cprof-attach: %s (%s)\n", error->message, error->remedy);
	else
		length = asprintf(&line, "cprof-attach: %s\n", error->message);
	if (length < 0) {
		line = NULL;
		fputs("cprof-attach: out of memory\n", stream);
		return;
	}
	fwrite(line, 1, (size_t)length, stream);
	fflush(stream);
}
