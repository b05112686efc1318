/* SPDX-License-Identifier: MIT */
#include "table.h"

#include <stdlib.h>

static void place(struct cprof_table *table, struct cprof_table_slot slot)
{
	size_t at = slot.hash;

	while (table->slots[at & (table->capacity - 1)].id)
		at++;
	table->slots[at & (table->capacity - 1)] = slot;
}

/* At most two thirds full, so that probes stay short. */
static bool make_room(struct cprof_table *table)
{
	struct cprof_table larger = {.capacity = table->capacity ? table->capacity * 2 : 64};

	if (table->count + 1 <= table->capacity / 3 * 2)
		return true;
	larger.slots = calloc(larger.capacity, sizeof(*larger.slots));
	if (!larger.slots)
		return false;
	for (size_t i = 0; i < table->capacity; i++)
		if (table->slots[i].id)
			place(&larger, table->slots[i]);
	larger.count = table->count;
	free(table->slots);
	*table = larger;
	return true;
}

bool cprof_table_insert(struct cprof_table *table, uint64_t hash, uint32_t id)
{
	if (!make_room(table))
		return false;
	place(table, (struct cprof_table_slot){.hash = (uint32_t)hash, .id = id + 1});
	table->count++;
	return true;
}

void cprof_table_deinit(struct cprof_table *table)
{
	free(table->slots);
	*table = (struct cprof_table){0};
}
