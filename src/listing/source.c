/* SPDX-License-Identifier: MIT
 *
 * A function's source lines with what each costs.
 */
#include "private.h"

#include <cprof/util.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#define MARGIN                                                                                     \
	5 /* lines before the first sample, where the start is not known, and after the last */

/* A line that has samples. */
struct cost {
	int64_t line;
	int64_t flat;
	int64_t cum;
	uint32_t seen; /* the last sample, plus one */
};

struct source {
	const struct cprof_profile *profile;
	struct cost *costs; /* ascending */
	size_t count;
	struct cprof_listing_sum sum;
};

static int compare_costs(const void *a, const void *b)
{
	const struct cost *x = a;
	const struct cost *y = b;

	return (x->line > y->line) - (x->line < y->line);
}

/* All lines of the function that the profile knows. */
static bool list_lines(struct source *source, const bool *match)
{
	const struct cprof_profile *profile = source->profile;
	size_t kept = 0;
	size_t count = 0;

	source->costs = calloc(profile->line_count + 1, sizeof(*source->costs));
	if (!source->costs)
		return false;
	for (size_t i = 0; i < profile->line_count; i++)
		if (match[profile->lines[i].function] && profile->lines[i].line > 0)
			source->costs[count++].line = profile->lines[i].line;
	qsort(source->costs, count, sizeof(*source->costs), compare_costs);
	for (size_t i = 0; i < count; i++)
		if (!kept || source->costs[kept - 1].line != source->costs[i].line)
			source->costs[kept++].line = source->costs[i].line;
	source->count = kept;
	return true;
}

static void visit(void *context, const struct cprof_listing_visit *visit)
{
	struct source *source = context;
	const struct cost key = {.line = source->profile->lines[visit->line].line};
	struct cost *cost;

	cprof_listing_sum(&source->sum, visit);
	cost = source->count
		       ? bsearch(&key, source->costs, source->count, sizeof(key), compare_costs)
		       : NULL;
	if (!cost)
		return;
	if (visit->leaf)
		cost->flat = cprof_listing_add(cost->flat, visit->value);
	if (cost->seen != visit->sample + 1)
		cost->cum = cprof_listing_add(cost->cum, visit->value);
	cost->seen = visit->sample + 1;
}

/* Lines nobody has samples of are of no use for where to begin. */
static void drop_empty(struct source *source)
{
	size_t kept = 0;

	for (size_t i = 0; i < source->count; i++)
		if (source->costs[i].flat || source->costs[i].cum)
			source->costs[kept++] = source->costs[i];
	source->count = kept;
}

/* --- the file ------------------------------------------------------------------------------ */

static struct cprof_error *no_source(const char *path, int errnum)
{
	CPROF_AUTO_FREE char *clean = cprof_text_clean_dup(path);

	if (errnum == EINVAL)
		return cprof_error_create(CPROF_FAILED, NULL, "%s: not a regular file",
					  clean ? clean : "source");
	return cprof_error_errno(CPROF_FAILED, errnum, NULL, "%s", clean ? clean : "source");
}

static struct cprof_error *read_source(const struct cprof_listing_options *options,
				       const char *path, char **text, size_t *length)
{
	CPROF_AUTO_CLOSE int fd = cprof_listing_open(options, path, true);
	CPROF_AUTO_FREE char *bytes = NULL;
	size_t capacity = 0;
	size_t have = 0;

	if (fd < 0)
		return no_source(path, errno);
	for (;;) {
		ssize_t got;

		if (have >= CPROF_LISTING_FILE)
			return cprof_error_create(CPROF_FAILED, NULL,
						  "the source file is larger than %u MB",
						  CPROF_LISTING_FILE >> 20);
		if (!cprof_grow(&bytes, &capacity, have + 65536 + 1, 1))
			return cprof_error_nomem();
		got = read(fd, bytes + have, 65536);
		if (got < 0 && errno != EINTR)
			return no_source(path, errno);
		if (!got)
			break;
		have += (size_t)CPROF_MAX(got, 0);
	}
	bytes[have] = '\0';
	*length = have;
	*text = cprof_take(bytes);
	return NULL;
}

/* --- rows ---------------------------------------------------------------------------------- */

static void choose_range(const struct source *source, int64_t start_line, int64_t *first,
			 int64_t *last)
{
	int64_t lowest = source->costs[0].line;
	int64_t highest = source->costs[source->count - 1].line;

	*first = start_line > 0 && start_line <= lowest ? start_line : lowest - MARGIN;
	*first = CPROF_MAX(*first, 1);
	/* What a file says of its lines need not be true. */
	if (lowest - *first > CPROF_LISTING_ROWS / 2)
		*first = lowest - MARGIN;
	*last = highest > INT64_MAX - MARGIN ? highest : highest + MARGIN;
	if (*last - *first >= CPROF_LISTING_ROWS)
		*last = *first + CPROF_LISTING_ROWS - 1;
}

/* Cuts the text into lines and keeps those in the range. */
static bool fill_rows(const struct source *source, char *text, size_t length, int64_t first,
		      int64_t last, struct cprof_listing *listing)
{
	char *end = text + length;
	size_t capacity = 0;
	int64_t number = 1;

	for (char *line = text; line < end && number <= last; number++) {
		char *newline = memchr(line, '\n', (size_t)(end - line));
		const struct cost key = {.line = number};
		const struct cost *cost;

		if (newline)
			*newline = '\0';
		if (number >= first) {
			size_t used = strlen(line);

			if (used && line[used - 1] == '\r')
				line[used - 1] = '\0';
			if (!cprof_grow(&listing->rows, &capacity, listing->count + 1,
					sizeof(*listing->rows)))
				return false;
			cost = bsearch(&key, source->costs, source->count, sizeof(key),
				       compare_costs);
			listing->rows[listing->count++] = (struct cprof_listing_row){
				.line = number,
				.flat = cost ? cost->flat : 0,
				.cum = cost ? cost->cum : 0,
				.text = line,
			};
		}
		line = newline ? newline + 1 : end;
	}
	return true;
}

static struct cprof_error *fill(struct source *source, uint32_t function,
				const struct cprof_listing_options *options,
				struct cprof_listing *listing)
{
	const struct cprof_profile *profile = source->profile;
	CPROF_AUTO_FREE bool *match = cprof_listing_match(profile, function);
	struct cprof_listing_memory *memory = listing->memory;
	int64_t first;
	int64_t last;
	size_t length = 0;

	if (!match || !list_lines(source, match))
		return cprof_error_nomem();
	source->sum.listing = listing;
	cprof_listing_walk(profile, match, (size_t)options->type, visit, source);
	drop_empty(source);
	if (!source->count)
		return cprof_error_create(CPROF_FAILED, NULL,
					  "no line of this function is known: it was built without "
					  "debug information (-g)");
	CPROF_TRY(read_source(options, listing->file, &memory->text, &length));
	choose_range(source, profile->functions[function].start_line, &first, &last);
	if (!fill_rows(source, memory->text, length, first, last, listing))
		return cprof_error_nomem();
	if (!listing->count)
		return cprof_error_create(CPROF_FAILED, NULL,
					  "the source file is another one than was built: it has "
					  "fewer lines than %" PRId64,
					  first);
	cprof_listing_find_hottest(listing);
	return NULL;
}

struct cprof_error *cprof_listing_source(const struct cprof_profile *profile, uint32_t function,
					 const struct cprof_listing_options *options,
					 struct cprof_listing **result)
{
	struct source source = {.profile = profile};
	struct cprof_listing *listing;
	struct cprof_error *error;
	const char *file;

	*result = NULL;
	CPROF_TRY(cprof_listing_check(profile, function, options));
	file = profile->strings[profile->functions[function].file];
	if (!*file)
		return cprof_error_create(CPROF_FAILED, NULL,
					  "the source file of this function is not known: it was "
					  "built without debug information (-g)");
	listing = cprof_listing_create(profile, function, file);
	if (!listing)
		return cprof_error_nomem();
	error = fill(&source, function, options, listing);
	free(source.costs);
	if (error)
		cprof_listing_destroy(listing);
	else
		*result = listing;
	return error;
}
