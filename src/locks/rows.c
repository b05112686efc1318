/* SPDX-License-Identifier: MIT
 *
 * The accounts as rows, and the rows as a profile laid out as Go's block profile.
 */
#include "private.h"

#include <cprof/util.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define NAMES_MAX    128 /* of a stack, for its kind */
#define PROBE_FRAMES 6   /* that lie between the scheduler and who takes the stack */
#define KERNEL_START (1ull << 63)

/* --- rows ---------------------------------------------------------------------------------- */

static bool add_row(struct cprof_block_rows *rows, struct cprof_row row)
{
	if (!cprof_grow(&rows->rows, &rows->capacity, rows->count + 1, sizeof(*rows->rows)))
		return false;
	rows->rows[rows->count++] = row;
	return true;
}

/* Of a wait that goes on, or is not yet counted; 0: there is none. */
static uint64_t pending_ns(const struct cprof_block *block, const struct cprof_block_thread *thread,
			   uint64_t now)
{
	if (thread->ended || thread->state != CPROF_BLOCK_OUT)
		return 0;
	return cprof_block_length(block, thread, thread->over_ns ? thread->over_ns : now);
}

/* A wait that goes on and was not sampled is stood for as one that is over: which are sampled is
 * left to chance. Not where one has waited since before the beginning, which nothing else is like.
 */
static void find_unsampled_pending(const struct cprof_block *block,
				   struct cprof_block_thread *thread, uint64_t now)
{
	uint64_t ns = pending_ns(block, thread, now);
	unsigned index = cprof_perf_stratum_of(ns, thread->preempted);

	thread->stood_for = (struct cprof_stood_for){0};
	if (ns && !thread->unsure && !thread->place.known && thread->out_ns >= block->begin_ns &&
	    thread->strata[index].sampled_count > 0)
		thread->stood_for = (struct cprof_stood_for){.stratum = index, .ns = (double)ns};
}

static bool add_accounts(const struct cprof_block *block, const struct cprof_stratum *pool,
			 struct cprof_block_rows *rows)
{
	for (const struct cprof_account *account = block->accounts; account;
	     account = account->hh.next) {
		const struct cprof_block_thread *thread = block->threads[account->key.thread];
		const struct cprof_stratum *all =
			cprof_block_stratum(block, pool, thread, account->key.stratum);
		const struct cprof_stood_for *also = &thread->stood_for;
		bool one_more = also->ns > 0 && also->stratum == account->key.stratum;
		double count = all->count + one_more;
		double ns = all->ns + (one_more ? also->ns : 0);
		struct cprof_row row = {
			.stack = account->key.stack,
			.kind = (enum cprof_wait_kind)account->key.kind,
			.thread = account->key.thread,
			.count = account->count * cprof_block_scale(count, all->sampled_count),
			.ns = account->ns * cprof_block_scale(ns, all->sampled_ns),
		};

		if (!add_row(rows, row))
			return false;
	}
	return true;
}

/* Waits of a length of which no stack is known, and those that may not have been whole. */
static bool add_unsampled(const struct cprof_block *block, const struct cprof_stratum *pool,
			  const struct cprof_block_thread *thread, struct cprof_block_rows *rows)
{
	const struct cprof_row unsure = {
		.marker = CPROF_ROW_UNSURE,
		.kind = CPROF_WAIT_NONE,
		.thread = thread->index,
		.count = thread->unsure_count,
		.ns = thread->unsure_ns,
	};

	if (unsure.count > 0 && !add_row(rows, unsure))
		return false;
	for (unsigned i = 0; i < CPROF_PERF_STRATA; i++) {
		const struct cprof_stratum *stratum = &thread->strata[i];
		struct cprof_row row = {
			.marker = CPROF_ROW_NOT_SAMPLED,
			.kind = i == CPROF_PERF_STRATUM_RUNQ ? CPROF_WAIT_RUNQ : CPROF_WAIT_NONE,
			.thread = thread->index,
			.count = stratum->count,
			.ns = stratum->ns,
		};

		if (stratum->count > 0 &&
		    !(cprof_block_stratum(block, pool, thread, i)->sampled_count > 0) &&
		    !add_row(rows, row))
			return false;
	}
	return true;
}

/* A wait that goes on, or is not yet counted: it is one, whatever its stack stands for among those
 * that ended. */
static bool add_pending(const struct cprof_block *block, const struct cprof_block_thread *thread,
			uint64_t now, struct cprof_block_rows *rows)
{
	struct cprof_row row = {
		.stack = thread->place.stack,
		.kind = thread->preempted ? CPROF_WAIT_RUNQ : thread->place.kind,
		.thread = thread->index,
		.count = 1,
		.ns = (double)pending_ns(block, thread, now),
	};

	if (!(row.ns > 0) || thread->stood_for.ns > 0)
		return true;
	if (thread->unsure || !thread->place.known) {
		row.marker = thread->unsure ? CPROF_ROW_UNSURE : CPROF_ROW_NOT_SAMPLED;
		row.kind = thread->preempted ? CPROF_WAIT_RUNQ : CPROF_WAIT_NONE;
	}
	return add_row(rows, row);
}

static void name_threads(const struct cprof_block *block, struct cprof_block_rows *rows)
{
	for (size_t i = 0; i < block->thread_count; i++) {
		const struct cprof_block_thread *thread = block->threads[i];
		const char *name = thread->ended
					   ? NULL
					   : block->config.name(block->config.context, thread->tid);

		rows->threads[i].tid = thread->tid;
		snprintf(rows->threads[i].name, sizeof(rows->threads[i].name), "%s",
			 name ? name : thread->name);
	}
}

struct cprof_error *cprof_block_rows(struct cprof_block *block, uint64_t now,
				     struct cprof_block_rows **result)
{
	struct cprof_block_rows *rows = calloc(1, sizeof(*rows));
	struct cprof_stratum pool[CPROF_PERF_STRATA] = {0};
	bool fine = rows && !block->no_memory;

	*result = NULL;
	if (rows)
		rows->threads = calloc(block->thread_count + 1, sizeof(*rows->threads));
	for (size_t i = 0; i < block->thread_count; i++)
		find_unsampled_pending(block, block->threads[i], now);
	cprof_block_pool(block, pool);
	fine = fine && rows->threads && add_accounts(block, pool, rows);
	for (size_t i = 0; i < block->thread_count && fine; i++)
		fine = add_unsampled(block, pool, block->threads[i], rows) &&
		       add_pending(block, block->threads[i], now, rows);
	if (!fine) {
		cprof_block_rows_destroy(rows);
		return cprof_error_nomem();
	}
	rows->thread_count = block->thread_count;
	name_threads(block, rows);
	*result = rows;
	return NULL;
}

void cprof_block_rows_destroy(struct cprof_block_rows *rows)
{
	if (!rows)
		return;
	free(rows->rows);
	free(rows->threads);
	free(rows);
}

/* --- profile ------------------------------------------------------------------------------- */

void cprof_block_describe(struct cprof_profile *profile)
{
	cprof_profile_add_type(profile, "contentions", "count");
	cprof_profile_add_type(profile, "delay", "nanoseconds");
	profile->period_type = profile->types[0];
	profile->period = 1;
	profile->default_type = profile->types[1].type;
}

static bool is_kernel(const struct cprof_profile *profile, uint32_t location)
{
	return profile->locations[location].address >= KERNEL_START;
}

/* Of the outermost function there: what inlined ones are called does not matter. */
static const char *name_of(const struct cprof_profile *profile, uint32_t location)
{
	const struct cprof_profile_location *where = &profile->locations[location];

	if (!where->line_count)
		return NULL;
	return profile->strings
		[profile->functions[profile->lines[where->first_line + where->line_count - 1]
					    .function]
			 .name];
}

/* All that leaves the CPU goes through these: they tell nothing. */
static bool is_scheduler(const char *name)
{
	static const char *const starts[] = {"__schedule", "schedule", "io_schedule",
					     "preempt_schedule", "__cond_resched"};

	for (size_t i = 0; name && i < CPROF_COUNT(starts); i++)
		if (!strncmp(name, starts[i], strlen(starts[i])))
			return true;
	return false;
}

/* How many frames of the kernel are left out: the scheduler's, and what called us from there. */
static size_t count_scheduler(const char *const *names, size_t kernel)
{
	size_t first = 0;

	while (first < kernel && !is_scheduler(names[first]))
		first++;
	if (first == kernel || first > PROBE_FRAMES)
		return 0;
	while (first < kernel && is_scheduler(names[first]))
		first++;
	return first;
}

/* The stack without its first frames, and with a marker in their place unless that is NULL. */
static uint32_t cut_stack(struct cprof_profile *profile, uint32_t stack, size_t left_out,
			  const char *marker)
{
	const struct cprof_profile_span span = profile->stacks[stack];
	size_t more = marker != NULL;
	CPROF_AUTO_FREE uint32_t *items = calloc(span.count - left_out + more, sizeof(*items));

	if (!items)
		return stack;
	if (marker)
		items[0] = cprof_profile_marker(profile, marker);
	/* Copied: interning may move the array. */
	memcpy(items + more, profile->stack_items + span.first + left_out,
	       (span.count - left_out) * sizeof(*items));
	return cprof_profile_stack(profile, items, span.count - left_out + more);
}

/* The stack as it is shown, and what it waits for if that is not known yet. Who is preempted waits
 * for a CPU: nothing that the kernel does says more. */
static uint32_t show_stack(struct cprof_profile *profile, uint32_t stack, bool no_kernel,
			   enum cprof_wait_kind *kind)
{
	const struct cprof_profile_span span = profile->stacks[stack];
	const char *names[NAMES_MAX] = {NULL};
	size_t kernel = 0;
	size_t count = CPROF_MIN(span.count, NAMES_MAX);
	size_t left_out;

	while (kernel < span.count && is_kernel(profile, profile->stack_items[span.first + kernel]))
		kernel++;
	if (*kind == CPROF_WAIT_RUNQ)
		return cut_stack(profile, stack, kernel, "[preempted]");
	for (size_t i = 0; i < count; i++)
		names[i] = name_of(profile, profile->stack_items[span.first + i]);
	left_out = no_kernel ? kernel : count_scheduler(names, CPROF_MIN(kernel, count));
	if (*kind == CPROF_WAITS)
		*kind = cprof_block_kind(names, CPROF_MIN(kernel, count), count);
	if (!left_out || left_out == span.count)
		return stack;
	return cut_stack(profile, stack, left_out, NULL);
}

static uint32_t marker_stack(struct cprof_profile *profile, enum cprof_row_marker marker)
{
	uint32_t location = cprof_profile_marker(
		profile, marker == CPROF_ROW_UNSURE ? "[lost switches]" : "[stack not sampled]");

	return cprof_profile_stack(profile, &location, 1);
}

struct cprof_error *cprof_block_fill(const struct cprof_block_rows *rows, bool no_kernel,
				     struct cprof_profile *profile)
{
	const uint32_t key_thread = cprof_profile_string(profile, "thread");
	const uint32_t key_tid = cprof_profile_string(profile, "tid");
	const uint32_t key_wait = cprof_profile_string(profile, "wait");

	for (size_t i = 0; i < rows->count; i++) {
		const struct cprof_row *row = &rows->rows[i];
		const struct cprof_row_thread *thread = &rows->threads[row->thread];
		int64_t values[2] = {llround(row->count), llround(row->ns)};
		enum cprof_wait_kind kind = row->kind;
		struct cprof_profile_label labels[3] = {
			{.key = key_thread, .text = cprof_profile_string(profile, thread->name)},
			{.key = key_tid, .number = thread->tid},
			{.key = key_wait},
		};
		uint32_t stack = row->marker == CPROF_ROW_STACK
					 ? show_stack(profile, row->stack, no_kernel, &kind)
					 : marker_stack(profile, row->marker);

		labels[2].text = cprof_profile_string(profile, cprof_wait_name(kind));
		if (values[0] || values[1])
			cprof_profile_add(profile, stack, cprof_profile_labels(profile, labels, 3),
					  values);
	}
	return cprof_profile_check(profile);
}
