/* SPDX-License-Identifier: MIT
 *
 * Words of the command line to values, strictly.
 */
#include "private.h"

#include <limits.h>
#include <string.h>

#define SECOND_NS 1000000000ull

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* The digits at `*text`, which is moved behind them. False without any, or on overflow. */
static bool take_digits(const char **text, uint64_t *value)
{
	*value = 0;
	if (!is_digit(**text))
		return false;
	for (; is_digit(**text); (*text)++)
		if (__builtin_mul_overflow(*value, 10, value) ||
		    __builtin_add_overflow(*value, (uint64_t)(**text - '0'), value))
			return false;
	return true;
}

bool cprof_parse_number(const char *text, uint64_t low, uint64_t high, uint64_t *value)
{
	return take_digits(&text, value) && !*text && *value >= low && *value <= high;
}

bool cprof_parse_size(const char *text, uint64_t *bytes)
{
	static const char units[] = "KMGT";
	uint64_t number;
	const char *unit;

	if (!take_digits(&text, &number))
		return false;
	unit = *text ? strchr(units, *text == 'k' ? 'K' : *text) : NULL;
	text += unit != NULL;
	if (!strcmp(text, "B") || (unit && !strcmp(text, "iB")))
		text += strlen(text);
	*bytes = 1;
	for (; unit && unit >= units; unit--)
		*bytes *= 1024;
	return !*text && !__builtin_mul_overflow(*bytes, number, bytes);
}

bool cprof_parse_time(const char *text, uint64_t *ns)
{
	static const struct {
		const char *name;
		uint64_t ns;
	} units[] = {
		{"", SECOND_NS},  {"us", 1000},          {"ms", SECOND_NS / 1000},
		{"s", SECOND_NS}, {"m", 60 * SECOND_NS}, {"h", 3600 * SECOND_NS},
	};
	uint64_t whole, fraction = 0, scale = 1;
	bool nonzero;

	if (!take_digits(&text, &whole))
		return false;
	nonzero = whole != 0;
	if (*text == '.') {
		if (!is_digit(*++text))
			return false;
		for (; is_digit(*text); text++) {
			nonzero |= *text != '0';
			if (scale < SECOND_NS) { /* finer digits do not count */
				fraction = fraction * 10 + (uint64_t)(*text - '0');
				scale *= 10;
			}
		}
	}
	for (size_t i = 0; i < CPROF_COUNT(units); i++) {
		if (strcmp(text, units[i].name))
			continue;
		if (__builtin_mul_overflow(whole, units[i].ns, ns) ||
		    __builtin_add_overflow(
			    *ns, (uint64_t)((double)fraction / (double)scale * (double)units[i].ns),
			    ns) ||
		    *ns > INT64_MAX)
			return false;
		if (nonzero && !*ns)
			*ns = 1; /* 0 would mean "no end" */
		return true;
	}
	return false;
}

bool cprof_parse_pids(const char *text, pid_t *first, size_t *count)
{
	*count = 0;
	for (;; text++) {
		uint64_t pid;

		if (!take_digits(&text, &pid) || pid < 1 || pid > INT_MAX)
			return false;
		if (!(*count)++)
			*first = (pid_t)pid;
		if (*text != ',')
			return !*text;
	}
}
