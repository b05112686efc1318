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

/* A view that only `report` has: of one file, perhaps with a pattern. */
struct view {
	const char *name;
	enum cprof_format format; /* of those that `record -f` writes too */
	struct cprof_error *(*report)(const struct cprof_profile *profile,
				      const struct cprof_report_options *options, FILE *out);
	struct cprof_error *(*matching)(const struct cprof_profile *profile, const char *pattern,
					const struct cprof_report_options *options, FILE *out);
	struct cprof_error *(*json)(const struct cprof_profile *profile,
				    const struct cprof_report_options *options, FILE *out);
};

static const struct view views[] = {
	{"top", CPROF_FORMAT_TEXT, NULL, NULL, NULL},
	{"folded", CPROF_FORMAT_FOLDED, NULL, NULL, NULL},
	{"tree", CPROF_FORMAT_TEXT, cprof_report_tree, NULL, NULL},
	{"peek", CPROF_FORMAT_TEXT, NULL, cprof_report_peek, NULL},
	{"list", CPROF_FORMAT_TEXT, NULL, cprof_report_list, NULL},
	{"traces", CPROF_FORMAT_TEXT, cprof_report_traces, NULL, NULL},
	{"locks", CPROF_FORMAT_TEXT, cprof_report_locks, NULL, cprof_report_locks_json},
};

static const struct view *find_view(const char *name)
{
	for (size_t i = 0; i < CPROF_COUNT(views); i++)
		if (!strcmp(views[i].name, name))
			return &views[i];
	return NULL;
}

static struct cprof_error *choose(const struct cprof_options *options, const struct view **view,
				  const char **pattern, const char **file)
{
	size_t count = options->argument_count;

	*view = find_view(count > 1 ? options->arguments[0] : "top");
	*pattern = NULL;
	if (!count)
		return cprof_usage_error(options->verb, "report: which file?");
	if (!*view)
		return cprof_usage_error(options->verb,
					 "report %s: there is no such view (there are top, tree, "
					 "peek, list, traces, folded, locks)",
					 options->arguments[0]);
	*file = options->arguments[count - 1];
	if (count == 1 && find_view(*file) && access(*file, F_OK))
		return cprof_usage_error(options->verb, "report %s: which file?", *file);
	if ((*view)->matching && count < 3)
		return cprof_usage_error(
			options->verb, "report %s: which functions, in which file?", (*view)->name);
	if (count > ((*view)->matching ? 3 : 2))
		return cprof_usage_error(options->verb, "report: one file at a time");
	if ((*view)->matching)
		*pattern = options->arguments[1];
	if (!(*view)->report && !(*view)->matching)
		return NULL;
	if (options->format >= 0 && options->format != CPROF_FORMAT_TEXT &&
	    !((*view)->json && options->format == CPROF_FORMAT_JSON))
		return cprof_usage_error(options->verb, "report %s: as text%s only", (*view)->name,
					 (*view)->json ? " or json" : "");
	return NULL;
}

static struct cprof_error *format_view(const struct cprof_profile *profile, const struct view *view,
				       const char *pattern, bool json,
				       const struct cprof_report_options *report, void **bytes,
				       size_t *length)
{
	struct cprof_error *error;
	char *text = NULL;
	FILE *out = open_memstream(&text, length);

	if (!out)
		return cprof_error_nomem();
	if (view->matching)
		error = view->matching(profile, pattern, report, out);
	else if (json)
		error = view->json(profile, report, out);
	else
		error = view->report(profile, report, out);
	if (fclose(out) && !error)
		error = cprof_error_nomem();
	if (error)
		free(text);
	else
		*bytes = text;
	return error;
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
		.source_path = options->source_path,
		.difference = options->base != NULL,
	};
	struct cprof_profile *profile = NULL;
	CPROF_AUTO_FREE void *bytes = NULL;
	struct cprof_error *error;
	const struct view *view;
	enum cprof_format format;
	const char *pattern;
	const char *file = NULL;
	size_t length;

	*status = CPROF_OK;
	if (options->rows != UINT64_MAX)
		report.count = options->rows ? (int)options->rows : -1;
	CPROF_TRY(choose(options, &view, &pattern, &file));
	format = view->format;
	if (options->format >= 0 && options->format != CPROF_FORMAT_TEXT)
		format = (enum cprof_format)options->format;
	CPROF_TRY(read_profile(options, file, &profile));
	if (view->report || view->matching)
		error = format_view(profile, view, pattern, format == CPROF_FORMAT_JSON, &report,
				    &bytes, &length);
	else
		error = cprof_format_profile(profile, format, &report, &bytes, &length);
	cprof_profile_destroy(profile);
	CPROF_TRY(error);
	return cprof_outfile_write(options->output ? options->output : "-", bytes, length);
}
