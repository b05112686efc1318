/* SPDX-License-Identifier: MIT */
#include "private.h"

#include <cprof/util.h>
#include <inttypes.h>
#include <jansson.h>

/* Valid UTF-8 whatever the text is; NULL without memory. */
static json_t *text_of(const struct cprof_profile *profile, uint32_t string)
{
	CPROF_AUTO_FREE char *clean = cprof_text_clean_dup(profile->strings[string]);

	return clean ? json_string(clean) : NULL;
}

static json_t *frame_of(const struct cprof_profile *profile,
			const struct cprof_profile_location *location, uint32_t line)
{
	static const struct cprof_profile_line unknown;
	const struct cprof_profile_line *from =
		location->line_count ? &profile->lines[location->first_line + line] : &unknown;
	const struct cprof_profile_function *function = &profile->functions[from->function];
	char pc[32];

	snprintf(pc, sizeof(pc), "0x%" PRIx64, location->address);
	return json_pack("{s:s, s:o, s:o, s:o, s:I, s:b}", "pc", pc, "function",
			 text_of(profile, function->name), "module",
			 text_of(profile, profile->mappings[location->mapping].file), "file",
			 text_of(profile, function->file), "line", (json_int_t)from->line,
			 "inlined", line + 1 < location->line_count);
}

/* Each returns NULL without memory. */
static json_t *frames_of(const struct cprof_profile *profile,
			 const struct cprof_profile_span *stack)
{
	json_t *frames = json_array();

	for (uint32_t i = 0; i < stack->count; i++) {
		const struct cprof_profile_location *location =
			&profile->locations[profile->stack_items[stack->first + i]];

		for (uint32_t j = 0; j < CPROF_MAX(location->line_count, 1u); j++) {
			if (json_array_append_new(frames, frame_of(profile, location, j))) {
				json_decref(frames);
				return NULL;
			}
		}
	}
	return frames;
}

static json_t *labels_of(const struct cprof_profile *profile, const struct cprof_profile_span *set)
{
	json_t *labels = json_object();

	for (uint32_t i = 0; i < set->count; i++) {
		const struct cprof_profile_label *label = &profile->label_items[set->first + i];
		CPROF_AUTO_FREE char *key = cprof_text_clean_dup(profile->strings[label->key]);
		json_t *value =
			label->text ? text_of(profile, label->text) : json_integer(label->number);

		if (!key || json_object_set_new(labels, key, value)) {
			json_decref(labels);
			return NULL;
		}
	}
	return labels;
}

static json_t *values_of(const struct cprof_profile *profile, size_t sample)
{
	json_t *values = json_array();

	for (size_t i = 0; i < profile->type_count; i++) {
		if (json_array_append_new(
			    values,
			    json_integer(profile->values[sample * profile->type_count + i]))) {
			json_decref(values);
			return NULL;
		}
	}
	return values;
}

static json_t *types_of(const struct cprof_profile *profile)
{
	json_t *types = json_array();

	for (size_t i = 0; i < profile->type_count; i++) {
		json_t *type =
			json_pack("{s:o, s:o}", "type", text_of(profile, profile->types[i].type),
				  "unit", text_of(profile, profile->types[i].unit));

		if (json_array_append_new(types, type)) {
			json_decref(types);
			return NULL;
		}
	}
	return types;
}

/* Takes `value` over. */
static struct cprof_error *put(FILE *out, json_t *value)
{
	int failed;

	if (!value)
		return cprof_error_nomem();
	failed = json_dumpf(value, out, JSON_COMPACT | JSON_SORT_KEYS);
	json_decref(value);
	return failed && !ferror(out) ? cprof_error_nomem() : NULL;
}

/* One sample at a time: the whole would take many times the profile's memory. */
struct cprof_error *cprof_report_json(const struct cprof_profile *profile, FILE *out)
{
	fputs("{\"types\":", out);
	CPROF_TRY(put(out, types_of(profile)));
	fputs(",\"samples\":[", out);
	for (size_t i = 0; i < profile->sample_count; i++) {
		const struct cprof_profile_sample *sample = &profile->samples[i];

		fputs(i ? ",\n" : "\n", out);
		CPROF_TRY(put(
			out,
			json_pack("{s:o, s:o, s:o}", "values", values_of(profile, i), "labels",
				  labels_of(profile, &profile->label_sets[sample->labels]),
				  "frames", frames_of(profile, &profile->stacks[sample->stack]))));
	}
	fputs("\n]}\n", out);
	return cprof_report_flush(out);
}
