/* SPDX-License-Identifier: MIT
 *
 * A function's instructions with what each costs, from the file that its samples were taken in.
 */
#include "private.h"

#include <cprof/image.h>
#include <cprof/util.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define TEXT_MAX 224 /* of an instruction with the name of its target */

struct code {
	const struct cprof_profile *profile;
	const struct cprof_listing_options *options;
	struct cprof_listing *listing;
	struct cprof_image *image;
	uint32_t mapping; /* that the function is in */
	uint64_t bias;
	uint64_t start; /* of the symbol, in the image */
	uint64_t end;
	uint32_t *seen; /* by row: the last sample, plus one */
	uint32_t ran;   /* the last sample whose instruction has been counted, plus one */
	struct cprof_listing_sum sum;
};

static void code_deinit(struct code *code)
{
	cprof_image_destroy(code->image);
	free(code->seen);
}

/* --- where it is --------------------------------------------------------------------------- */

/* Weights of the places where the function was met. */
struct places {
	const struct cprof_profile *profile;
	double *weights; /* by location */
};

static void weigh(void *context, const struct cprof_listing_visit *visit)
{
	struct places *places = context;
	double value = (double)visit->value;

	/* Where it ran itself says more than whom it called. */
	places->weights[visit->location] +=
		(value < 0 ? -value : value) * (visit->leaf ? 1000.0 : 1.0);
}

/* The location with most weight; 0: there is none. Kernel and JIT code have no file. */
static struct cprof_error *find_place(const struct code *code, const bool *match,
				      uint32_t *location)
{
	const struct cprof_profile *profile = code->profile;
	CPROF_AUTO_FREE double *weights = calloc(profile->location_count, sizeof(*weights));
	struct places places = {.profile = profile, .weights = weights};

	*location = 0;
	if (!weights)
		return cprof_error_nomem();
	cprof_listing_walk(profile, match, (size_t)code->options->type, weigh, &places);
	for (uint32_t i = 1; i < profile->location_count; i++)
		if (profile->locations[i].mapping && weights[i] > weights[*location])
			*location = i;
	if (!*location)
		return cprof_error_create(CPROF_FAILED, NULL,
					  "no address of this function is known");
	return NULL;
}

/* --- the file ------------------------------------------------------------------------------ */

static void build_id_text(const struct cprof_image_info *info, char *text, size_t size)
{
	size_t length = 0;

	text[0] = '\0';
	for (uint32_t i = 0; i < info->build_id_length && length + 3 <= size; i++)
		length += (size_t)snprintf(text + length, size - length, "%02x", info->build_id[i]);
}

/* Symbols of a stripped file may be in one of their own. */
static void add_debug(const struct code *code, const char *build_id)
{
	char path[2 * CPROF_BUILD_ID_MAX + 64];
	int fd;

	if (strlen(build_id) < 4 || cprof_image_info(code->image)->has_debug_info)
		return;
	snprintf(path, sizeof(path), "/usr/lib/debug/.build-id/%.2s/%s.debug", build_id,
		 build_id + 2);
	fd = cprof_listing_open(code->options, path, false);
	if (fd < 0)
		return;
	cprof_image_add_debug(code->image, fd);
	close(fd);
}

static struct cprof_error *open_image(struct code *code)
{
	const struct cprof_profile_mapping *mapping = &code->profile->mappings[code->mapping];
	const char *path = code->profile->strings[mapping->file];
	const char *wanted = code->profile->strings[mapping->build_id];
	CPROF_AUTO_FREE char *clean = cprof_text_clean_dup(path);
	char found[2 * CPROF_BUILD_ID_MAX + 1];
	CPROF_AUTO_CLOSE int fd = -1;

	if (!clean)
		return cprof_error_nomem();
	if (path[0] != '/')
		return cprof_error_create(CPROF_FAILED, NULL, "%s: its code is in no file",
					  *clean ? clean : "this function");
	fd = cprof_listing_open(code->options, path, false);
	if (fd < 0 && errno == EINVAL)
		return cprof_error_create(CPROF_FAILED, NULL, "%s: not a regular file", clean);
	if (fd < 0)
		return cprof_error_errno(CPROF_FAILED, errno, NULL, "%s", clean);
	CPROF_TRY(cprof_image_create(fd, &code->image));
	build_id_text(cprof_image_info(code->image), found, sizeof(found));
	if (*wanted && strcmp(wanted, found) != 0)
		return cprof_error_create(
			CPROF_FAILED, NULL,
			"%s: the file there is another one than was profiled (build-id %.40s)",
			clean, *found ? found : "none");
	if (!cprof_image_bias(code->image, mapping->start, mapping->offset, &code->bias))
		return cprof_error_create(CPROF_FAILED, NULL, "%s: it does not fit what was mapped",
					  clean);
	add_debug(code, found);
	return NULL;
}

static struct cprof_error *find_bounds(struct code *code, uint64_t address)
{
	if (!cprof_image_function(code->image, address, &code->start, &code->end) ||
	    code->end <= code->start)
		return cprof_error_create(CPROF_FAILED, NULL,
					  "the file has no symbol for this function");
	if (code->end - code->start > CPROF_LISTING_CODE)
		code->end = code->start + CPROF_LISTING_CODE;
	return NULL;
}

/* --- rows ---------------------------------------------------------------------------------- */

/* "… <name>" for what is called or jumped to outside of the function. */
static void add_target(const struct code *code, uint64_t target, char *text, size_t size)
{
	size_t length = strlen(text);
	struct cprof_names names;
	struct cprof_error *error;

	if (!target || (target >= code->start && target < code->end))
		return;
	error = cprof_image_names(code->image, &target, 1,
				  CPROF_NAMES_NO_INLINES | CPROF_NAMES_NO_LINES, &names);
	if (!error && names.count && *(names.strings + names.names[0].name))
		snprintf(text + length, size - length, " <%s>",
			 names.strings + names.names[0].name);
	if (!error)
		cprof_names_deinit(&names);
	cprof_error_destroy(error);
}

static struct cprof_error *disassemble(struct code *code, const uint8_t *bytes, size_t length)
{
	struct cprof_listing *listing = code->listing;
	struct cprof_listing_memory *memory = listing->memory;
	struct cprof_code *decoder;
	size_t text_capacity = 0;
	size_t capacity = 0;
	size_t used = 0;
	bool fine = true;

	CPROF_TRY(cprof_code_create(&decoder));
	for (size_t at = 0; at < length && listing->count < CPROF_LISTING_ROWS;) {
		uint64_t address = code->start + at;
		char text[TEXT_MAX];
		uint64_t target;

		at += cprof_code_next(decoder, bytes + at, length - at, address, text, sizeof(text),
				      &target);
		add_target(code, target, text, sizeof(text));
		fine = cprof_grow(&listing->rows, &capacity, listing->count + 1,
				  sizeof(*listing->rows)) &&
		       cprof_grow(&memory->text, &text_capacity, used + strlen(text) + 1, 1);
		if (!fine)
			break;
		strcpy(memory->text + used, text);
		/* The text may still move: an offset for now. */
		listing->rows[listing->count++] =
			(struct cprof_listing_row){.address = address, .line = (int64_t)used};
		used += strlen(text) + 1;
	}
	cprof_code_destroy(decoder);
	for (size_t i = 0; i < listing->count && fine; i++) {
		listing->rows[i].text = memory->text + listing->rows[i].line;
		listing->rows[i].line = 0;
	}
	if (!fine)
		listing->count = 0;
	return fine ? NULL : cprof_error_nomem();
}

static struct cprof_error *read_code(struct code *code)
{
	size_t length = (size_t)(code->end - code->start);
	CPROF_AUTO_FREE uint8_t *bytes = malloc(length);

	if (!bytes)
		return cprof_error_nomem();
	length = cprof_image_read(code->image, code->start, bytes, length);
	if (!length)
		return cprof_error_create(CPROF_FAILED, NULL,
					  "the file does not hold this function's code");
	return disassemble(code, bytes, length);
}

static struct cprof_error *add_lines(struct code *code)
{
	struct cprof_listing *listing = code->listing;
	CPROF_AUTO_FREE uint64_t *addresses = calloc(listing->count + 1, sizeof(*addresses));
	struct cprof_names names;

	if (!addresses)
		return cprof_error_nomem();
	for (size_t i = 0; i < listing->count; i++)
		addresses[i] = listing->rows[i].address;
	CPROF_TRY(cprof_image_names(code->image, addresses, listing->count, 0, &names));
	for (size_t i = 0; i < listing->count; i++)
		if (names.first[i + 1] > names.first[i])
			listing->rows[i].line = names.names[names.first[i]].line;
	cprof_names_deinit(&names);
	return NULL;
}

/* The row whose instruction holds an address. */
static struct cprof_listing_row *row_at(const struct cprof_listing *listing, uint64_t address)
{
	size_t low = 0;
	size_t high = listing->count;

	while (high - low > 1) {
		size_t middle = low + (high - low) / 2;

		if (listing->rows[middle].address <= address)
			low = middle;
		else
			high = middle;
	}
	return &listing->rows[low];
}

static void visit(void *context, const struct cprof_listing_visit *visit)
{
	struct code *code = context;
	const struct cprof_profile_location *location = &code->profile->locations[visit->location];
	uint64_t address = location->address - code->bias;
	struct cprof_listing_row *row;
	size_t index;

	cprof_listing_sum(&code->sum, visit);
	if (location->mapping != code->mapping || address < code->start || address >= code->end)
		return;
	row = row_at(code->listing, address);
	index = (size_t)(row - code->listing->rows);
	if (visit->top && code->ran != visit->sample + 1) { /* of inlined code too */
		row->flat = cprof_listing_add(row->flat, visit->value);
		code->ran = visit->sample + 1;
	}
	if (code->seen[index] != visit->sample + 1)
		row->cum = cprof_listing_add(row->cum, visit->value);
	code->seen[index] = visit->sample + 1;
}

static struct cprof_error *fill(struct code *code, const bool *match, uint32_t location)
{
	CPROF_TRY(open_image(code));
	CPROF_TRY(find_bounds(code, code->profile->locations[location].address - code->bias));
	CPROF_TRY(read_code(code));
	CPROF_TRY(add_lines(code));
	code->seen = calloc(code->listing->count + 1, sizeof(*code->seen));
	if (!code->seen)
		return cprof_error_nomem();
	code->sum.listing = code->listing;
	cprof_listing_walk(code->profile, match, (size_t)code->options->type, visit, code);
	cprof_listing_find_hottest(code->listing);
	return NULL;
}

struct cprof_error *cprof_listing_code(const struct cprof_profile *profile, uint32_t function,
				       const struct cprof_listing_options *options,
				       struct cprof_listing **result)
{
	CPROF_CLEANUP(code_deinit) struct code code = {.profile = profile, .options = options};
	CPROF_AUTO_FREE bool *match = NULL;
	struct cprof_error *error;
	uint32_t location;

	*result = NULL;
	CPROF_TRY(cprof_listing_check(profile, function, options));
	match = cprof_listing_match(profile, function);
	if (!match)
		return cprof_error_nomem();
	CPROF_TRY(find_place(&code, match, &location));
	code.mapping = profile->locations[location].mapping;
	code.listing = cprof_listing_create(profile, function,
					    profile->strings[profile->mappings[code.mapping].file]);
	if (!code.listing)
		return cprof_error_nomem();
	error = fill(&code, match, location);
	if (error)
		cprof_listing_destroy(code.listing);
	else
		*result = code.listing;
	return error;
}
