/* SPDX-License-Identifier: MIT */
#include "model.h"

#include <cprof/util.h>
#include <stdarg.h>
#include <string.h>

void cprof_model_destroy(struct cprof_model *model)
{
	if (!model)
		return;
	cprof_analysis_peek_deinit(&model->peek);
	cprof_analysis_tree_deinit(&model->tree);
	cprof_listing_destroy(model->listing);
	cprof_analysis_destroy(model->analysis);
	cprof_profile_destroy(model->profile);
	for (size_t i = 0; i < model->line_count; i++)
		free(model->lines[i].text);
	free(model->lines);
	free(model->threads);
	free(model->matches);
	free(model->growth);
	free(model);
}

bool cprof_model_line(struct cprof_model *model, enum cprof_style style, const char *format, ...)
{
	size_t capacity = model->line_capacity;
	va_list arguments;
	char *text;
	int length;

	va_start(arguments, format);
	length = vasprintf(&text, format, arguments);
	va_end(arguments);
	if (length < 0)
		return false;
	if (!cprof_grow(&model->lines, &capacity, model->line_count + 1, sizeof(*model->lines))) {
		free(text);
		return false;
	}
	model->line_capacity = capacity;
	cprof_text_clean(text, (size_t)length, text, (size_t)length + 1);
	model->lines[model->line_count++] = (struct cprof_view_line){style, text};
	return true;
}
