/* SPDX-License-Identifier: MIT
 *
 * Rows of functions, and who calls whom.
 */
#include "private.h"

#include <cprof/analysis.h>
#include <cprof/util.h>
#include <string.h>

/* Row i is node i + 1. */
static size_t row_count(const struct cprof_graph *graph)
{
	return graph->view->location_count - 1;
}

static char *clean(const char *text)
{
	return cprof_text_clean_dup(text);
}

/* Where a row's code is: by the first location that shows it. */
static void find_places(struct cprof_analysis *analysis, uint32_t *mappings)
{
	const struct cprof_profile *profile = analysis->profile;
	const struct cprof_graph *graph = analysis->graph;

	for (size_t i = 0; i < profile->location_count; i++) {
		const struct cprof_profile_location *location = &profile->locations[i];
		uint32_t nodes = graph->first[i + 1] - graph->first[i];
		uint32_t cut = location->line_count - CPROF_MIN(nodes, location->line_count);

		for (uint32_t j = 0; j < nodes; j++) {
			uint32_t row = graph->node_ids[graph->first[i] + j] - 1;
			struct cprof_analysis_row *to;

			if (row >= analysis->count)
				continue;
			to = &analysis->rows[row];
			if (!mappings[row])
				mappings[row] = location->mapping;
			if (!to->function && j + cut < location->line_count)
				to->function =
					profile->lines[location->first_line + cut + j].function;
		}
	}
}

static struct cprof_error *name_rows(struct cprof_analysis *analysis)
{
	const struct cprof_profile *profile = analysis->profile;
	CPROF_AUTO_FREE uint32_t *mappings = calloc(analysis->count + 1, sizeof(*mappings));
	/* Names first, then one module a mapping. */
	char **modules;

	analysis->texts = calloc(analysis->count + profile->mapping_count, sizeof(char *));
	if (!mappings || !analysis->texts)
		return cprof_error_nomem();
	modules = analysis->texts + analysis->count;
	for (size_t i = 0; i < profile->mapping_count; i++) {
		modules[i] = clean(cprof_base_name(profile->strings[profile->mappings[i].file]));
		if (!modules[i])
			return cprof_error_nomem();
	}
	find_places(analysis, mappings);
	for (uint32_t i = 0; i < analysis->count; i++) {
		CPROF_AUTO_FREE char *name = cprof_graph_name(analysis->graph, i + 1);

		analysis->texts[i] = name ? clean(name) : NULL;
		if (!analysis->texts[i])
			return cprof_error_nomem();
		analysis->rows[i].name = analysis->texts[i];
		analysis->rows[i].module = modules[mappings[i]];
	}
	return NULL;
}

static struct cprof_error *weigh_rows(struct cprof_analysis *analysis)
{
	const struct cprof_profile *profile = analysis->profile;
	struct cprof_graph *graph = analysis->graph;
	size_t width = profile->type_count;
	CPROF_AUTO_FREE bool *all = malloc(profile->sample_count + 1);

	analysis->totals = calloc(width + 1, sizeof(*analysis->totals));
	analysis->values = calloc(analysis->count * width * 2 + 1, sizeof(*analysis->values));
	if (!all || !analysis->totals || !analysis->values)
		return cprof_error_nomem();
	memset(all, true, profile->sample_count + 1);
	for (size_t i = 0; i < profile->sample_count; i++)
		for (size_t type = 0; type < width; type++)
			analysis->totals[type] =
				cprof_add_saturating(analysis->totals[type],
						     cprof_abs(profile->values[i * width + type]));
	for (size_t i = 0; i < analysis->count; i++) {
		analysis->rows[i].flat = analysis->values + i * width * 2;
		analysis->rows[i].cum = analysis->rows[i].flat + width;
	}
	for (size_t type = 0; type < width; type++) {
		CPROF_TRY(cprof_graph_weigh(graph, all, type));
		for (size_t i = 0; i < analysis->count; i++) {
			analysis->rows[i].flat[type] = graph->nodes[i + 1].flat;
			analysis->rows[i].cum[type] = graph->nodes[i + 1].cum;
		}
	}
	cprof_graph_mark_inlined(graph, 0);
	for (size_t i = 0; i < analysis->count; i++)
		analysis->rows[i].inlined =
			graph->nodes[i + 1].inlined && !graph->nodes[i + 1].called;
	return NULL;
}

struct cprof_error *cprof_analysis_create(const struct cprof_profile *profile,
					  struct cprof_analysis **analysis)
{
	struct cprof_analysis *made = calloc(1, sizeof(*made));
	struct cprof_error *error = NULL;

	*analysis = NULL;
	if (!made)
		return cprof_error_nomem();
	made->profile = profile;
	made->graph = calloc(1, sizeof(*made->graph));
	if (!made->graph)
		error = cprof_error_nomem();
	if (!error)
		error = cprof_graph_init(made->graph, profile, CPROF_BY_FUNCTION);
	if (!error) {
		made->count = row_count(made->graph);
		made->rows = calloc(made->count + 1, sizeof(*made->rows));
		if (!made->rows)
			error = cprof_error_nomem();
	}
	if (!error)
		error = name_rows(made);
	if (!error)
		error = weigh_rows(made);
	if (error) {
		cprof_analysis_destroy(made);
		return error;
	}
	*analysis = made;
	return NULL;
}

void cprof_analysis_destroy(struct cprof_analysis *analysis)
{
	size_t texts;

	if (!analysis)
		return;
	texts = analysis->texts ? analysis->count + analysis->profile->mapping_count : 0;
	for (size_t i = 0; i < texts; i++)
		free(analysis->texts[i]);
	if (analysis->graph)
		cprof_graph_deinit(analysis->graph);
	free(analysis->graph);
	free(analysis->texts);
	free(analysis->values);
	free(analysis->totals);
	free(analysis->rows);
	free(analysis);
}

size_t cprof_analysis_type(const struct cprof_profile *profile, const char *name)
{
	int found = name ? cprof_profile_find_type(profile, name) : -1;

	if (found < 0 && profile->default_type)
		found = cprof_profile_find_type(profile, profile->strings[profile->default_type]);
	if (found >= 0)
		return (size_t)found;
	return profile->type_count ? profile->type_count - 1 : 0;
}

/* --- callers and callees, trees ------------------------------------------------------------ */

/* The rows of a stack, outermost first; false without memory. */
struct path {
	uint32_t *rows;
	size_t count;
	size_t capacity;
};

static bool read_path(const struct cprof_analysis *analysis, uint32_t stack_id, struct path *path)
{
	const struct cprof_profile *profile = analysis->profile;
	const struct cprof_graph *graph = analysis->graph;
	const struct cprof_profile_span *stack = &profile->stacks[stack_id];
	uint32_t end = cprof_prune_first(profile, graph->cut, stack);

	path->count = 0;
	for (uint32_t i = stack->count; i-- > end;) {
		uint32_t location = profile->stack_items[stack->first + i];
		uint32_t first = graph->first[location], last = graph->first[location + 1];

		if (!cprof_grow(&path->rows, &path->capacity, path->count + (last - first),
				sizeof(*path->rows)))
			return false;
		for (uint32_t j = last; j-- > first;)
			path->rows[path->count++] = graph->node_ids[j] - 1;
	}
	return true;
}

/* What a sample adds to the callers and callees of a row: each once. */
struct weights {
	int64_t *values;
	uint32_t *seen; /* the sample it was last met in, plus one */
};

static void add_weight(const struct weights *weights, uint32_t row, uint32_t sample, int64_t value)
{
	if (weights->seen[row] == sample + 1)
		return;
	weights->seen[row] = sample + 1;
	weights->values[row] = cprof_add_saturating(weights->values[row], value);
}

static int by_value(const void *a, const void *b, void *context)
{
	const struct cprof_analysis *analysis = context;
	const struct cprof_analysis_edge *x = a, *y = b;
	int64_t left = cprof_abs(x->value), right = cprof_abs(y->value);
	int order = (left < right) - (left > right);

	if (!order)
		order = strcmp(analysis->rows[x->row].name, analysis->rows[y->row].name);
	return order ? order : (x->row > y->row) - (x->row < y->row);
}

static struct cprof_error *list_edges(const struct cprof_analysis *analysis,
				      const struct weights *weights,
				      struct cprof_analysis_edge **edges, size_t *count)
{
	*edges = calloc(analysis->count + 1, sizeof(**edges));
	if (!*edges)
		return cprof_error_nomem();
	for (uint32_t i = 0; i < analysis->count; i++)
		if (weights->values[i])
			(*edges)[(*count)++] = (struct cprof_analysis_edge){i, weights->values[i]};
	qsort_r(*edges, *count, sizeof(**edges), by_value, (void *)analysis);
	return NULL;
}

static struct cprof_error *weigh_calls(const struct cprof_analysis *analysis, uint32_t row,
				       size_t type, const struct weights *callers,
				       const struct weights *callees)
{
	const struct cprof_profile *profile = analysis->profile;
	struct path path = {0};

	for (uint32_t i = 0; i < profile->sample_count; i++) {
		int64_t value = profile->values[i * profile->type_count + type];

		if (!value)
			continue;
		if (!read_path(analysis, profile->samples[i].stack, &path)) {
			free(path.rows);
			return cprof_error_nomem();
		}
		for (size_t j = 1; j < path.count; j++) {
			uint32_t from = path.rows[j - 1], to = path.rows[j];

			if (from == to || from >= analysis->count || to >= analysis->count)
				continue;
			if (to == row)
				add_weight(callers, from, i, value);
			if (from == row)
				add_weight(callees, to, i, value);
		}
	}
	free(path.rows);
	return NULL;
}

struct cprof_error *cprof_analysis_peek(const struct cprof_analysis *analysis, uint32_t row,
					size_t type, struct cprof_analysis_peek *peek)
{
	size_t count = analysis->count + 1;
	CPROF_AUTO_FREE int64_t *values = calloc(2 * count, sizeof(*values));
	CPROF_AUTO_FREE uint32_t *seen = calloc(2 * count, sizeof(*seen));
	struct weights callers = {values, seen}, callees;
	struct cprof_error *error;

	*peek = (struct cprof_analysis_peek){0};
	if (!values || !seen)
		return cprof_error_nomem();
	callees = (struct weights){values + count, seen + count};
	CPROF_TRY(weigh_calls(analysis, row, type, &callers, &callees));
	error = list_edges(analysis, &callers, &peek->callers, &peek->caller_count);
	if (!error)
		error = list_edges(analysis, &callees, &peek->callees, &peek->callee_count);
	if (error)
		cprof_analysis_peek_deinit(peek);
	return error;
}

void cprof_analysis_peek_deinit(struct cprof_analysis_peek *peek)
{
	free(peek->callers);
	free(peek->callees);
	*peek = (struct cprof_analysis_peek){0};
}

/* A tree that grows; children are found by a hash of (parent, row). */
struct growing {
	struct cprof_analysis_tree tree;
	size_t capacity;
	uint32_t *slots; /* nodes; 0: free, the root is no child */
	size_t slot_count;
};

static bool grow_slots(struct growing *growing)
{
	size_t wanted = CPROF_MAX(growing->slot_count * 2, (size_t)256);
	uint32_t *slots;

	if (growing->slot_count > growing->tree.count * 2)
		return true;
	slots = calloc(wanted, sizeof(*slots));
	if (!slots)
		return false;
	for (uint32_t i = 1; i < growing->tree.count; i++) {
		const struct cprof_analysis_node *node = &growing->tree.nodes[i];
		size_t at = cprof_hash_u64((uint64_t)node->parent << 32 | node->row);

		while (slots[at &= wanted - 1])
			at++;
		slots[at] = i;
	}
	free(growing->slots);
	growing->slots = slots;
	growing->slot_count = wanted;
	return true;
}

/* 0 without memory. */
static uint32_t child_of(struct growing *growing, uint32_t parent, uint32_t row)
{
	struct cprof_analysis_tree *tree = &growing->tree;
	size_t at;

	if (!grow_slots(growing) ||
	    !cprof_grow(&tree->nodes, &growing->capacity, tree->count + 1, sizeof(*tree->nodes)))
		return 0;
	for (at = cprof_hash_u64((uint64_t)parent << 32 | row);; at++) {
		uint32_t id = growing->slots[at &= growing->slot_count - 1];

		if (!id)
			break;
		if (tree->nodes[id].parent == parent && tree->nodes[id].row == row)
			return id;
	}
	growing->slots[at] = (uint32_t)tree->count;
	tree->nodes[tree->count] = (struct cprof_analysis_node){
		.row = row, .parent = parent, .depth = tree->nodes[parent].depth + 1};
	tree->depth = CPROF_MAX(tree->depth, tree->nodes[tree->count].depth);
	return (uint32_t)tree->count++;
}

struct order {
	const struct cprof_analysis *analysis;
	const struct cprof_analysis_node *nodes;
};

static int by_parent(const void *a, const void *b, void *context)
{
	const struct order *order = context;
	const struct cprof_analysis_node *x = &order->nodes[*(const uint32_t *)a];
	const struct cprof_analysis_node *y = &order->nodes[*(const uint32_t *)b];
	int64_t left = cprof_abs(x->value), right = cprof_abs(y->value);

	if (x->parent != y->parent)
		return x->parent < y->parent ? -1 : 1;
	if (left != right)
		return left > right ? -1 : 1;
	if (x->row >= order->analysis->count || y->row >= order->analysis->count)
		return (x->row > y->row) - (x->row < y->row);
	return strcmp(order->analysis->rows[x->row].name, order->analysis->rows[y->row].name);
}

static bool link_children(const struct cprof_analysis *analysis, struct cprof_analysis_tree *tree)
{
	struct order order = {analysis, tree->nodes};
	CPROF_AUTO_FREE uint32_t *ids = calloc(tree->count, sizeof(*ids));

	if (!ids)
		return false;
	for (uint32_t i = 1; i < tree->count; i++)
		ids[i - 1] = i;
	qsort_r(ids, tree->count - 1, sizeof(*ids), by_parent, &order);
	/* From the last to the first: each is put before those that are there. */
	for (size_t i = tree->count - 1; i-- > 0;) {
		struct cprof_analysis_node *node = &tree->nodes[ids[i]];

		node->next = tree->nodes[node->parent].first;
		tree->nodes[node->parent].first = ids[i];
	}
	return true;
}

static bool plant(const struct cprof_analysis *analysis, size_t type, struct growing *growing)
{
	const struct cprof_profile *profile = analysis->profile;
	struct path path = {0};
	bool fine = true;

	for (size_t i = 0; i < profile->sample_count && fine; i++) {
		int64_t value = profile->values[i * profile->type_count + type];
		uint32_t node = 0;

		if (!value)
			continue;
		fine = read_path(analysis, profile->samples[i].stack, &path);
		growing->tree.nodes[0].value =
			cprof_add_saturating(growing->tree.nodes[0].value, value);
		for (size_t j = 0; j < path.count && fine; j++) {
			node = child_of(growing, node, path.rows[j]);
			fine = node;
			growing->tree.nodes[node].value =
				cprof_add_saturating(growing->tree.nodes[node].value, value);
		}
		growing->tree.nodes[node].self =
			cprof_add_saturating(growing->tree.nodes[node].self, value);
	}
	free(path.rows);
	return fine;
}

struct cprof_error *cprof_analysis_tree(const struct cprof_analysis *analysis, size_t type,
					struct cprof_analysis_tree *tree)
{
	struct growing growing = {.tree.count = 1};
	bool fine =
		cprof_grow(&growing.tree.nodes, &growing.capacity, 1, sizeof(*growing.tree.nodes));

	*tree = (struct cprof_analysis_tree){0};
	if (fine) {
		growing.tree.nodes[0] = (struct cprof_analysis_node){.row = UINT32_MAX};
		fine = plant(analysis, type, &growing) && link_children(analysis, &growing.tree);
	}
	free(growing.slots);
	if (!fine) {
		free(growing.tree.nodes);
		return cprof_error_nomem();
	}
	*tree = growing.tree;
	return NULL;
}

void cprof_analysis_tree_deinit(struct cprof_analysis_tree *tree)
{
	free(tree->nodes);
	*tree = (struct cprof_analysis_tree){0};
}

/* --- choosing samples ---------------------------------------------------------------------- */

static bool labels_match(const struct cprof_profile *profile, uint32_t labels,
			 const struct cprof_analysis_filter *filter)
{
	const struct cprof_profile_span *set = &profile->label_sets[labels];

	for (uint32_t i = 0; i < set->count; i++) {
		const struct cprof_profile_label *label = &profile->label_items[set->first + i];
		const char *key = profile->strings[label->key];

		if (filter->tid
			    ? !strcmp(key, "tid") && !label->text && label->number == filter->tid
			    : !strcmp(key, "thread") && label->text &&
				      !strcmp(profile->strings[label->text], filter->thread))
			return true;
	}
	return false;
}

struct cprof_error *cprof_analysis_select(const struct cprof_profile *profile,
					  const struct cprof_analysis_filter *filter,
					  struct cprof_profile **selected)
{
	struct cprof_report_options options = {.focus = filter->focus, .ignore = filter->ignore};
	CPROF_AUTO_FREE bool *keep = NULL;

	*selected = NULL;
	CPROF_TRY(cprof_select_samples(profile, &options, &keep));
	for (size_t i = 0;
	     i < profile->sample_count && (filter->tid || (filter->thread && *filter->thread)); i++)
		keep[i] = keep[i] && labels_match(profile, profile->samples[i].labels, filter);
	return cprof_profile_select(profile, keep, selected);
}
