/* SPDX-License-Identifier: MIT
 *
 * What is new in rows since earlier rows of the same accounts. Estimates are scaled anew each time
 * rows are made, so a difference can come out below nothing: then it is nothing. Of waits, what was
 * there too much before is taken from what is new elsewhere, so that the sums are what they were.
 */
#include "contention.h"
#include "private.h"

#include <cprof/util.h>
#include <string.h>

/* Rows of one key may come several times. */
struct part {
	uint64_t key[2];
	double count;
	double ns;
};

/* Earlier sums by key. */
struct earlier {
	struct part *slots; /* key[1] is never 0 */
	size_t size;
};

static struct part *find(const struct earlier *earlier, const struct part *part)
{
	size_t at = cprof_hash_bytes(part->key, sizeof(part->key));

	for (;; at++) {
		struct part *slot = &earlier->slots[at & (earlier->size - 1)];

		if (!slot->key[1] || !memcmp(slot->key, part->key, sizeof(part->key)))
			return slot;
	}
}

static bool earlier_init(struct earlier *earlier, size_t count)
{
	earlier->size = 16;
	while (earlier->size < 2 * count)
		earlier->size *= 2;
	earlier->slots = calloc(earlier->size, sizeof(*earlier->slots));
	return earlier->slots;
}

static void remember(const struct earlier *earlier, const struct part *part)
{
	struct part *slot = find(earlier, part);

	memcpy(slot->key, part->key, sizeof(slot->key));
	slot->count += part->count;
	slot->ns += part->ns;
}

/* Takes from a row what was there before, as much as it has. */
static void take_away(const struct earlier *earlier, const struct part *part, double *count,
		      double *ns)
{
	struct part *slot = find(earlier, part);
	double less_count = CPROF_MIN(*count, slot->count);
	double less_ns = CPROF_MIN(*ns, slot->ns);

	*count -= less_count;
	slot->count -= less_count;
	*ns -= less_ns;
	slot->ns -= less_ns;
}

/* What rows have, and what was there before and is not found in them. */
struct balance {
	double has;
	double owes;
};

static double keeps(const struct balance *balance)
{
	return balance->has > balance->owes ? 1 - balance->owes / balance->has : 0;
}

static double remains(const struct balance *balance)
{
	return CPROF_MAX(balance->owes - balance->has, 0.0);
}

/* Where a wait is for is known late: what it had without that goes from the new rows of its thread,
 * and where they do not have as much, from all. `balances` has one for each thread and one for all,
 * for one value. */
static void even_out(struct cprof_block_rows *rows, const struct earlier *earlier,
		     struct balance *balances, bool counts)
{
	struct balance *all = &balances[rows->thread_count];

	memset(balances, 0, (rows->thread_count + 1) * sizeof(*balances));
	for (size_t i = 0; i < earlier->size; i++)
		if (earlier->slots[i].key[1])
			balances[earlier->slots[i].key[0] >> 32].owes +=
				counts ? earlier->slots[i].count : earlier->slots[i].ns;
	for (size_t i = 0; i < rows->count; i++)
		balances[rows->rows[i].thread].has +=
			counts ? rows->rows[i].count : rows->rows[i].ns;
	for (size_t i = 0; i < rows->thread_count; i++) {
		all->has += balances[i].has * keeps(&balances[i]);
		all->owes += remains(&balances[i]);
	}
	for (size_t i = 0; i < rows->count; i++)
		*(counts ? &rows->rows[i].count : &rows->rows[i].ns) *=
			keeps(&balances[rows->rows[i].thread]) * keeps(all);
}

static struct part block_part(const struct cprof_row *row)
{
	return (struct part){
		.key = {(uint64_t)row->thread << 32 | row->stack,
			1 | (uint64_t)row->marker << 8 | (uint64_t)row->kind << 16},
		.count = row->count,
		.ns = row->ns,
	};
}

bool cprof_block_rows_subtract(struct cprof_block_rows *rows, const struct cprof_block_rows *before)
{
	CPROF_AUTO_FREE struct balance *balances =
		calloc(rows->thread_count + 1, sizeof(*balances));
	struct earlier earlier;

	if (!balances || before->thread_count > rows->thread_count ||
	    !earlier_init(&earlier, before->count))
		return false;
	for (size_t i = 0; i < before->count; i++) {
		struct part part = block_part(&before->rows[i]);

		remember(&earlier, &part);
	}
	for (size_t i = 0; i < rows->count; i++) {
		struct part part = block_part(&rows->rows[i]);

		take_away(&earlier, &part, &rows->rows[i].count, &rows->rows[i].ns);
	}
	even_out(rows, &earlier, balances, true);
	even_out(rows, &earlier, balances, false);
	free(earlier.slots);
	return true;
}

size_t cprof_block_rows_count(const struct cprof_block_rows *rows)
{
	return rows->count + rows->thread_count;
}

static struct part contention_part(const struct cprof_contention_row *row)
{
	return (struct part){
		.key = {(uint64_t)row->lock << 32 | row->stack,
			1 | (uint64_t)row->marker << 8 | (uint64_t)row->side << 16},
		.count = row->count,
		.ns = row->delay_ns,
	};
}

bool cprof_contention_rows_subtract(struct cprof_contention_rows *rows,
				    const struct cprof_contention_rows *before)
{
	struct earlier earlier;

	if (!earlier_init(&earlier, before->count))
		return false;
	for (size_t i = 0; i < before->count; i++) {
		struct part part = contention_part(&before->rows[i]);

		remember(&earlier, &part);
	}
	for (size_t i = 0; i < rows->count; i++) {
		struct part part = contention_part(&rows->rows[i]);

		take_away(&earlier, &part, &rows->rows[i].count, &rows->rows[i].delay_ns);
	}
	/* Locks keep their numbers. Which wait was the longest is only known of all. */
	for (size_t i = 0; i < CPROF_MIN(rows->lock_count, before->lock_count); i++) {
		struct cprof_contention_lock *lock = &rows->locks[i];

		lock->count = CPROF_MAX(lock->count - before->locks[i].count, 0.0);
		lock->delay_ns = CPROF_MAX(lock->delay_ns - before->locks[i].delay_ns, 0.0);
		if ((double)lock->longest_ns > lock->delay_ns)
			lock->longest_ns = (uint64_t)lock->delay_ns;
	}
	free(earlier.slots);
	return true;
}

size_t cprof_contention_rows_count(const struct cprof_contention_rows *rows)
{
	return rows->count + rows->lock_count;
}
