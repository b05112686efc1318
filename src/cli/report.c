/* SPDX-License-Identifier: MIT
 *
 * `report`: a saved profile as text. Also the formats that `record -f` writes.
 */
#include "private.h"

#include <cprof/outfile.h>
#include <cprof/pprof.h>
#include <string.h>

struct cprof_error *cprof_format_profile(const struct cprof_profile *profile,
					 enum cprof_format format,
					 const struct cprof_report_options *report, void **bytes,
					 size_t *length)
{
	struct cprof_error *error = NULL;
	char *text = NULL;
	FILE *out;

	if (format == CPROF_FORMAT_PPROF)
		return cprof_pprof_encode(profile, bytes, length);
	out = open_memstream(&text, length);
	if (!out)
		return cprof_error_nomem();
	if (format == CPROF_FORMAT_FOLDED)
		error = cprof_report_folded(profile, report, out);
	else if (format == CPROF_FORMAT_JSON)
		error = cprof_report_json(profile, out);
	else
		error = cprof_report_top(profile, report, out);
	if (fclose(out) && !error)
		error = cprof_error_nomem();
	if (error)
		free(text);
	else
		*bytes = text;
	return error;
}

static struct cprof_error *format_locks(const struct cprof_profile *profile, bool json,
					const struct cprof_report_options *report, void **bytes,
					size_t *length)
{
	struct cprof_error *error;
	char *text = NULL;
	FILE *out = open_memstream(&text, length);

	if (!out)
		return cprof_error_nomem();
	error = json ? cprof_report_locks_json(profile, report, out)
		     : cprof_report_locks(profile, report, out);
	if (fclose(out) && !error)
		error = cprof_error_nomem();
	if (error)
		free(text);
	else
		*bytes = text;
	return error;
}

enum view { VIEW_TOP, VIEW_FOLDED, VIEW_LOCKS };
static const char *const views[] = {"top", "folded", "locks"};

/* CPROF_COUNT(views) if there is none. */
static size_t find_view(const char *name)
{
	size_t view = 0;

	while (view < CPROF_COUNT(views) && strcmp(name, views[view]) != 0)
		view++;
	return view;
}

static struct cprof_error *choose(const struct cprof_options *options, const char **file,
				  enum view *view, enum cprof_format *format)
{
	const char *name = options->argument_count == 2 ? options->arguments[0] : "top";

	if (options->argument_count > 2)
		return cprof_usage_error(options->verb, "report: one file at a time");
	*view = (enum view)find_view(name);
	if (*view == CPROF_COUNT(views))
		return cprof_usage_error(
			options->verb,
			"report %s: there is no such view (there are top, folded, locks)", name);
	if (!options->argument_count)
		return cprof_usage_error(options->verb, "report: which file?");
	*file = options->arguments[options->argument_count - 1];
	if (options->argument_count == 1 && find_view(*file) < CPROF_COUNT(views) &&
	    access(*file, F_OK))
		return cprof_usage_error(options->verb, "report %s: which file?", *file);
	*format = *view == VIEW_FOLDED ? CPROF_FORMAT_FOLDED : CPROF_FORMAT_TEXT;
	if (options->format >= 0 && options->format != CPROF_FORMAT_TEXT)
		*format = (enum cprof_format)options->format;
	if (*view == VIEW_LOCKS && *format != CPROF_FORMAT_TEXT && *format != CPROF_FORMAT_JSON)
		return cprof_usage_error(options->verb, "report locks: as text or json only");
	return NULL;
}

/* Without --base: the file as it is. */
static struct cprof_error *read_profile(const struct cprof_options *options, const char *file,
					struct cprof_profile **profile)
{
	struct cprof_profile *base;
	struct cprof_error *error;

	CPROF_TRY(cprof_pprof_read(file, profile));
	if (!options->base)
		return NULL;
	error = cprof_pprof_read(options->base, &base);
	if (!error) {
		error = cprof_profile_merge(*profile, base, -1);
		cprof_profile_destroy(base);
	}
	if (error)
		cprof_profile_destroy(cprof_take(*profile));
	return error;
}

struct cprof_error *cprof_verb_report(const struct cprof_options *options, int *status)
{
	struct cprof_report_options report = {
		.sample_index = options->sample_index,
		.focus = options->focus,
		.ignore = options->ignore,
		.cum = options->cum,
		.by = (enum cprof_report_by)options->by,
		.difference = options->base != NULL,
	};
	struct cprof_profile *profile = NULL;
	CPROF_AUTO_FREE void *bytes = NULL;
	struct cprof_error *error;
	enum cprof_format format = CPROF_FORMAT_TEXT;
	enum view view = VIEW_TOP;
	const char *file = NULL;
	size_t length;

	*status = CPROF_OK;
	if (options->rows != UINT64_MAX)
		report.count = options->rows ? (int)options->rows : -1;
	CPROF_TRY(choose(options, &file, &view, &format));
	CPROF_TRY(read_profile(options, file, &profile));
	if (view == VIEW_LOCKS)
		error = format_locks(profile, format == CPROF_FORMAT_JSON, &report, &bytes,
				     &length);
	else
		error = cprof_format_profile(profile, format, &report, &bytes, &length);
	cprof_profile_destroy(profile);
	CPROF_TRY(error);
	return cprof_outfile_write(options->output ? options->output : "-", bytes, length);
}
