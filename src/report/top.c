/* SPDX-License-Identifier: MIT */
#include "table.h"

#include <cprof/analysis.h>
#include <cprof/util.h>
#include <string.h>
#include <time.h>

/* pprof's defaults: nodes and calls below these shares of the total are left out. */
#define NODE_FRACTION 0.005
#define EDGE_FRACTION 0.001

void cprof_top_deinit(struct cprof_top *top)
{
	cprof_graph_deinit(&top->graph);
	free(top->selected);
	for (size_t i = 0; i < top->row_count; i++)
		free(top->rows[i].name);
	free(top->rows);
}

static int64_t share(int64_t total, double fraction)
{
	return cprof_abs((int64_t)((double)total * fraction));
}

/* Leaves out small nodes; returns the cutoff of calls. */
static struct cprof_error *drop_small(struct cprof_top *top, int64_t *edge_cutoff)
{
	struct cprof_graph *graph = &top->graph;
	int64_t sum = 0, cutoff;

	*edge_cutoff = 0;
	CPROF_TRY(cprof_graph_weigh(graph, top->selected, top->type));
	if (top->options->count < 0)
		return NULL;
	for (size_t i = 1; i < graph->view->location_count; i++)
		sum = cprof_add_saturating(sum, graph->nodes[i].flat);
	cutoff = share(sum, NODE_FRACTION);
	*edge_cutoff = share(sum, EDGE_FRACTION);
	for (size_t i = 1; i < graph->view->location_count; i++) {
		struct cprof_graph_node *node = &graph->nodes[i];

		if ((node->cum || node->flat) && cprof_abs(node->cum) < cutoff) {
			node->kept = false;
			top->dropped++;
		}
	}
	return top->dropped ? cprof_graph_weigh(graph, top->selected, top->type) : NULL;
}

static struct cprof_error *make_rows(struct cprof_top *top)
{
	const struct cprof_graph *graph = &top->graph;

	top->rows = calloc(graph->view->location_count, sizeof(*top->rows));
	if (!top->rows)
		return cprof_error_nomem();
	for (uint32_t i = 1; i < graph->view->location_count; i++) {
		if (!graph->nodes[i].kept || (!graph->nodes[i].cum && !graph->nodes[i].flat))
			continue;
		top->rows[top->row_count].node = i;
		top->rows[top->row_count].name = cprof_graph_name(graph, i);
		if (!top->rows[top->row_count++].name)
			return cprof_error_nomem();
	}
	return NULL;
}

static int compare_sizes(int64_t a, int64_t b)
{
	a = cprof_abs(a);
	b = cprof_abs(b);
	return (a < b) - (a > b);
}

static int compare_rows(const void *a, const void *b, void *context)
{
	const struct cprof_top *top = context;
	const struct cprof_top_row *x = a, *y = b;
	const struct cprof_graph_node *m = &top->graph.nodes[x->node];
	const struct cprof_graph_node *n = &top->graph.nodes[y->node];
	bool cum = top->options->cum;
	int order = cum ? compare_sizes(m->cum, n->cum) : compare_sizes(m->flat, n->flat);

	if (!order)
		order = strcmp(x->name, y->name);
	if (!order)
		order = cum ? compare_sizes(m->flat, n->flat) : compare_sizes(m->cum, n->cum);
	return order ? order : (x->node > y->node) - (x->node < y->node);
}

/* Sorts, and keeps as many rows as were asked for. */
static struct cprof_error *limit_rows(struct cprof_top *top)
{
	size_t limit = top->options->count > 0 ? (size_t)top->options->count : SIZE_MAX;

	qsort_r(top->rows, top->row_count, sizeof(*top->rows), compare_rows, top);
	top->out_of = top->row_count;
	if (top->row_count <= limit)
		return NULL;
	while (top->row_count > limit) {
		struct cprof_top_row *row = &top->rows[--top->row_count];

		top->graph.nodes[row->node].kept = false;
		free(row->name);
	}
	/* Calls now lead past the nodes left out. */
	return cprof_graph_weigh(&top->graph, top->selected, top->type);
}

static void choose_unit(struct cprof_top *top)
{
	int64_t smallest = 0;

	for (size_t i = 0; i < top->row_count; i++) {
		const struct cprof_graph_node *node = &top->graph.nodes[top->rows[i].node];
		int64_t value = cprof_abs(node->flat ? node->flat : node->cum);

		if (value && (!smallest || value < smallest))
			smallest = value;
	}
	top->output_unit = "minimum";
	if (top->row_count)
		top->output_unit = cprof_analysis_unit(smallest, top->total, top->unit);
}

void cprof_top_put_value(FILE *out, const struct cprof_top *top, int64_t value)
{
	char text[CPROF_UNITS_TEXT];

	cprof_units_label(value, top->unit, top->output_unit, text);
	fputs(text, out);
}

static void put_time(FILE *out, int64_t time_ns)
{
	static const char months[12][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
					   "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
	time_t seconds = time_ns / 1000000000 - (time_ns % 1000000000 < 0);
	struct tm when;

	if (!localtime_r(&seconds, &when))
		return;
	fprintf(out, "Time: %s %d, %d at %d:%02d%s (%s)\n", months[when.tm_mon], when.tm_mday,
		when.tm_year + 1900, (when.tm_hour + 11) % 12 + 1, when.tm_min,
		when.tm_hour < 12 ? "am" : "pm", when.tm_zone);
}

static void put_duration(FILE *out, const struct cprof_top *top)
{
	char text[CPROF_UNITS_TEXT], percent[32];
	const char *unit;
	double total = cprof_units_scale(top->total, top->unit, "nanoseconds", &unit);

	cprof_units_label(top->profile->duration_ns, "nanoseconds", "minimum", text);
	fprintf(out, "Duration: %s, Total samples = ", text);
	cprof_top_put_value(out, top, top->total);
	putc(' ', out);
	if (!strcmp(unit, "ns") && total != 0) {
		cprof_units_percent(total < 0x1p63 ? (int64_t)total : INT64_MAX,
				    top->profile->duration_ns, percent);
		fprintf(out, "(%s)", percent);
	}
	putc('\n', out);
}

static void put_line(FILE *out, const char *title, const char *text)
{
	fputs(title, out);
	cprof_put_clean(out, text);
	putc('\n', out);
}

void cprof_top_put_labels(FILE *out, const struct cprof_top *top)
{
	const struct cprof_profile *profile = top->profile;

	if (profile->mapping_count > 1) {
		const char *file = profile->strings[profile->mappings[1].file];
		const char *build_id = profile->strings[profile->mappings[1].build_id];

		if (*file)
			put_line(out, "File: ", cprof_base_name(file));
		if (*build_id)
			put_line(out, "Build ID: ", build_id);
	}
	for (size_t i = 0; i < profile->comment_count; i++)
		if (*profile->strings[profile->comments[i]] != '#')
			put_line(out, "", profile->strings[profile->comments[i]]);
	if (profile->types[top->type].type)
		put_line(out, "Type: ", profile->strings[profile->types[top->type].type]);
	if (profile->time_ns)
		put_time(out, profile->time_ns);
	if (profile->duration_ns)
		put_duration(out, top);
}

static void put_filter(FILE *out, const char *name, const char *text)
{
	CPROF_AUTO_FREE char *line = NULL;

	if (!text || !*text)
		return;
	if (asprintf(&line, "%s=%s", name, text) < 0) {
		line = NULL;
		return;
	}
	if (strlen(line) > 80)
		strcpy(line + 77, "...");
	put_line(out, "   ", line);
}

void cprof_top_put_header(FILE *out, const struct cprof_top *top)
{
	const struct cprof_report_options *options = top->options;
	char percent[32];
	int64_t sum = 0;

	cprof_top_put_labels(out, top);
	if ((options->focus && *options->focus) || (options->ignore && *options->ignore))
		fputs("Active filters:\n", out);
	put_filter(out, "focus", options->focus);
	put_filter(out, "ignore", options->ignore);
	for (size_t i = 0; i < top->row_count; i++)
		sum = cprof_add_saturating(sum, top->graph.nodes[top->rows[i].node].flat);
	fputs("Showing nodes accounting for ", out);
	cprof_top_put_value(out, top, sum);
	cprof_units_percent(sum, top->total, percent);
	fprintf(out, ", %s of ", percent + strspn(percent, " "));
	cprof_top_put_value(out, top, top->total);
	fputs(" total\n", out);
	if (top->total && top->dropped) {
		fprintf(out, "Dropped %zu node%s (cum <= ", top->dropped,
			top->dropped > 1 ? "s" : "");
		cprof_top_put_value(out, top, share(top->total, NODE_FRACTION));
		fputs(")\n", out);
	}
	if (top->total && top->row_count && top->row_count < top->out_of)
		fprintf(out, "Showing top %zu nodes out of %zu\n", top->row_count, top->out_of);
}

static void put_table(FILE *out, const struct cprof_top *top)
{
	char flat[CPROF_UNITS_TEXT], cum[CPROF_UNITS_TEXT];
	char flat_percent[32], sum_percent[32], cum_percent[32];
	int64_t sum = 0;

	fprintf(out, "%10s %5s%% %5s%% %10s %5s%%\n", "flat", "flat", "sum", "cum", "cum");
	for (size_t i = 0; i < top->row_count; i++) {
		const struct cprof_graph_node *node = &top->graph.nodes[top->rows[i].node];

		sum = cprof_add_saturating(sum, node->flat);
		cprof_units_label(node->flat, top->unit, top->output_unit, flat);
		cprof_units_label(node->cum, top->unit, top->output_unit, cum);
		cprof_units_percent(node->flat, top->total, flat_percent);
		cprof_units_percent(sum, top->total, sum_percent);
		cprof_units_percent(node->cum, top->total, cum_percent);
		fprintf(out, "%10s %s %s %10s %s  ", flat, flat_percent, sum_percent, cum,
			cum_percent);
		cprof_put_clean(out, top->rows[i].name);
		if (node->inlined)
			fputs(node->called ? " (partial-inline)" : " (inline)", out);
		putc('\n', out);
	}
}

struct cprof_error *cprof_top_fill(struct cprof_top *top)
{
	const struct cprof_profile *profile = top->profile;

	CPROF_TRY(cprof_select_type(profile, top->options->sample_index, &top->type));
	CPROF_TRY(cprof_select_samples(profile, top->options, &top->selected));
	top->unit = profile->strings[profile->types[top->type].unit];
	for (size_t i = 0; i < profile->sample_count; i++)
		top->total = cprof_add_saturating(
			top->total,
			cprof_abs(profile->values[i * profile->type_count + top->type]));
	CPROF_TRY(cprof_graph_init(&top->graph, profile, top->options->by));
	top->graph.all_edges = top->all_edges;
	CPROF_TRY(drop_small(top, &top->edge_cutoff));
	CPROF_TRY(make_rows(top));
	CPROF_TRY(limit_rows(top));
	choose_unit(top);
	return NULL;
}

struct cprof_error *cprof_report_top(const struct cprof_profile *profile,
				     const struct cprof_report_options *options, FILE *out)
{
	CPROF_CLEANUP(cprof_top_deinit)
	struct cprof_top top = {.profile = profile, .options = options};

	CPROF_TRY(cprof_top_fill(&top));
	cprof_graph_mark_inlined(&top.graph, top.edge_cutoff);
	cprof_top_put_header(out, &top);
	put_table(out, &top);
	return cprof_report_flush(out);
}
