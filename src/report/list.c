/* SPDX-License-Identifier: MIT
 *
 * Source lines with their cost, laid out as `pprof -list`.
 */
#include "table.h"

#include <cprof/listing.h>
#include <cprof/util.h>
#include <string.h>

struct list {
	struct cprof_top top; /* its nodes are lines */
	struct cprof_profile *chosen;
	uint32_t *functions; /* one of each name and file */
	size_t count;
};

static void list_deinit(struct list *list)
{
	cprof_top_deinit(&list->top);
	cprof_profile_destroy(list->chosen);
	free(list->functions);
}

/* Only the selected samples have a value. */
static struct cprof_error *choose_samples(struct list *list)
{
	size_t width = list->top.profile->type_count;

	CPROF_TRY(cprof_profile_clone(list->top.profile, &list->chosen));
	for (size_t i = 0; i < list->chosen->sample_count; i++)
		if (!list->top.selected[i])
			memset(list->chosen->values + i * width, 0,
			       width * sizeof(*list->chosen->values));
	return NULL;
}

static int compare_functions(const void *a, const void *b, void *context)
{
	const struct cprof_profile *profile = context;
	const struct cprof_profile_function *x = &profile->functions[*(const uint32_t *)a];
	const struct cprof_profile_function *y = &profile->functions[*(const uint32_t *)b];
	int order = strcmp(profile->strings[x->name], profile->strings[y->name]);

	if (!order)
		order = strcmp(profile->strings[x->file], profile->strings[y->file]);
	if (!order)
		order = (x->start_line > y->start_line) - (x->start_line < y->start_line);
	return order;
}

static struct cprof_error *choose_functions(struct list *list, const regex_t *wanted)
{
	const struct cprof_profile *profile = list->top.profile;
	CPROF_AUTO_FREE bool *used = calloc(profile->function_count, sizeof(*used));
	size_t kept = 0;

	list->functions = calloc(profile->function_count + 1, sizeof(*list->functions));
	if (!list->functions || !used)
		return cprof_error_nomem();
	for (size_t i = 0; i < profile->line_count; i++)
		used[profile->lines[i].function] = true;
	for (uint32_t i = 1; i < profile->function_count; i++)
		if (used[i] &&
		    !regexec(wanted, profile->strings[profile->functions[i].name], 0, NULL, 0))
			list->functions[list->count++] = i;
	qsort_r(list->functions, list->count, sizeof(*list->functions), compare_functions,
		(void *)profile);
	for (size_t i = 0; i < list->count; i++) {
		const struct cprof_profile_function *function =
			&profile->functions[list->functions[i]];
		const struct cprof_profile_function *before =
			kept ? &profile->functions[list->functions[kept - 1]] : NULL;

		if (!before || before->name != function->name || before->file != function->file)
			list->functions[kept++] = list->functions[i];
	}
	list->count = kept;
	return NULL;
}

/* Sums over the lines of a function, as pprof adds them up: a sample counts at each of them. */
static void add_up(const struct list *list, uint32_t function, int64_t *flat, int64_t *cum)
{
	const struct cprof_graph *graph = &list->top.graph;
	const struct cprof_profile *profile = list->top.profile;
	const struct cprof_profile_function *wanted = &profile->functions[function];

	*flat = *cum = 0;
	for (uint32_t i = 1; i < profile->location_count; i++) {
		const struct cprof_profile_location *location = &profile->locations[i];
		uint32_t nodes = graph->first[i + 1] - graph->first[i];

		for (uint32_t j = 0; j < location->line_count && j < nodes; j++) {
			/* What is pruned is in front. */
			const struct cprof_profile_function *here =
				&profile->functions[profile->lines[location->first_line +
								   location->line_count - nodes + j]
							    .function];
			struct cprof_graph_node *node =
				&graph->nodes[graph->node_ids[graph->first[i] + j]];

			if (here->name != wanted->name || here->file != wanted->file ||
			    node->seen == UINT32_MAX)
				continue;
			node->seen = UINT32_MAX; /* once */
			*flat = cprof_add_saturating(*flat, node->flat);
			*cum = cprof_add_saturating(*cum, node->cum);
		}
	}
}

/* "." for nothing. */
static void put_cost(FILE *out, const struct list *list, int64_t value)
{
	char text[CPROF_UNITS_TEXT];

	cprof_units_label(value, list->top.unit, "minimum", text);
	fprintf(out, "%10s ", value ? text : ".");
}

/* Safe for a terminal, but for tabs, which stay. */
static void put_source(FILE *out, const char *text)
{
	CPROF_AUTO_FREE char *copy = strdup(text);
	char *next = copy;
	char *part;

	while (next && (part = strsep(&next, "\t"))) {
		cprof_put_clean(out, part);
		if (next)
			putc('\t', out);
	}
	putc('\n', out);
}

static void put_error(FILE *out, struct cprof_error *error)
{
	fputs(" Error: ", out);
	cprof_put_clean(out, error->message);
	putc('\n', out);
	cprof_error_destroy(error);
}

static void put_function(FILE *out, const struct list *list, uint32_t id)
{
	const struct cprof_profile *profile = list->top.profile;
	const struct cprof_profile_function *function = &profile->functions[id];
	const struct cprof_listing_options options = {
		.type = (int)list->top.type, .source_path = list->top.options->source_path};
	struct cprof_listing *listing = NULL;
	char flat_text[CPROF_UNITS_TEXT], cum_text[CPROF_UNITS_TEXT], percent[32];
	struct cprof_error *error;
	int64_t flat, cum;

	add_up(list, id, &flat, &cum);
	if (!flat && !cum)
		return;
	if (!*profile->strings[function->file]) {
		fputs("No source information for ", out);
		cprof_put_clean(out, profile->strings[function->name]);
		putc('\n', out);
		return;
	}
	fputs("ROUTINE ======================== ", out);
	cprof_put_clean(out, profile->strings[function->name]);
	fputs(" in ", out);
	cprof_put_clean(out, profile->strings[function->file]);
	cprof_units_label(flat, list->top.unit, "minimum", flat_text);
	cprof_units_label(cum, list->top.unit, "minimum", cum_text);
	cprof_units_percent(cum, list->top.total, percent);
	fprintf(out, "\n%10s %10s (flat, cum) %s of Total\n", flat_text, cum_text, percent);
	error = cprof_listing_source(list->chosen, id, &options, &listing);
	if (error) {
		put_error(out, error);
		return;
	}
	for (size_t i = 0; i < listing->count; i++) {
		const struct cprof_listing_row *row = &listing->rows[i];

		put_cost(out, list, row->flat);
		put_cost(out, list, row->cum);
		fprintf(out, "%6lld:", (long long)row->line);
		put_source(out, row->text);
	}
	cprof_listing_destroy(listing);
}

static struct cprof_error *report(struct list *list, const regex_t *wanted, const char *pattern,
				  FILE *out)
{
	char total[CPROF_UNITS_TEXT];

	CPROF_TRY(cprof_top_fill(&list->top));
	CPROF_TRY(choose_samples(list));
	CPROF_TRY(choose_functions(list, wanted));
	if (!list->count)
		return cprof_error_create(CPROF_FAILED, NULL, "no function matches %s", pattern);
	cprof_units_label(list->top.total, list->top.unit, "minimum", total);
	fprintf(out, "Total: %s\n", total);
	for (size_t i = 0; i < list->count; i++)
		put_function(out, list, list->functions[i]);
	return cprof_report_flush(out);
}

struct cprof_error *cprof_report_list(const struct cprof_profile *profile, const char *pattern,
				      const struct cprof_report_options *options, FILE *out)
{
	struct cprof_report_options lines = *options;
	CPROF_CLEANUP(list_deinit)
	struct list list = {.top = {.profile = profile, .options = &lines}};
	struct cprof_error *error;
	regex_t regex;

	lines.count = -1;
	lines.by = CPROF_BY_LINE;
	CPROF_TRY(cprof_select_compile("list", pattern, &regex));
	error = report(&list, &regex, pattern, out);
	regfree(&regex);
	return error;
}
