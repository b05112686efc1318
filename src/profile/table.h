/* SPDX-License-Identifier: MIT
 *
 * A hash table of ids (open addressing): what an id stands for is known to the caller, who walks
 * the candidates:
 *
 *	for (struct cprof_table_probe p = cprof_table_probe(hash); cprof_table_next(t, &p);)
 *		if (same(p.id, key))
 *			return p.id;
 *	... make a new id ...
 *	cprof_table_insert(t, hash, id);
 */
#ifndef CPROF_PROFILE_TABLE_H
#define CPROF_PROFILE_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cprof_table {
	struct cprof_table_slot {
		uint32_t hash;
		uint32_t id; /* plus one; 0: free */
	} * slots;
	size_t capacity; /* a power of two, or 0 */
	size_t count;
};

struct cprof_table_probe {
	size_t at;
	uint32_t hash;
	uint32_t id; /* the candidate */
};

static inline struct cprof_table_probe cprof_table_probe(uint64_t hash)
{
	return (struct cprof_table_probe){.at = (uint32_t)hash, .hash = (uint32_t)hash};
}

static inline bool cprof_table_next(const struct cprof_table *table,
				    struct cprof_table_probe *probe)
{
	if (!table->capacity)
		return false;
	for (;;) {
		const struct cprof_table_slot *slot =
			&table->slots[probe->at++ & (table->capacity - 1)];

		if (!slot->id)
			return false;
		if (slot->hash == probe->hash) {
			probe->id = slot->id - 1;
			return true;
		}
	}
}

/* False without memory. */
bool cprof_table_insert(struct cprof_table *table, uint64_t hash, uint32_t id);
void cprof_table_deinit(struct cprof_table *table);

#endif
