/* SPDX-License-Identifier: MIT */
#include "private.h"

#include <cprof/analysis.h>
#include <cprof/util.h>
#include <ctype.h>
#include <math.h>
#include <string.h>

struct unit {
	const char *name;
	const char *aliases[4];
	double factor;
};

/* Units that measure the same. `usual` is used where none fits. */
struct unit_group {
	struct unit usual;
	struct unit units[10];
};

static const struct unit_group groups[] = {
	{
		.usual = {"B", {NULL}, 1},
		.units = {{"B", {"b", "byte"}, 1},
			  {"kB", {"kb", "kbyte", "kilobyte"}, 0x1p10},
			  {"MB", {"mb", "mbyte", "megabyte"}, 0x1p20},
			  {"GB", {"gb", "gbyte", "gigabyte"}, 0x1p30},
			  {"TB", {"tb", "tbyte", "terabyte"}, 0x1p40},
			  {"PB", {"pb", "pbyte", "petabyte"}, 0x1p50}},
	},
	{
		.usual = {"s", {NULL}, 1e9},
		.units = {{"ns", {"ns", "nanosecond"}, 1},
			  {"us", {"μs", "us", "microsecond"}, 1e3},
			  {"ms", {"ms", "millisecond"}, 1e6},
			  {"s", {"s", "sec", "second"}, 1e9},
			  {"hrs", {"hour", "hr"}, 3600e9}},
	},
	{
		.usual = {"GCU", {NULL}, 1},
		.units = {{"n*GCU", {"nanogcu"}, 1e-9},
			  {"u*GCU", {"microgcu"}, 1e-6},
			  {"m*GCU", {"milligcu"}, 1e-3},
			  {"GCU", {"gcu"}, 1},
			  {"k*GCU", {"kilogcu"}, 1e3},
			  {"M*GCU", {"megagcu"}, 1e6},
			  {"G*GCU", {"gigagcu"}, 1e9},
			  {"T*GCU", {"teragcu"}, 1e12},
			  {"P*GCU", {"petagcu"}, 1e15}},
	},
};

/* In any case, singular or plural. */
static bool is_alias(const char *alias, const char *text)
{
	size_t length = strlen(text);

	if (length > 2 && tolower((unsigned char)text[length - 1]) == 's')
		length--;
	return strlen(alias) == length && !strncasecmp(alias, text, length);
}

static const struct unit *find_unit(const struct unit_group *group, const char *text)
{
	for (const struct unit *unit = group->units; unit->name; unit++)
		for (size_t i = 0; i < CPROF_COUNT(unit->aliases) && unit->aliases[i]; i++)
			if (is_alias(unit->aliases[i], text))
				return unit;
	return NULL;
}

static const struct unit *largest_unit(const struct unit_group *group, double value)
{
	const struct unit *best = &group->usual;

	for (const struct unit *unit = group->units; unit->name; unit++)
		if (value / unit->factor >= 1)
			best = unit;
	return best;
}

double cprof_units_scale(int64_t value, const char *from, const char *to, const char **unit)
{
	static const char *const dull[] = {"count", "sample", "unit", "minimum"};
	bool minimum = !strcmp(to, "minimum");

	if (value < 0 && value != INT64_MIN)
		return -cprof_units_scale(-value, from, to, unit);
	for (size_t i = 0; i < CPROF_COUNT(groups); i++) {
		const struct unit *source = find_unit(&groups[i], from);
		const struct unit *target;
		double base;

		if (!source)
			continue;
		base = (double)value * source->factor;
		target = minimum ? largest_unit(&groups[i], base) : find_unit(&groups[i], to);
		if (!target)
			target = &groups[i].usual;
		*unit = target->name;
		return base / target->factor;
	}
	*unit = to;
	for (size_t i = 0; i < CPROF_COUNT(dull); i++)
		if (!strcmp(to, dull[i]))
			*unit = "";
	return (double)value;
}

void cprof_units_label(int64_t value, const char *from, const char *to, char text[CPROF_UNITS_TEXT])
{
	const char *unit;
	double scaled = cprof_units_scale(value, from, to, &unit);
	int length = snprintf(text, CPROF_UNITS_TEXT, "%.2f", scaled);

	if (length > 3 && !strcmp(text + length - 3, ".00"))
		text[length -= 3] = '\0';
	if (!strcmp(text, "0") || !strcmp(text, "-0"))
		strcpy(text, "0");
	else
		cprof_text_clean(unit, strlen(unit), text + length,
				 CPROF_UNITS_TEXT - (size_t)length);
}

void cprof_units_percent(int64_t value, int64_t total, char text[32])
{
	double percent = total ? fabs((double)value / (double)total) * 100 : 0;

	if (percent >= 99.95 && percent <= 100.05)
		strcpy(text, "  100%");
	else if (percent >= 1)
		snprintf(text, 32, "%5.2f%%", percent);
	else
		snprintf(text, 32, "%5.2g%%", percent);
}

/* That of the smallest value, or a larger one if the largest value has another unit and the
 * smallest still shows at two digits. */
const char *cprof_analysis_unit(int64_t smallest, int64_t total, const char *unit)
{
	const char *smallest_unit, *largest_unit, *chosen;

	if (!smallest)
		smallest = total;
	cprof_units_scale(smallest, unit, "minimum", &smallest_unit);
	cprof_units_scale(total, unit, "minimum", &largest_unit);
	chosen = smallest_unit;
	if (strcmp(smallest_unit, largest_unit) != 0 && smallest <= (total - 1) / 100)
		cprof_units_scale(100 * smallest, unit, "minimum", &chosen);
	return *chosen ? chosen : unit;
}

void cprof_analysis_value(int64_t value, const char *from, const char *to,
			  char text[CPROF_ANALYSIS_TEXT])
{
	_Static_assert(CPROF_ANALYSIS_TEXT == CPROF_UNITS_TEXT, "the same text");
	cprof_units_label(value, from, to, text);
}

void cprof_analysis_percent(int64_t value, int64_t total, char text[32])
{
	cprof_units_percent(value, total, text);
}
