/* SPDX-License-Identifier: MIT
 *
 * A profile may name frames that are of no interest (an allocator's own, say): drop_frames, a
 * regular expression on whole names. A matching frame goes, with all that it called.
 */
#include "private.h"

#include <cprof/util.h>
#include <regex.h>
#include <string.h>

#define PATTERN_MAX  4096
#define PATTERN_NEST 32

/* The pattern comes with the file: one that could cost regcomp() much (counted repeats, deep
 * nesting) is not tried. */
static bool compile_whole(const char *pattern, regex_t *regex)
{
	CPROF_AUTO_FREE char *text = NULL;
	int depth = 0, deepest = 0;

	for (const char *next = pattern; *next; next++) {
		depth += (*next == '(') - (*next == ')');
		deepest = CPROF_MAX(deepest, depth);
		if (*next == '{' || (*next == '\\' && next[1] >= '0' && next[1] <= '9'))
			return false;
	}
	if (!*pattern || deepest > PATTERN_NEST || strlen(pattern) > PATTERN_MAX)
		return false;
	if (asprintf(&text, "^(%s)$", pattern) < 0) {
		text = NULL;
		return false;
	}
	return !regcomp(regex, text, REG_EXTENDED | REG_NOSUB);
}

/* Matches names without their parameters. */
static bool name_matches(const char *name, const regex_t *drop, const regex_t *keep)
{
	static const char *const reserved[] = {"(anonymous namespace)", "operator()"};
	CPROF_AUTO_FREE char *plain = strdup(name + (*name == '.'));
	char *next = plain;

	if (!plain || !*name)
		return false;
	while ((next = strpbrk(next, "(o"))) {
		size_t skip = 0;

		for (size_t i = 0; i < CPROF_COUNT(reserved); i++)
			if (!strncmp(next, reserved[i], strlen(reserved[i])))
				skip = strlen(reserved[i]);
		if (!skip && *next == '(')
			*next = '\0';
		next += skip ? skip : *next != '\0';
	}
	return !regexec(drop, plain, 0, NULL, 0) && !(keep && !regexec(keep, plain, 0, NULL, 0));
}

static bool mark_locations(const struct cprof_profile *profile, const regex_t *drop,
			   const regex_t *keep, uint32_t *cut)
{
	CPROF_AUTO_FREE bool *matches = calloc(profile->function_count, sizeof(*matches));

	if (!matches)
		return false;
	for (size_t i = 1; i < profile->function_count; i++)
		matches[i] = name_matches(profile->strings[profile->functions[i].name], drop, keep);
	for (size_t i = 1; i < profile->location_count; i++) {
		const struct cprof_profile_location *location = &profile->locations[i];

		for (uint32_t j = location->line_count; j-- > 0 && !cut[i];)
			if (matches[profile->lines[location->first_line + j].function])
				cut[i] = j + 1;
	}
	return true;
}

struct cprof_error *cprof_prune_create(const struct cprof_profile *profile, uint32_t **cut)
{
	const char *keep_text = profile->strings[profile->keep_frames];
	CPROF_AUTO_FREE uint32_t *made = NULL;
	regex_t drop, keep;
	bool has_keep, fine;

	*cut = NULL;
	if (!compile_whole(profile->strings[profile->drop_frames], &drop))
		return NULL;
	has_keep = compile_whole(keep_text, &keep);
	made = calloc(profile->location_count, sizeof(*made));
	fine = made && mark_locations(profile, &drop, has_keep ? &keep : NULL, made);
	regfree(&drop);
	if (has_keep)
		regfree(&keep);
	if (!fine)
		return cprof_error_nomem();
	*cut = cprof_take(made);
	return NULL;
}

uint32_t cprof_prune_first(const struct cprof_profile *profile, const uint32_t *cut,
			   const struct cprof_profile_span *stack)
{
	bool other = false;

	for (uint32_t i = stack->count; cut && i-- > 0;) {
		uint32_t location = profile->stack_items[stack->first + i];

		if (!cut[location])
			other = true;
		else if (other)
			return cut[location] == profile->locations[location].line_count ? i + 1 : i;
	}
	return 0;
}
