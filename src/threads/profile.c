/* SPDX-License-Identifier: MIT
 *
 * A dump as a profile: every thread once, Go's type for it.
 */
#include "private.h"

#include <cprof/util.h>
#include <stdlib.h>
#include <string.h>

#define LINES_MAX 512

/* The frames from `at` that share its address: inlinees and what they are inlined into. */
static size_t run_length(const struct cprof_dump_thread *thread, size_t at)
{
	size_t end = at;

	while (end + 1 < thread->frame_count && thread->frames[end].inlined &&
	       end - at + 1 < LINES_MAX)
		end++;
	return end + 1 - at;
}

static uint32_t add_mapping(struct cprof_profile *profile, const struct cprof_dump_mapping *mapping,
			    struct cprof_profile_mapping entry)
{
	entry.start = mapping->start;
	entry.limit = mapping->end;
	entry.offset = mapping->offset;
	entry.file = cprof_profile_string(profile, mapping->path);
	entry.build_id = cprof_profile_string(profile, mapping->build_id);
	return cprof_profile_mapping(profile, &entry);
}

static int compare_address(const void *key, const void *entry)
{
	uint64_t address = *(const uint64_t *)key;
	const struct cprof_dump_mapping *mapping = entry;

	return address < mapping->start ? -1 : address >= mapping->end;
}

static uint32_t add_location(struct cprof_profile *profile, const struct cprof_dump *dump,
			     const struct cprof_dump_frame *frames, size_t count, bool innermost)
{
	const uint64_t address = frames->pc - !innermost;
	const struct cprof_dump_mapping *found =
		dump->mapping_count ? bsearch(&address, dump->mappings, dump->mapping_count,
					      sizeof(*found), compare_address)
				    : NULL;
	struct cprof_profile_line lines[LINES_MAX];
	struct cprof_profile_mapping mapping = {0};
	uint32_t mapping_id = 0;

	if (!frames->pc)
		return cprof_profile_marker(profile, frames->function);
	for (size_t i = 0; i < count; i++) {
		struct cprof_profile_function function = {
			.name = cprof_profile_string(profile,
						     frames[i].function ? frames[i].function : ""),
			.file = cprof_profile_string(profile, frames[i].file ? frames[i].file : ""),
		};

		function.system_name = function.name;
		lines[i].function = cprof_profile_function(profile, &function);
		lines[i].line = frames[i].line;
	}
	if (found) {
		mapping.has_functions = frames->function != NULL;
		mapping.has_filenames = mapping.has_line_numbers = frames->line != 0;
		mapping.has_inline_frames = count > 1;
		mapping_id = add_mapping(profile, found, mapping);
	}
	return cprof_profile_location_with(profile, mapping_id, address, lines,
					   frames->function ? count : 0, false);
}

static bool add_thread(struct cprof_profile *profile, const struct cprof_dump *dump,
		       const struct cprof_dump_thread *thread)
{
	const struct cprof_profile_label labels[] = {
		{.key = cprof_profile_string(profile, "thread"),
		 .text = cprof_profile_string(profile, thread->name)},
		{.key = cprof_profile_string(profile, "tid"), .number = thread->tid},
		{.key = cprof_profile_string(profile, "wait"),
		 .text = cprof_profile_string(profile, cprof_wait_name(thread->wait.kind))},
	};
	CPROF_AUTO_FREE uint32_t *locations = calloc(thread->frame_count + 1, sizeof(*locations));
	const int64_t one = 1;
	size_t count = 0;
	size_t length;

	if (!locations)
		return false;
	for (size_t at = 0; at < thread->frame_count; at += length) {
		length = run_length(thread, at);
		locations[count++] =
			add_location(profile, dump, thread->frames + at, length, at == 0);
	}
	if (!thread->held)
		locations[count++] = cprof_profile_marker(profile, "[not stopped]");
	else if (thread->end != CPROF_END_COMPLETE)
		locations[count++] = cprof_profile_marker(profile, cprof_end_marker(thread->end));
	cprof_profile_add(profile, cprof_profile_stack(profile, locations, count),
			  cprof_profile_labels(profile, labels, CPROF_COUNT(labels)), &one);
	return true;
}

/* Readers take the first mapping for the program. */
static void add_program(struct cprof_profile *profile, const struct cprof_dump *dump)
{
	for (size_t i = 0; i < dump->mapping_count; i++)
		if (dump->mappings[i].program)
			add_mapping(profile, &dump->mappings[i], (struct cprof_profile_mapping){0});
}

struct cprof_error *cprof_dump_profile(const struct cprof_dump *dump, struct cprof_profile **result)
{
	struct cprof_profile *profile;
	struct cprof_error *error = NULL;

	CPROF_TRY(cprof_profile_create(&profile));
	cprof_profile_add_type(profile, "threads", "count");
	profile->period_type = profile->types[0];
	profile->default_type = profile->types[0].type;
	profile->period = 1;
	profile->time_ns = (int64_t)dump->taken_ns;
	add_program(profile, dump);
	for (size_t i = 0; i < dump->count && !error; i++)
		if (!add_thread(profile, dump, &dump->threads[i]))
			error = cprof_error_nomem();
	if (!error)
		error = cprof_profile_check(profile);
	if (error) {
		cprof_profile_destroy(profile);
		return error;
	}
	*result = profile;
	return NULL;
}
