/* SPDX-License-Identifier: MIT
 *
 * What listings of source and of code have in common: which samples count, and files.
 */
#include "private.h"

#include <cprof/util.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

struct cprof_listing *cprof_listing_create(const struct cprof_profile *profile, uint32_t function,
					   const char *file)
{
	struct cprof_listing *listing = calloc(1, sizeof(*listing));
	struct cprof_listing_memory *memory = calloc(1, sizeof(*memory));

	if (listing)
		listing->memory = memory;
	if (memory) {
		memory->function = strdup(profile->strings[profile->functions[function].name]);
		memory->file = strdup(file);
	}
	if (!listing || !memory || !memory->function || !memory->file) {
		if (!listing)
			free(memory);
		cprof_listing_destroy(listing);
		return NULL;
	}
	listing->function = memory->function;
	listing->file = memory->file;
	return listing;
}

void cprof_listing_destroy(struct cprof_listing *listing)
{
	struct cprof_listing_memory *memory;

	if (!listing)
		return;
	memory = listing->memory;
	if (memory) {
		free(memory->text);
		free(memory->function);
		free(memory->file);
	}
	free(memory);
	free(listing->rows);
	free(listing);
}

struct cprof_error *cprof_listing_check(const struct cprof_profile *profile, uint32_t function,
					const struct cprof_listing_options *options)
{
	if (!function || function >= profile->function_count || options->type < 0 ||
	    (size_t)options->type >= profile->type_count)
		return cprof_error_create(CPROF_FAILED, NULL, "nothing is known of this function");
	return NULL;
}

/* --- samples ------------------------------------------------------------------------------- */

bool *cprof_listing_match(const struct cprof_profile *profile, uint32_t function)
{
	const struct cprof_profile_function *wanted = &profile->functions[function];
	bool *match = calloc(profile->function_count, sizeof(*match));

	for (size_t i = 1; i < profile->function_count && match; i++)
		match[i] = profile->functions[i].name == wanted->name &&
			   profile->functions[i].file == wanted->file;
	return match;
}

void cprof_listing_walk(const struct cprof_profile *profile, const bool *match, size_t type,
			void (*visit)(void *context, const struct cprof_listing_visit *visit),
			void *context)
{
	for (uint32_t i = 0; i < profile->sample_count; i++) {
		const struct cprof_profile_span *stack =
			&profile->stacks[profile->samples[i].stack];
		struct cprof_listing_visit here = {
			.sample = i, .value = profile->values[i * profile->type_count + type]};

		for (uint32_t j = 0; j < stack->count && here.value; j++) {
			const struct cprof_profile_location *location;

			here.location = profile->stack_items[stack->first + j];
			location = &profile->locations[here.location];
			for (uint32_t k = 0; k < location->line_count; k++) {
				here.line = location->first_line + k;
				here.top = !j;
				here.leaf = !j && !k;
				if (match[profile->lines[here.line].function])
					visit(context, &here);
			}
		}
	}
}

void cprof_listing_sum(struct cprof_listing_sum *sum, const struct cprof_listing_visit *visit)
{
	if (visit->leaf)
		sum->listing->flat = cprof_listing_add(sum->listing->flat, visit->value);
	if (sum->seen != visit->sample + 1) /* a recursive function counts once */
		sum->listing->cum = cprof_listing_add(sum->listing->cum, visit->value);
	sum->seen = visit->sample + 1;
}

void cprof_listing_find_hottest(struct cprof_listing *listing)
{
	for (size_t i = 1; i < listing->count; i++) {
		const struct cprof_listing_row *row = &listing->rows[i];
		const struct cprof_listing_row *best = &listing->rows[listing->hottest];

		if (row->flat > best->flat || (row->flat == best->flat && row->cum > best->cum))
			listing->hottest = i;
	}
}

/* --- files --------------------------------------------------------------------------------- */

/* A device or a pipe could hang us. */
static int open_regular(const struct cprof_listing_options *options, const char *path)
{
	struct stat stat;
	int fd;

	if (options->open)
		fd = options->open(options->context, path);
	else
		fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0)
		return -1;
	if (fstat(fd, &stat) == 0 && S_ISREG(stat.st_mode))
		return fd;
	close(fd);
	errno = EINVAL;
	return -1;
}

/* Below one of the directories: with all of the path, then with less and less of its front. */
static int open_below(const struct cprof_listing_options *options, const char *path)
{
	const char *next = options->source_path;
	char whole[4096];

	while (next && *next) {
		int length = (int)strcspn(next, ":");

		for (const char *rest = path; rest && *rest;) {
			const char *slash = strchr(rest, '/');
			int fd = -1;

			if (!strstr(rest, "..") && snprintf(whole, sizeof(whole), "%.*s/%s", length,
							    next, rest) < (int)sizeof(whole))
				fd = open_regular(&(struct cprof_listing_options){.open = NULL},
						  whole);
			if (fd >= 0)
				return fd;
			rest = slash ? slash + 1 : NULL;
		}
		next += length;
		next += *next == ':';
	}
	return -1;
}

int cprof_listing_open(const struct cprof_listing_options *options, const char *path, bool source)
{
	int fd = open_regular(options, path);
	int error = errno;

	if (fd < 0 && source)
		fd = open_below(options, path);
	errno = error;
	return fd;
}
