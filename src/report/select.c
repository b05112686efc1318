/* SPDX-License-Identifier: MIT */
#include "private.h"

#include <cprof/util.h>
#include <errno.h>
#include <string.h>

const char *cprof_base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash && slash[1] ? slash + 1 : path;
}

void cprof_put_clean(FILE *out, const char *text)
{
	char *clean = cprof_text_clean_dup(text);

	fputs(clean ? clean : "?", out);
	free(clean);
}

struct cprof_error *cprof_report_flush(FILE *out)
{
	if (fflush(out) || ferror(out))
		return cprof_error_errno(CPROF_FAILED, errno, NULL, "cannot write the report");
	return NULL;
}

/* "cpu samples": the names of the types, for an error. */
static struct cprof_error *unknown_type(const struct cprof_profile *profile, const char *wanted)
{
	CPROF_AUTO_FREE char *known = NULL;
	CPROF_AUTO_FREE char *remedy = NULL;
	size_t length;
	FILE *out = open_memstream(&known, &length);

	if (!out)
		return cprof_error_nomem();
	for (size_t i = 0; i < profile->type_count; i++)
		fprintf(out, " %s", profile->strings[profile->types[i].type]);
	if (fclose(out) || asprintf(&remedy, "there are:%s", known) < 0)
		return cprof_error_nomem();
	return cprof_error_create(CPROF_USAGE, remedy, "--sample-index %s: no such type in it",
				  wanted);
}

struct cprof_error *cprof_select_type(const struct cprof_profile *profile, const char *wanted,
				      size_t *index)
{
	const char *name = wanted ? wanted : profile->strings[profile->default_type];
	int found = -1;

	if (!profile->type_count)
		return cprof_error_create(CPROF_FAILED, NULL, "the profile has no sample types");
	*index = profile->type_count - 1;
	if (wanted && *wanted && !wanted[strspn(wanted, "0123456789")]) {
		unsigned long number = strtoul(wanted, NULL, 10);

		if (number >= profile->type_count)
			return unknown_type(profile, wanted);
		*index = number;
		return NULL;
	}
	if (*name)
		found = cprof_profile_find_type(profile, name);
	/* Heap profiles of old name their types "space" and "objects". */
	if (found < 0 && wanted && !strncmp(name, "inuse_", 6))
		found = cprof_profile_find_type(profile, name + 6);
	if (found < 0 && wanted)
		return unknown_type(profile, wanted);
	if (found >= 0)
		*index = (size_t)found;
	return NULL;
}

struct cprof_error *cprof_select_compile(const char *option, const char *text, regex_t *regex)
{
	char reason[128];
	int result = regcomp(regex, text, REG_EXTENDED | REG_NOSUB);

	if (!result)
		return NULL;
	regerror(result, regex, reason, sizeof(reason));
	return cprof_error_create(CPROF_USAGE, "give a POSIX extended regular expression",
				  "%s %s: %s", option, text, reason);
}

/* Which strings match: each is tried once, however many frames carry it. */
static struct cprof_error *match_strings(const struct cprof_profile *profile, const char *option,
					 const char *text, bool **matches)
{
	struct cprof_error *error;
	regex_t regex;

	*matches = NULL;
	if (!text || !*text)
		return NULL;
	error = cprof_select_compile(option, text, &regex);
	if (error)
		return error;
	*matches = calloc(profile->string_count, sizeof(**matches));
	for (size_t i = 0; *matches && i < profile->string_count; i++)
		(*matches)[i] = !regexec(&regex, profile->strings[i], 0, NULL, 0);
	regfree(&regex);
	return *matches ? NULL : cprof_error_nomem();
}

/* By name or source file of a function in it, or by its module, as pprof does. */
static bool location_matches(const struct cprof_profile *profile, const uint32_t *cut, uint32_t id,
			     const bool *matches)
{
	const struct cprof_profile_location *location = &profile->locations[id];
	uint32_t first = cut && cut[id] < location->line_count ? cut[id] : 0;

	for (uint32_t i = first; i < location->line_count; i++) {
		uint32_t f = profile->lines[location->first_line + i].function;

		if (f &&
		    (matches[profile->functions[f].name] || matches[profile->functions[f].file]))
			return true;
	}
	return location->mapping && matches[profile->mappings[location->mapping].file];
}

static bool *match_locations(const struct cprof_profile *profile, const uint32_t *cut,
			     const bool *matches)
{
	bool *found = calloc(profile->location_count, sizeof(*found));

	for (uint32_t i = 1; found && i < profile->location_count; i++)
		found[i] = location_matches(profile, cut, i, matches);
	return found;
}

static bool stack_has(const struct cprof_profile *profile, const uint32_t *cut,
		      const struct cprof_profile_span *stack, const bool *locations)
{
	for (uint32_t i = cprof_prune_first(profile, cut, stack); i < stack->count; i++)
		if (locations[profile->stack_items[stack->first + i]])
			return true;
	return false;
}

struct cprof_error *cprof_select_samples(const struct cprof_profile *profile,
					 const struct cprof_report_options *options,
					 bool **selected)
{
	CPROF_AUTO_FREE bool *focus_strings = NULL;
	CPROF_AUTO_FREE bool *ignore_strings = NULL;
	CPROF_AUTO_FREE bool *focus = NULL;
	CPROF_AUTO_FREE bool *ignore = NULL;
	CPROF_AUTO_FREE bool *flags = calloc(profile->sample_count + 1, sizeof(*flags));
	CPROF_AUTO_FREE uint32_t *cut = NULL;

	CPROF_TRY(cprof_prune_create(profile, &cut));
	CPROF_TRY(match_strings(profile, "--focus", options->focus, &focus_strings));
	CPROF_TRY(match_strings(profile, "--ignore", options->ignore, &ignore_strings));
	if (focus_strings)
		focus = match_locations(profile, cut, focus_strings);
	if (ignore_strings)
		ignore = match_locations(profile, cut, ignore_strings);
	if (!flags || (focus_strings && !focus) || (ignore_strings && !ignore))
		return cprof_error_nomem();
	for (size_t i = 0; i < profile->sample_count; i++) {
		const struct cprof_profile_span *stack =
			&profile->stacks[profile->samples[i].stack];

		flags[i] = (!focus || stack_has(profile, cut, stack, focus)) &&
			   !(ignore && stack_has(profile, cut, stack, ignore));
	}
	*selected = cprof_take(flags);
	return NULL;
}
