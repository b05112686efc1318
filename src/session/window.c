/* SPDX-License-Identifier: MIT */
#include "window.h"

#include <cprof/util.h>
#include <string.h>

#define TABLE_FIRST 256

bool cprof_window_init(struct cprof_window *window, size_t slices, size_t entries)
{
	*window = (struct cprof_window){
		.slice_count = slices ? slices : CPROF_WINDOW_SLICES,
		.entries_most = entries ? entries : CPROF_WINDOW_ENTRIES,
	};
	window->slices = calloc(window->slice_count, sizeof(*window->slices));
	return window->slices;
}

void cprof_window_deinit(struct cprof_window *window)
{
	for (size_t i = 0; i < window->slice_count && window->slices; i++)
		free(window->slices[i].entries);
	free(window->slices);
	free(window->table);
	*window = (struct cprof_window){0};
}

static struct cprof_window_slice *slice_at(const struct cprof_window *window, uint64_t index)
{
	return &window->slices[index % window->slice_count];
}

static void forget_oldest(struct cprof_window *window)
{
	struct cprof_window_slice *slice = slice_at(window, window->first++);

	window->entry_count -= slice->count;
	free(slice->entries);
	*slice = (struct cprof_window_slice){0};
}

/* A finished slice needs no room to grow. */
static void finish(struct cprof_window_slice *slice)
{
	struct cprof_window_entry *entries;

	if (!slice->count || slice->count == slice->capacity)
		return;
	entries = reallocarray(slice->entries, slice->count, sizeof(*entries));
	if (!entries)
		return;
	slice->entries = entries;
	slice->capacity = slice->count;
}

struct cprof_window_slice *cprof_window_begin(struct cprof_window *window, uint64_t time_ns,
					      uint64_t lost, uint64_t counted)
{
	uint64_t number = time_ns / CPROF_WINDOW_SLICE_NS;
	struct cprof_window_slice *slice =
		window->next > window->first ? slice_at(window, window->next - 1) : NULL;

	/* Records of two drains may be a little out of order. */
	if (slice && number <= slice->number)
		return slice;
	if (slice)
		finish(slice);
	while (window->first < window->next &&
	       (window->next - window->first == window->slice_count ||
		slice_at(window, window->first)->number + window->slice_count <= number))
		forget_oldest(window);
	slice = slice_at(window, window->next++);
	*slice = (struct cprof_window_slice){.number = number, .lost = lost, .counted = counted};
	if (window->table)
		memset(window->table, 0, window->table_size * sizeof(*window->table));
	return slice;
}

/* Where the entry is or belongs. */
static uint32_t *find(const struct cprof_window *window, const struct cprof_window_slice *slice,
		      uint32_t stack, uint32_t labels)
{
	size_t at = cprof_hash_u64((uint64_t)labels << 32 | stack);

	for (;; at++) {
		uint32_t *slot = &window->table[at & (window->table_size - 1)];

		if (!*slot || (slice->entries[*slot - 1].sample.stack == stack &&
			       slice->entries[*slot - 1].sample.labels == labels))
			return slot;
	}
}

static bool rebuild(struct cprof_window *window, const struct cprof_window_slice *slice,
		    size_t size)
{
	uint32_t *table = calloc(size, sizeof(*table));

	if (!table)
		return false;
	free(window->table);
	window->table = table;
	window->table_size = size;
	for (size_t i = 0; i < slice->count; i++)
		*find(window, slice, slice->entries[i].sample.stack,
		      slice->entries[i].sample.labels) = (uint32_t)i + 1;
	return true;
}

bool cprof_window_add(struct cprof_window *window, uint32_t stack, uint32_t labels, uint64_t count,
		      uint64_t value)
{
	struct cprof_window_slice *slice = slice_at(window, window->next - 1);
	uint32_t *slot;

	if (2 * (slice->count + 1) > window->table_size &&
	    !rebuild(window, slice, CPROF_MAX(2 * window->table_size, (size_t)TABLE_FIRST)))
		return false;
	slot = find(window, slice, stack, labels);
	if (!*slot) {
		while (window->entry_count >= window->entries_most &&
		       window->first + 1 < window->next)
			forget_oldest(window);
		if (!cprof_grow(&slice->entries, &slice->capacity, slice->count + 1,
				sizeof(*slice->entries)))
			return false;
		slice->entries[slice->count++] =
			(struct cprof_window_entry){.sample = {.stack = stack, .labels = labels}};
		window->entry_count++;
		*slot = (uint32_t)slice->count;
	}
	slice->entries[*slot - 1].count += count;
	slice->entries[*slot - 1].value += value;
	return true;
}

/* --- sums ---------------------------------------------------------------------------------- */

bool cprof_window_sum(const struct cprof_window *window, uint64_t since_ns, uint64_t until_ns,
		      struct cprof_window_sum *sum)
{
	uint64_t first = window->first;
	uint64_t end = window->next;
	size_t count = 0;

	*sum = (struct cprof_window_sum){NULL};
	while (first < end &&
	       (slice_at(window, first)->number + 1) * CPROF_WINDOW_SLICE_NS <= since_ns)
		first++;
	while (first < end && slice_at(window, end - 1)->number * CPROF_WINDOW_SLICE_NS >= until_ns)
		end--;
	for (uint64_t i = first; i < end; i++)
		count += slice_at(window, i)->count;
	sum->samples = calloc(count + 1, sizeof(*sum->samples));
	sum->values = calloc(2 * count + 1, sizeof(*sum->values));
	if (!sum->samples || !sum->values)
		return false;
	for (uint64_t i = first; i < end; i++) {
		const struct cprof_window_slice *slice = slice_at(window, i);

		for (size_t j = 0; j < slice->count; j++, sum->count++) {
			sum->samples[sum->count] = slice->entries[j].sample;
			sum->values[2 * sum->count] = (int64_t)slice->entries[j].count;
			sum->values[2 * sum->count + 1] = (int64_t)slice->entries[j].value;
		}
	}
	if (first > window->first) /* whether or not something came just then */
		sum->from_ns = since_ns / CPROF_WINDOW_SLICE_NS * CPROF_WINDOW_SLICE_NS;
	else if (first < end)
		sum->from_ns = slice_at(window, first)->number * CPROF_WINDOW_SLICE_NS;
	if (first < end) {
		sum->lost = slice_at(window, first)->lost;
		sum->counted = slice_at(window, first)->counted;
	}
	return true;
}

void cprof_window_sum_deinit(struct cprof_window_sum *sum)
{
	free(sum->samples);
	free(sum->values);
}

uint64_t cprof_window_present_ns(const struct cprof_window *window)
{
	return window->next > window->first
		       ? slice_at(window, window->next - 1)->number * CPROF_WINDOW_SLICE_NS
		       : 0;
}

/* --- renumbering --------------------------------------------------------------------------- */

void cprof_window_list(const struct cprof_window *window, struct cprof_profile_sample *samples)
{
	for (uint64_t i = window->first; i < window->next; i++) {
		const struct cprof_window_slice *slice = slice_at(window, i);

		for (size_t j = 0; j < slice->count; j++)
			*samples++ = slice->entries[j].sample;
	}
}

void cprof_window_renumber(struct cprof_window *window, const struct cprof_profile_sample *samples)
{
	struct cprof_window_slice *present = NULL;

	for (uint64_t i = window->first; i < window->next; i++) {
		present = slice_at(window, i);
		for (size_t j = 0; j < present->count; j++)
			present->entries[j].sample = *samples++;
	}
	if (present && window->table) {
		memset(window->table, 0, window->table_size * sizeof(*window->table));
		for (size_t i = 0; i < present->count; i++)
			*find(window, present, present->entries[i].sample.stack,
			      present->entries[i].sample.labels) = (uint32_t)i + 1;
	}
}
