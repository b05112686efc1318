/* SPDX-License-Identifier: MIT
 *
 * The flame view: callers above, what they call below, as wide as it costs. A place in it is the
 * way there from the root, by name, so that it lasts while the numbers change.
 */
#include "ui.h"

#include <cprof/util.h>
#include <string.h>

static const struct cprof_analysis_node *node_at(const struct cprof_model *model, uint32_t id)
{
	return &model->tree.nodes[id];
}

static const char *node_name(const struct cprof_model *model, uint32_t id)
{
	uint32_t row = node_at(model, id)->row;

	return row < model->analysis->count ? model->analysis->rows[row].name : "all";
}

static uint64_t node_hash(const struct cprof_model *model, uint32_t id)
{
	const char *name = node_name(model, id);

	return cprof_hash_bytes(name, strlen(name));
}

static const struct cprof_model *flame_model(const struct cprof_ui *ui)
{
	const struct cprof_model *model = cprof_ui_page(ui);

	return model && model->tree.count ? model : NULL;
}

/* Remembers the way to the selected node and how much of it is zoomed. */
static void set_place(struct cprof_ui *ui, uint32_t selected, uint32_t zoomed)
{
	const struct cprof_model *model = flame_model(ui);
	struct cprof_flame *flame = &cprof_ui_tab(ui)->flame;
	uint32_t node = selected;

	flame->length = CPROF_MIN((int)node_at(model, selected)->depth, CPROF_FLAME_MAX);
	flame->zoom = CPROF_MIN((int)node_at(model, zoomed)->depth, flame->length);
	while ((int)node_at(model, node)->depth > flame->length)
		node = node_at(model, node)->parent;
	flame->selected = node;
	flame->zoomed = zoomed;
	for (int i = flame->length; i-- > 0; node = node_at(model, node)->parent)
		flame->path[i] = node_hash(model, node);
}

/* Finds the place again, as far as it is still there. */
void cprof_flame_update(struct cprof_ui *ui)
{
	const struct cprof_model *model = flame_model(ui);
	struct cprof_flame *flame = &cprof_ui_tab(ui)->flame;
	uint32_t node = 0, zoomed = 0;

	if (!model)
		return;
	for (int i = 0; i < flame->length; i++) {
		uint32_t child = node_at(model, node)->first;

		while (child && node_hash(model, child) != flame->path[i])
			child = node_at(model, child)->next;
		if (!child)
			break;
		node = child;
		if (i + 1 == flame->zoom)
			zoomed = node;
	}
	flame->selected = node;
	flame->zoomed = zoomed;
}

const char *cprof_flame_function(const struct cprof_ui *ui)
{
	const struct cprof_model *model = flame_model(ui);
	const struct cprof_flame *flame = &ui->tabs[ui->view].flame;

	if (!model || !flame->selected)
		return NULL;
	return node_name(model, flame->selected);
}

/* --- moving -------------------------------------------------------------------------------- */

static uint32_t previous_sibling(const struct cprof_model *model, uint32_t id)
{
	uint32_t sibling = node_at(model, node_at(model, id)->parent)->first;

	if (!id || sibling == id)
		return 0;
	while (node_at(model, sibling)->next != id)
		sibling = node_at(model, sibling)->next;
	return sibling;
}

/* To the side, over the borders of parents: the nearest at the same depth, else the parent's. */
static uint32_t neighbour(const struct cprof_model *model, uint32_t id, uint32_t zoomed, bool right)
{
	uint32_t up = id, next = 0;
	int deeper = 0;

	while (up && up != zoomed && !next) {
		next = right ? node_at(model, up)->next : previous_sibling(model, up);
		if (!next) {
			up = node_at(model, up)->parent;
			deeper++;
		}
	}
	if (!next)
		return id;
	for (; deeper && node_at(model, next)->first; deeper--) {
		next = node_at(model, next)->first;
		while (!right && node_at(model, next)->next)
			next = node_at(model, next)->next;
	}
	return next;
}

void cprof_flame_move(struct cprof_ui *ui, enum cprof_request request)
{
	const struct cprof_model *model = flame_model(ui);
	struct cprof_flame *flame = &cprof_ui_tab(ui)->flame;
	uint32_t node = flame->selected;

	if (!model)
		return;
	switch (request) {
	case CPROF_REQUEST_UP:
		if (node != flame->zoomed)
			node = node_at(model, node)->parent;
		break;
	case CPROF_REQUEST_DOWN:
		if (node_at(model, node)->first)
			node = node_at(model, node)->first;
		break;
	case CPROF_REQUEST_LEFT:
	case CPROF_REQUEST_RIGHT:
		node = neighbour(model, node, flame->zoomed, request == CPROF_REQUEST_RIGHT);
		break;
	case CPROF_REQUEST_HOME:
		node = flame->zoomed;
		break;
	case CPROF_REQUEST_END:
		while (node_at(model, node)->first)
			node = node_at(model, node)->first;
		break;
	case CPROF_REQUEST_SCROLL_UP:
	case CPROF_REQUEST_PAGE_UP:
		for (int i = 0; i < ui->body_rows / 2 && node != flame->zoomed; i++)
			node = node_at(model, node)->parent;
		break;
	case CPROF_REQUEST_SCROLL_DOWN:
	case CPROF_REQUEST_PAGE_DOWN:
		for (int i = 0; i < ui->body_rows / 2 && node_at(model, node)->first; i++)
			node = node_at(model, node)->first;
		break;
	default:
		break;
	}
	set_place(ui, node, flame->zoomed);
}

bool cprof_flame_zoom(struct cprof_ui *ui)
{
	struct cprof_flame *flame = &cprof_ui_tab(ui)->flame;

	if (!flame_model(ui))
		return true;
	if (flame->selected == flame->zoomed)
		return !flame->selected;
	set_place(ui, flame->selected, flame->selected);
	return true;
}

bool cprof_flame_back(struct cprof_ui *ui)
{
	const struct cprof_model *model = flame_model(ui);
	struct cprof_flame *flame = &cprof_ui_tab(ui)->flame;

	if (!model || !flame->zoomed)
		return false;
	set_place(ui, flame->selected, 0);
	return true;
}

/* --- drawing ------------------------------------------------------------------------------- */

struct canvas {
	struct cprof_ui *ui;
	const struct cprof_model *model;
	struct cprof_flame *flame;
	int first; /* depth of the topmost row */
	int rows;
	int wanted_row; /* of a click; -1: draw */
	int wanted_column;
	uint32_t found;
};

static enum cprof_style style_of(const struct canvas *canvas, uint32_t id)
{
	const struct cprof_analysis_node *node = node_at(canvas->model, id);

	if (id == canvas->flame->selected)
		return CPROF_STYLE_SELECTED;
	if (canvas->model->matches && node->row < canvas->model->analysis->count &&
	    !canvas->model->matches[node->row])
		return CPROF_STYLE_FLAME_DIM;
	return (enum cprof_style)(CPROF_STYLE_FLAME +
				  node_hash(canvas->model, id) %
					  (CPROF_STYLE_FLAME_LAST - CPROF_STYLE_FLAME + 1));
}

static void draw_box(struct canvas *canvas, uint32_t id, int left, int width)
{
	struct cprof_cells *cells = &canvas->ui->cells;
	int line = (int)node_at(canvas->model, id)->depth - canvas->first;
	enum cprof_style style;

	if (line < 0 || line >= canvas->rows)
		return;
	line += canvas->ui->body_row;
	if (canvas->wanted_row >= 0) {
		if (line == canvas->wanted_row && canvas->wanted_column >= left &&
		    canvas->wanted_column < left + width)
			canvas->found = id;
		return;
	}
	style = style_of(canvas, id);
	cprof_cells_fill(cells, line, left, width, style);
	cprof_cells_put(cells, line, left, 1, style, cells->utf8 ? "▏" : "|");
	if (width > 2)
		cprof_cells_name(cells, line, left + 1, width - 1, style,
				 node_name(canvas->model, id));
}

/* Children side by side below their parent; what is left at the right is the parent's own. */
static void draw_below(struct canvas *canvas, uint32_t id, double left, double width)
{
	const struct cprof_analysis_node *node = node_at(canvas->model, id);
	double whole = (double)llabs(node->value), sum = 0;
	int last = canvas->first + canvas->rows;

	/* In a difference children may outweigh what they add up to. */
	for (uint32_t i = node->first; i; i = node_at(canvas->model, i)->next)
		sum += (double)llabs(node_at(canvas->model, i)->value);
	whole = CPROF_MAX(whole, sum);
	if (whole <= 0 || (int)node->depth + 1 >= last)
		return;
	for (uint32_t i = node->first; i; i = node_at(canvas->model, i)->next) {
		double share = (double)llabs(node_at(canvas->model, i)->value) / whole * width;
		int from = (int)(left + 0.5), to = (int)(left + share + 0.5);

		if (to > from) {
			draw_box(canvas, i, from, to - from);
			draw_below(canvas, i, left, share);
		}
		left += share;
	}
}

static void draw_all(struct canvas *canvas)
{
	int columns = canvas->ui->cells.columns;

	for (uint32_t up = canvas->flame->zoomed;; up = node_at(canvas->model, up)->parent) {
		draw_box(canvas, up, 0, columns);
		if (!up)
			break;
	}
	draw_below(canvas, canvas->flame->zoomed, 0, columns);
}

static void draw_detail(const struct canvas *canvas, int row)
{
	const struct cprof_model *model = canvas->model;
	const struct cprof_analysis_node *node = node_at(model, canvas->flame->selected);
	char value[CPROF_ANALYSIS_TEXT], self[CPROF_ANALYSIS_TEXT], percent[32], zoomed[32];
	const char *module = "";
	char numbers[1024];
	int used;

	if (node->row < model->analysis->count)
		module = model->analysis->rows[node->row].module;
	cprof_analysis_value(node->value, model->unit, model->output_unit, value);
	cprof_analysis_value(node->self, model->unit, model->output_unit, self);
	cprof_analysis_percent(node->value, model->whole, percent);
	cprof_analysis_percent(node->value, node_at(model, canvas->flame->zoomed)->value, zoomed);
	used = snprintf(numbers, sizeof(numbers), "%s %s", value, percent + strspn(percent, " "));
	if (canvas->flame->zoomed)
		used += snprintf(numbers + used, sizeof(numbers) - (size_t)used,
				 " (%s of the zoom)", zoomed + strspn(zoomed, " "));
	snprintf(numbers + used, sizeof(numbers) - (size_t)used, ", own %s%s%s  ", self,
		 *module ? "  " : "", module);
	used = cprof_cells_put(&canvas->ui->cells, row, 0, canvas->ui->cells.columns,
			       CPROF_STYLE_BOLD, numbers);
	cprof_cells_name(&canvas->ui->cells, row, used, canvas->ui->cells.columns - used,
			 CPROF_STYLE_NORMAL, node_name(model, canvas->flame->selected));
}

static struct canvas make_canvas(struct cprof_ui *ui)
{
	struct canvas canvas = {
		.ui = ui,
		.model = flame_model(ui),
		.flame = &cprof_ui_tab(ui)->flame,
		.rows = ui->body_rows,
		.wanted_row = -1,
	};
	int depth = (int)node_at(canvas.model, canvas.flame->selected)->depth;

	/* Keeps some of what is below in sight. */
	if (depth > canvas.rows - 3)
		canvas.first = CPROF_MAX(CPROF_MIN(depth - canvas.rows / 2,
						   (int)canvas.model->tree.depth - canvas.rows + 1),
					 0);
	return canvas;
}

void cprof_flame_draw(struct cprof_ui *ui)
{
	struct canvas canvas;

	if (!flame_model(ui))
		return;
	if (ui->body_rows > 2)
		ui->body_rows--; /* for the line about what is selected */
	canvas = make_canvas(ui);
	draw_all(&canvas);
	if (ui->body_rows > 1)
		draw_detail(&canvas, ui->body_row + ui->body_rows);
}

void cprof_flame_click(struct cprof_ui *ui, int row, int column)
{
	struct canvas canvas;

	if (!flame_model(ui))
		return;
	canvas = make_canvas(ui);
	canvas.wanted_row = row;
	canvas.wanted_column = column;
	canvas.found = UINT32_MAX;
	draw_all(&canvas);
	if (canvas.found == UINT32_MAX)
		return;
	/* A second click zooms, one on what is above the zoom goes back there. */
	if (canvas.found == canvas.flame->selected ||
	    node_at(canvas.model, canvas.found)->depth <
		    node_at(canvas.model, canvas.flame->zoomed)->depth)
		set_place(ui, canvas.found, canvas.found);
	else
		set_place(ui, canvas.found, canvas.flame->zoomed);
}
