/* SPDX-License-Identifier: MIT
 *
 * How fast a heap profile's rows grow: against what they were some seconds ago.
 */
#include "model.h"

#include <cprof/util.h>
#include <string.h>

#define LOOKS    24
#define SPAN_NS  10000000000ull /* growth is that of so long */
#define LEAST_NS 400000000ull
#define GAP_NS   500000000ull /* between looks that are kept */

struct seen {
	uint64_t name; /* hash */
	int64_t value;
};
struct look {
	uint64_t when_ns;
	struct seen *rows; /* ascending by name */
	size_t count;
};
struct cprof_growth {
	struct look looks[LOOKS]; /* the oldest first */
	size_t count;
	char type[64];
};

struct cprof_growth *cprof_growth_create(void)
{
	return calloc(1, sizeof(struct cprof_growth));
}

static void forget(struct cprof_growth *growth, size_t count)
{
	for (size_t i = 0; i < count; i++)
		free(growth->looks[i].rows);
	growth->count -= count;
	memmove(growth->looks, growth->looks + count, growth->count * sizeof(*growth->looks));
}

void cprof_growth_destroy(struct cprof_growth *growth)
{
	if (growth)
		forget(growth, growth->count);
	free(growth);
}

static int by_name(const void *a, const void *b)
{
	const struct seen *x = a, *y = b;

	return (x->name > y->name) - (x->name < y->name);
}

static uint64_t hash_of(const char *name)
{
	return cprof_hash_bytes(name, strlen(name));
}

static void remember(struct cprof_growth *growth, const struct cprof_model *model, uint64_t now_ns)
{
	const struct cprof_analysis *analysis = model->analysis;
	struct look look = {.when_ns = now_ns};

	if (growth->count && now_ns - growth->looks[growth->count - 1].when_ns < GAP_NS)
		return;
	look.rows = calloc(analysis->count + 1, sizeof(*look.rows));
	if (!look.rows)
		return;
	for (size_t i = 0; i < analysis->count; i++)
		if (analysis->rows[i].cum[model->type])
			look.rows[look.count++] = (struct seen){hash_of(analysis->rows[i].name),
								analysis->rows[i].cum[model->type]};
	qsort(look.rows, look.count, sizeof(*look.rows), by_name);
	if (growth->count == LOOKS)
		forget(growth, 1);
	growth->looks[growth->count++] = look;
}

void cprof_growth_step(struct cprof_growth *growth, struct cprof_model *model, uint64_t now_ns)
{
	const struct cprof_analysis *analysis = model->analysis;
	const char *type = model->profile->strings[model->profile->types[model->type].type];
	const struct look *old;

	if (strcmp(type, growth->type) != 0) {
		forget(growth, growth->count);
		snprintf(growth->type, sizeof(growth->type), "%s", type);
	}
	while (growth->count > 1 && now_ns - growth->looks[1].when_ns >= SPAN_NS)
		forget(growth, 1);
	old = growth->count ? &growth->looks[0] : NULL;
	if (old && now_ns >= old->when_ns + LEAST_NS)
		model->growth = calloc(analysis->count + 1, sizeof(*model->growth));
	for (size_t i = 0; model->growth && i < analysis->count; i++) {
		struct seen key = {.name = hash_of(analysis->rows[i].name)};
		const struct seen *found =
			bsearch(&key, old->rows, old->count, sizeof(key), by_name);

		model->growth[i] =
			(double)(analysis->rows[i].cum[model->type] - (found ? found->value : 0)) /
			((double)(now_ns - old->when_ns) / 1e9);
	}
	remember(growth, model, now_ns);
}
