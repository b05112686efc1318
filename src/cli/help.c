/* SPDX-License-Identifier: MIT
 *
 * Help, printed from the tables.
 */
#include "private.h"

#include <string.h>

#define COLUMN 28 /* where the explanations start */

static void print_option(const struct cprof_option *option, FILE *out)
{
	char left[80];
	int width = snprintf(left, sizeof(left), "  %c%c%s--%s%s%s", option->letter ? '-' : ' ',
			     option->letter ? option->letter : ' ', option->letter ? ", " : "  ",
			     option->name, option->argument ? " " : "",
			     option->argument ? option->argument : "");

	fprintf(out, "%-*s", COLUMN, left);
	if (width >= COLUMN)
		fprintf(out, "\n%*s", COLUMN, "");
	for (const char *c = option->help; *c; c++) {
		putc(*c, out);
		if (*c == '\n')
			fprintf(out, "%*s", COLUMN, "");
	}
	putc('\n', out);
}

void cprof_help_print(const struct cprof_verb *verb, FILE *out)
{
	const char *separator = verb->name ? " " : "";

	fprintf(out, "usage: cprof-attach%s%s %s\n%s\n", separator, verb->name ? verb->name : "",
		verb->synopsis, verb->summary);
	if (!verb->name) {
		fprintf(out, "\nverbs:\n");
		for (const struct cprof_verb *each = cprof_verb_table; each->name; each++)
			fprintf(out, "  %-*s%s\n", COLUMN - 2, each->name, each->summary);
	}
	fprintf(out, "\noptions:\n");
	for (const struct cprof_option *option = cprof_option_table; option->name; option++)
		if (option->verbs & verb->bit && option->help)
			print_option(option, out);
	if (verb->more)
		fprintf(out, "\n%s", verb->more);
}

void cprof_help_verbs(char *text, size_t size)
{
	size_t used = 0;

	*text = '\0';
	for (const struct cprof_verb *verb = cprof_verb_table; verb->name && used < size; verb++)
		used += (size_t)snprintf(text + used, size - used, "%s%s", used ? ", " : "",
					 verb->name);
}

struct cprof_error *cprof_verb_help(const struct cprof_options *options, int *status)
{
	const struct cprof_verb *verb = cprof_verb_table;
	char verbs[128];

	*status = CPROF_OK;
	if (options->argument_count > 1)
		return cprof_usage_error(NULL, "help: one verb at a time");
	while (verb->name &&
	       (!options->argument_count || strcmp(verb->name, options->arguments[0])))
		verb++;
	if (!verb->name && options->argument_count) {
		cprof_help_verbs(verbs, sizeof(verbs));
		return cprof_usage_error(NULL, "help %s: there is no such verb (there are %s)",
					 options->arguments[0], verbs);
	}
	cprof_help_print(verb, stdout);
	return NULL;
}
