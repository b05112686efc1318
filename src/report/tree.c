/* SPDX-License-Identifier: MIT
 *
 * Functions with their callers and callees, laid out as `pprof -tree` and `pprof -peek`; and stacks
 * one by one as `pprof -traces`.
 */
#include "table.h"

#include <cprof/util.h>
#include <inttypes.h>
#include <string.h>

static const char separator[] =
	"----------------------------------------------------------+-------------\n";

/* A call, seen from one of its ends. */
struct call {
	uint32_t node;  /* this end */
	uint32_t other; /* the other one */
	int64_t weight;
	bool inlined;
};

struct tree {
	struct cprof_top top;
	char **names;     /* by node, NULL: not asked for yet */
	struct call *in;  /* by callee */
	struct call *out; /* by caller */
	size_t call_count;
};

static void tree_deinit(struct tree *tree)
{
	size_t count = tree->names ? tree->top.graph.view->location_count : 0;

	for (size_t i = 0; i < count; i++)
		free(tree->names[i]);
	free(tree->names);
	free(tree->in);
	free(tree->out);
	cprof_top_deinit(&tree->top);
}

static int compare_calls(const void *a, const void *b, void *context)
{
	const struct call *x = a;
	const struct call *y = b;
	char **names = context;
	int64_t m = cprof_abs(x->weight);
	int64_t n = cprof_abs(y->weight);

	if (x->node != y->node)
		return x->node < y->node ? -1 : 1;
	if (m != n)
		return m < n ? 1 : -1;
	return strcmp(names[x->other], names[y->other]);
}

static struct cprof_error *name_all(struct tree *tree)
{
	const struct cprof_graph *graph = &tree->top.graph;

	tree->names = calloc(graph->view->location_count, sizeof(*tree->names));
	if (!tree->names)
		return cprof_error_nomem();
	for (uint32_t i = 1; i < graph->view->location_count; i++) {
		tree->names[i] = cprof_graph_name(graph, i);
		if (!tree->names[i])
			return cprof_error_nomem();
	}
	return NULL;
}

/* Both ends' view of every call that is not too small. */
static struct cprof_error *list_calls(struct tree *tree)
{
	const struct cprof_graph *graph = &tree->top.graph;
	const struct cprof_profile *view = graph->view;

	tree->in = calloc(view->stack_count + 1, sizeof(*tree->in));
	tree->out = calloc(view->stack_count + 1, sizeof(*tree->out));
	if (!tree->in || !tree->out)
		return cprof_error_nomem();
	for (size_t i = 1; graph->edges && i < view->stack_count; i++) {
		const struct cprof_graph_edge *edge = &graph->edges[i];
		const uint32_t *ends = view->stack_items + view->stacks[i].first;

		if (!edge->present || cprof_abs(edge->weight) < tree->top.edge_cutoff)
			continue;
		tree->out[tree->call_count] = (struct call){.node = ends[0],
							    .other = ends[1],
							    .weight = edge->weight,
							    .inlined = edge->inlined};
		tree->in[tree->call_count] = tree->out[tree->call_count];
		tree->in[tree->call_count].node = ends[1];
		tree->in[tree->call_count++].other = ends[0];
	}
	qsort_r(tree->in, tree->call_count, sizeof(*tree->in), compare_calls, tree->names);
	qsort_r(tree->out, tree->call_count, sizeof(*tree->out), compare_calls, tree->names);
	return NULL;
}

static const struct call *first_call(const struct call *calls, size_t count, uint32_t node)
{
	size_t low = 0;
	size_t high = count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (calls[middle].node < node)
			low = middle + 1;
		else
			high = middle;
	}
	return calls + low;
}

static void put_calls(FILE *out, const struct tree *tree, const struct call *calls, uint32_t node)
{
	const struct cprof_top *top = &tree->top;
	const struct call *end = calls + tree->call_count;
	char value[CPROF_UNITS_TEXT];
	char percent[32];

	for (const struct call *call = first_call(calls, tree->call_count, node);
	     call < end && call->node == node; call++) {
		cprof_units_label(call->weight, top->unit, top->output_unit, value);
		cprof_units_percent(call->weight, top->graph.nodes[node].cum, percent);
		fprintf(out, "%50s %s |   ", value, percent);
		cprof_put_clean(out, tree->names[call->other]);
		fputs(call->inlined ? " (inline)\n" : "\n", out);
	}
}

static void put_node(FILE *out, const struct tree *tree, uint32_t id, int64_t *sum)
{
	const struct cprof_top *top = &tree->top;
	const struct cprof_graph_node *node = &top->graph.nodes[id];
	char flat[CPROF_UNITS_TEXT], cum[CPROF_UNITS_TEXT];
	char flat_percent[32], sum_percent[32], cum_percent[32];

	*sum = cprof_add_saturating(*sum, node->flat);
	cprof_units_label(node->flat, top->unit, top->output_unit, flat);
	cprof_units_label(node->cum, top->unit, top->output_unit, cum);
	cprof_units_percent(node->flat, top->total, flat_percent);
	cprof_units_percent(*sum, top->total, sum_percent);
	cprof_units_percent(node->cum, top->total, cum_percent);
	fputs(separator, out);
	put_calls(out, tree, tree->in, id);
	fprintf(out, "%10s %s %s %10s %s                | ", flat, flat_percent, sum_percent, cum,
		cum_percent);
	cprof_put_clean(out, tree->names[id]);
	putc('\n', out);
	put_calls(out, tree, tree->out, id);
}

static struct cprof_error *put_tree(const struct tree *tree, const regex_t *wanted,
				    const char *text, FILE *out)
{
	bool found = false;
	int64_t sum = 0;

	cprof_top_put_header(out, &tree->top);
	fputs(separator, out);
	fputs("      flat  flat%   sum%        cum   cum%   calls calls% + context \t \t \n", out);
	for (size_t i = 0; i < tree->top.row_count; i++) {
		if (wanted && regexec(wanted, tree->top.rows[i].name, 0, NULL, 0))
			continue;
		found = true;
		put_node(out, tree, tree->top.rows[i].node, &sum);
	}
	if (tree->top.row_count)
		fputs(separator, out);
	if (wanted && !found)
		return cprof_error_create(CPROF_FAILED, NULL, "no function matches %s", text);
	return cprof_report_flush(out);
}

static struct cprof_error *report(const struct cprof_profile *profile,
				  const struct cprof_report_options *options, const regex_t *wanted,
				  const char *text, FILE *out)
{
	CPROF_CLEANUP(tree_deinit)
	struct tree tree = {.top = {.profile = profile, .options = options, .all_edges = true}};

	CPROF_TRY(cprof_top_fill(&tree.top));
	CPROF_TRY(name_all(&tree));
	CPROF_TRY(list_calls(&tree));
	return put_tree(&tree, wanted, text, out);
}

#define TREE_ROWS 80 /* pprof's */

struct cprof_error *cprof_report_tree(const struct cprof_profile *profile,
				      const struct cprof_report_options *options, FILE *out)
{
	struct cprof_report_options limited = *options;

	if (!limited.count)
		limited.count = TREE_ROWS;
	return report(profile, &limited, NULL, NULL, out);
}

struct cprof_error *cprof_report_peek(const struct cprof_profile *profile, const char *pattern,
				      const struct cprof_report_options *options, FILE *out)
{
	struct cprof_report_options all = *options;
	struct cprof_error *error;
	regex_t regex;

	all.count = -1;
	CPROF_TRY(cprof_select_compile("peek", pattern, &regex));
	error = report(profile, &all, &regex, pattern, out);
	regfree(&regex);
	return error;
}

/* --- traces -------------------------------------------------------------------------------- */

static int compare_lines(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Labels of one sort, sorted by their text. */
static struct cprof_error *put_labels(FILE *out, const struct cprof_profile *profile,
				      const struct cprof_profile_span *set, bool numbers)
{
	CPROF_AUTO_FREE char **lines = calloc(set->count + 1, sizeof(*lines));
	struct cprof_error *error = lines ? NULL : cprof_error_nomem();
	size_t count = 0;

	for (uint32_t i = 0; i < set->count && !error; i++) {
		const struct cprof_profile_label *label = &profile->label_items[set->first + i];
		const char *key = profile->strings[label->key];
		char number[CPROF_UNITS_TEXT];

		if (numbers == (label->text != 0))
			continue;
		cprof_units_label(label->number, profile->strings[label->unit], "minimum", number);
		if (asprintf(&lines[count], "%10s:  %s", key,
			     numbers ? number : profile->strings[label->text]) < 0)
			error = cprof_error_nomem();
		else
			count++;
	}
	if (count)
		qsort(lines, count, sizeof(*lines), compare_lines);
	for (size_t i = 0; i < count; i++) {
		cprof_put_clean(out, lines[i]);
		putc('\n', out);
		free(lines[i]);
	}
	return error;
}

static void put_stack(FILE *out, const struct tree *tree, const struct cprof_profile_span *stack,
		      int64_t value)
{
	const struct cprof_graph *graph = &tree->top.graph;
	char text[CPROF_UNITS_TEXT];

	cprof_units_label(value, tree->top.unit, "minimum", text);
	for (uint32_t i = 0; i < stack->count; i++) {
		uint32_t location = tree->top.profile->stack_items[stack->first + i];

		for (uint32_t j = graph->first[location]; j < graph->first[location + 1]; j++) {
			fprintf(out, "%10s   ", text);
			cprof_put_clean(out, tree->names[graph->node_ids[j]]);
			fputs(j + 1 < graph->first[location + 1] ? " (inline)\n" : "\n", out);
			text[0] = '\0';
		}
	}
}

struct cprof_error *cprof_report_traces(const struct cprof_profile *profile,
					const struct cprof_report_options *options, FILE *out)
{
	static const char line[] =
		"-----------+-------------------------------------------------------\n";
	CPROF_CLEANUP(tree_deinit)
	struct tree tree = {.top = {.profile = profile, .options = options}};

	CPROF_TRY(cprof_top_fill(&tree.top));
	CPROF_TRY(name_all(&tree));
	tree.top.output_unit = "minimum"; /* of each value, as there is no table */
	cprof_top_put_labels(out, &tree.top);
	for (size_t i = 0; i < profile->sample_count; i++) {
		const struct cprof_profile_sample *sample = &profile->samples[i];
		const struct cprof_profile_span *labels = &profile->label_sets[sample->labels];

		if (!tree.top.selected[i] || !profile->stacks[sample->stack].count)
			continue;
		fputs(line, out);
		CPROF_TRY(put_labels(out, profile, labels, false));
		CPROF_TRY(put_labels(out, profile, labels, true));
		put_stack(out, &tree, &profile->stacks[sample->stack],
			  profile->values[i * profile->type_count + tree.top.type]);
	}
	fputs(line, out);
	return cprof_report_flush(out);
}
