/* SPDX-License-Identifier: MIT */
#include "private.h"

#include <cprof/util.h>
#include <string.h>

/* The view's stacks of function nodes hold the sums: stacks that differ in lines or labels only
 * are one. */
static struct cprof_error *sum_up(struct cprof_graph *graph, const bool *selected, size_t type)
{
	const struct cprof_profile *profile = graph->profile;
	CPROF_AUTO_FREE uint32_t *nodes = NULL;
	size_t capacity = 0;

	cprof_profile_add_type(graph->view, "value", "");
	for (size_t i = 0; i < profile->sample_count; i++) {
		const struct cprof_profile_span *stack =
			&profile->stacks[profile->samples[i].stack];
		const int64_t *value = &profile->values[i * profile->type_count + type];
		size_t count = 0;

		if (!selected[i] || !*value)
			continue;
		for (uint32_t j = cprof_prune_first(profile, graph->cut, stack); j < stack->count;
		     j++) {
			uint32_t location = profile->stack_items[stack->first + j];
			uint32_t first = graph->first[location];
			uint32_t more = graph->first[location + 1] - first;

			if (!cprof_grow(&nodes, &capacity, count + more, sizeof(*nodes)))
				return cprof_error_nomem();
			memcpy(nodes + count, graph->node_ids + first, more * sizeof(*nodes));
			count += more;
		}
		cprof_profile_add(graph->view, cprof_profile_stack(graph->view, nodes, count), 0,
				  value);
	}
	return cprof_profile_check(graph->view);
}

/* Names made safe to show, without the character that separates them; NULL without memory. */
static char **name_nodes(const struct cprof_graph *graph)
{
	size_t count = graph->view->location_count;
	char **names = calloc(count, sizeof(*names));

	for (uint32_t i = 1; names && i < count; i++) {
		names[i] = cprof_graph_name(graph, i);
		if (!names[i]) {
			for (uint32_t j = 1; j < i; j++)
				free(names[j]);
			free(names);
			return NULL;
		}
		cprof_text_clean(names[i], strlen(names[i]), names[i], strlen(names[i]) + 1);
		for (char *next = names[i]; (next = strchr(next, ';'));)
			*next = ':';
	}
	return names;
}

static void put_stacks(FILE *out, const struct cprof_profile *view, char *const *names)
{
	for (size_t i = 0; i < view->sample_count; i++) {
		const struct cprof_profile_span *stack = &view->stacks[view->samples[i].stack];

		for (uint32_t j = stack->count; j-- > 0;) {
			fputs(names[view->stack_items[stack->first + j]], out);
			putc(j ? ';' : ' ', out);
		}
		if (!stack->count)
			fputs("<unknown> ", out);
		fprintf(out, "%lld\n", (long long)view->values[i]);
	}
}

struct cprof_error *cprof_report_folded(const struct cprof_profile *profile,
					const struct cprof_report_options *options, FILE *out)
{
	CPROF_CLEANUP(cprof_graph_deinit) struct cprof_graph graph = {0};
	CPROF_AUTO_FREE bool *selected = NULL;
	char **names;
	size_t type;

	CPROF_TRY(cprof_select_type(profile, options->sample_index, &type));
	CPROF_TRY(cprof_select_samples(profile, options, &selected));
	CPROF_TRY(cprof_graph_init(&graph, profile, options->by));
	CPROF_TRY(sum_up(&graph, selected, type));
	names = name_nodes(&graph);
	if (!names)
		return cprof_error_nomem();
	put_stacks(out, graph.view, names);
	for (size_t i = 1; i < graph.view->location_count; i++)
		free(names[i]);
	free(names);
	return cprof_report_flush(out);
}
