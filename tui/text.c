/* SPDX-License-Identifier: MIT
 *
 * A screen without a terminal: its keys are those of the script, its last picture is printed.
 */
#include "screen.h"

#include <cprof/util.h>
#include <string.h>

struct text {
	struct cprof_screen base;
	const struct cprof_view_config *config;
	const char *keys; /* those that are left */
	char *picture;    /* NULL: none yet */
};

static void text_size(struct cprof_screen *screen, int *rows, int *columns)
{
	const struct text *text = (struct text *)screen;

	*rows = text->config->rows;
	*columns = text->config->columns;
}

static void text_show(struct cprof_screen *screen, const struct cprof_cells *cells, bool anew)
{
	struct text *text = (struct text *)screen;
	size_t length;
	FILE *out;

	(void)anew;
	free(cprof_take(text->picture));
	out = open_memstream(&text->picture, &length);
	if (!out)
		return;
	cprof_cells_dump(cells, text->config->color == CPROF_VIEW_COLOR_ALWAYS, out);
	if (fclose(out))
		text->picture = NULL;
}

static bool text_key(struct cprof_screen *screen, struct cprof_key *key)
{
	struct text *text = (struct text *)screen;

	return cprof_key_script(&text->keys, key);
}

static void text_nothing(struct cprof_screen *screen)
{
	(void)screen;
}

static void text_destroy(struct cprof_screen *screen)
{
	struct text *text = (struct text *)screen;

	if (text->picture)
		fputs(text->picture, text->config->out);
	free(text->picture);
	free(text);
}

static const struct cprof_screen_ops text_ops = {
	.size = text_size,
	.show = text_show,
	.key = text_key,
	.suspend = text_nothing,
	.resume = text_nothing,
	.destroy = text_destroy,
};

struct cprof_error *cprof_screen_create_text(const struct cprof_view_config *config,
					     struct cprof_screen **screen)
{
	struct text *text = calloc(1, sizeof(*text));

	*screen = NULL;
	if (!text)
		return cprof_error_nomem();
	*text = (struct text){
		.base.ops = &text_ops, .config = config, .keys = config->keys ? config->keys : ""};
	*screen = &text->base;
	return NULL;
}
