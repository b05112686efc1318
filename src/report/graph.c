/* SPDX-License-Identifier: MIT */
#include "private.h"

#include <cprof/util.h>
#include <inttypes.h>
#include <string.h>

/* Shortens a path as it is written, without looking at the file system: no "//", "/./", "x/../",
 * and nothing of a build sandbox in front. In place. */
static void clean_path(char *path)
{
	static const char sandbox[] = "/proc/self/cwd/";
	bool rooted;
	char *out, *start;
	const char *next;

	const char *from = path;

	if (!strncmp(path, sandbox, sizeof(sandbox) - 1))
		from += sizeof(sandbox) - 1;
	rooted = *from == '/';
	start = out = path + rooted;
	for (next = from + rooted; *next;) {
		size_t length = strcspn(next, "/");
		bool up = length == 2 && next[0] == '.' && next[1] == '.';
		char *last = out;

		while (last > start && last[-1] != '/')
			last--;
		if (!length || (length == 1 && *next == '.') || (up && rooted && out == start)) {
			/* nothing to keep */
		} else if (up && out > start && !(out - last == 2 && !strncmp(last, "..", 2))) {
			out = last > start ? last - 1 : start;
		} else {
			if (out > start)
				*out++ = '/';
			memmove(out, next, length);
			out += length;
		}
		next += length;
		next += *next == '/';
	}
	if (out == path)
		*out++ = '.';
	*out = '\0';
}

static uint32_t view_path(struct cprof_profile *view, const char *path)
{
	CPROF_AUTO_FREE char *clean = NULL;

	if (!*path)
		return 0;
	/* "." takes more room than nothing. */
	clean = malloc(strlen(path) + 2);
	if (!clean) {
		view->no_memory = true;
		return 0;
	}
	strcpy(clean, path);
	clean_path(clean);
	return cprof_profile_string(view, clean);
}

static uint32_t view_string(struct cprof_graph *graph, uint32_t id)
{
	return cprof_profile_string(graph->view, graph->profile->strings[id]);
}

static uint32_t view_node(struct cprof_graph *graph, enum cprof_report_by by,
			  const struct cprof_profile_location *location,
			  const struct cprof_profile_line *line)
{
	const struct cprof_profile *profile = graph->profile;
	const struct cprof_profile_function *from = &profile->functions[line->function];
	struct cprof_profile_function function = {.name = view_string(graph, from->name)};
	struct cprof_profile_line to = {0};

	if (line->function && by != CPROF_BY_FUNCTION) {
		function.file = view_path(graph->view, profile->strings[from->file]);
		to.line = line->line;
	}
	if (!function.name) {
		function.system_name =
			view_string(graph, profile->mappings[location->mapping].file);
		function.start_line = from->start_line;
	}
	to.function = cprof_profile_function(graph->view, &function);
	return cprof_profile_location_with(
		graph->view, 0, by == CPROF_BY_ADDRESS ? location->address : 0, &to, 1, false);
}

static struct cprof_error *make_nodes(struct cprof_graph *graph, enum cprof_report_by by)
{
	const struct cprof_profile *profile = graph->profile;
	size_t count = 0, capacity = 0;

	graph->first = calloc(profile->location_count + 1, sizeof(*graph->first));
	if (!graph->first)
		return cprof_error_nomem();
	for (size_t i = 0; i < profile->location_count; i++) {
		const struct cprof_profile_location *location = &profile->locations[i];
		static const struct cprof_profile_line unknown;
		const struct cprof_profile_line *lines = &unknown;
		size_t line_count = 1;

		if (location->line_count) {
			lines = profile->lines + location->first_line;
			line_count = location->line_count;
		}
		if (graph->cut && graph->cut[i] < location->line_count) {
			lines += graph->cut[i];
			line_count -= graph->cut[i];
		}
		if (!cprof_grow(&graph->node_ids, &capacity, count + line_count,
				sizeof(*graph->node_ids)))
			return cprof_error_nomem();
		graph->first[i] = (uint32_t)count;
		for (size_t j = 0; j < line_count; j++)
			graph->node_ids[count++] = view_node(graph, by, location, &lines[j]);
		graph->first[i + 1] = (uint32_t)count;
	}
	return cprof_profile_check(graph->view);
}

struct cprof_error *cprof_graph_init(struct cprof_graph *graph, const struct cprof_profile *profile,
				     enum cprof_report_by by)
{
	*graph = (struct cprof_graph){.profile = profile};
	CPROF_TRY(cprof_profile_create(&graph->view));
	CPROF_TRY(cprof_prune_create(profile, &graph->cut));
	CPROF_TRY(make_nodes(graph, by));
	graph->nodes = calloc(graph->view->location_count, sizeof(*graph->nodes));
	if (!graph->nodes)
		return cprof_error_nomem();
	for (size_t i = 1; i < graph->view->location_count; i++)
		graph->nodes[i].kept = true;
	for (size_t i = 0; i < profile->location_count; i++)
		for (uint32_t j = graph->first[i]; j + 1 < graph->first[i + 1]; j++)
			graph->nodes[graph->node_ids[j]].inlinable = true;
	return NULL;
}

void cprof_graph_deinit(struct cprof_graph *graph)
{
	cprof_profile_destroy(graph->view);
	free(graph->cut);
	free(graph->first);
	free(graph->node_ids);
	free(graph->nodes);
	free(graph->edges);
}

/* NULL without memory. */
static struct cprof_graph_edge *find_edge(struct cprof_graph *graph, uint32_t from, uint32_t to)
{
	size_t known = graph->view->stack_count;
	uint32_t id = cprof_profile_stack(graph->view, (uint32_t[]){from, to}, 2);

	if (graph->view->no_memory || !cprof_grow(&graph->edges, &graph->edge_capacity,
						  id + (size_t)1, sizeof(*graph->edges)))
		return NULL;
	if (id >= known)
		graph->edges[id] = (struct cprof_graph_edge){0};
	return &graph->edges[id];
}

/* A call is weighed once a sample, and counts as inlined if its first occurrence in the sample is,
 * as in pprof. */
static bool weigh_edge(struct cprof_graph *graph, uint32_t from, uint32_t to, uint32_t sample,
		       int64_t value, bool inlined)
{
	struct cprof_graph_edge *edge = find_edge(graph, from, to);

	if (!edge)
		return false;
	if (edge->seen == sample)
		return true;
	edge->inlined = inlined && (!edge->present || edge->inlined);
	edge->present = true;
	edge->seen = sample;
	edge->weight = cprof_add_saturating(edge->weight, value);
	return true;
}

static bool weigh_sample(struct cprof_graph *graph, uint32_t index, int64_t value)
{
	const struct cprof_profile *profile = graph->profile;
	const struct cprof_profile_span *stack = &profile->stacks[profile->samples[index].stack];
	uint32_t end = cprof_prune_first(profile, graph->cut, stack);
	bool leaf_kept = false;
	uint32_t parent = 0;

	for (uint32_t i = stack->count; i-- > end;) {
		uint32_t location = profile->stack_items[stack->first + i];
		uint32_t outermost = graph->first[location + 1] - 1;

		for (uint32_t j = outermost + 1; j-- > graph->first[location];) {
			uint32_t id = graph->node_ids[j];
			struct cprof_graph_node *node = &graph->nodes[id];

			leaf_kept = node->kept;
			if (!node->kept)
				continue;
			/* A recursive function counts once. */
			if (node->seen != index + 1) {
				node->seen = index + 1;
				node->cum = cprof_add_saturating(node->cum, value);
			}
			if (parent && parent != id && (node->inlinable || graph->all_edges) &&
			    !weigh_edge(graph, parent, id, index + 1, value, j != outermost))
				return false;
			parent = id;
		}
	}
	if (leaf_kept)
		graph->nodes[parent].flat = cprof_add_saturating(graph->nodes[parent].flat, value);
	return true;
}

struct cprof_error *cprof_graph_weigh(struct cprof_graph *graph, const bool *selected, size_t type)
{
	const struct cprof_profile *profile = graph->profile;

	for (size_t i = 0; i < graph->view->location_count; i++)
		graph->nodes[i] = (struct cprof_graph_node){
			.kept = graph->nodes[i].kept,
			.inlinable = graph->nodes[i].inlinable,
		};
	if (graph->edges)
		memset(graph->edges, 0, graph->view->stack_count * sizeof(*graph->edges));
	for (uint32_t i = 0; i < profile->sample_count; i++) {
		int64_t value = profile->values[i * profile->type_count + type];

		if (value && selected[i] && !weigh_sample(graph, i, value))
			return cprof_error_nomem();
	}
	return NULL;
}

void cprof_graph_mark_inlined(struct cprof_graph *graph, int64_t cutoff)
{
	for (size_t i = 1; graph->edges && i < graph->view->stack_count; i++) {
		const struct cprof_graph_edge *edge = &graph->edges[i];
		struct cprof_graph_node *to =
			&graph->nodes[graph->view->stack_items[graph->view->stacks[i].first + 1]];

		if (!edge->present || cprof_abs(edge->weight) < cutoff)
			continue;
		to->inlined |= edge->inlined;
		to->called |= !edge->inlined;
	}
}

char *cprof_graph_name(const struct cprof_graph *graph, uint32_t node)
{
	const struct cprof_profile *view = graph->view;
	const struct cprof_profile_location *location = &view->locations[node];
	const struct cprof_profile_line *line = &view->lines[location->first_line];
	const struct cprof_profile_function *function = &view->functions[line->function];
	const char *name = view->strings[function->name];
	const char *file = view->strings[function->file];
	const char *module = view->strings[function->system_name];
	char *text = NULL;
	size_t length;
	FILE *out = open_memstream(&text, &length);

	if (!out)
		return NULL;
	if (location->address)
		fprintf(out, "%016" PRIx64 " ", location->address);
	if (*name)
		fputs(name, out);
	if (line->line)
		fprintf(out, "%s%s:%" PRId64, *name ? " " : "", file, line->line);
	else if (*file)
		fprintf(out, "%s%s", *name ? " " : "", file);
	else if (!*name && *module)
		fprintf(out, "[%s]", cprof_base_name(module));
	else if (!*name)
		fputs("<unknown>", out);
	if (fclose(out)) {
		free(text);
		return NULL;
	}
	return text;
}
