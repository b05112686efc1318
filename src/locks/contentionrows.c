/* SPDX-License-Identifier: MIT
 *
 * The accounts of contention as rows, and the rows as a profile laid out as Go's mutex profile.
 */
#include "contention.h"

#include <cprof/areas.h>
#include <cprof/util.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define COMMENTS_MAX 200
#define WAITERS_TOLD 3
#define NO_LOCK      UINT32_MAX
#define VALUE_MAX    1e18 /* of one row */

/* --- names of locks ------------------------------------------------------------------------ */

static int by_delay(const void *a, const void *b)
{
	const struct cprof_contention_lock *x = *(struct cprof_contention_lock *const *)a;
	const struct cprof_contention_lock *y = *(struct cprof_contention_lock *const *)b;

	return (x->delay_ns < y->delay_ns) - (x->delay_ns > y->delay_ns);
}

/* Looking for symbols takes long: the most important locks come first, others the next time. */
void cprof_contention_name_locks(struct cprof_contention *contention)
{
	const struct cprof_target *target = cprof_space_target(contention->records->space);
	CPROF_AUTO_FREE struct cprof_contention_lock **unnamed =
		calloc(contention->lock_count + 1, sizeof(struct cprof_contention_lock *));
	struct cprof_areas *areas = NULL;
	struct cprof_error *error;
	size_t count = 0;

	for (size_t i = 0; unnamed && target && i < contention->lock_count; i++)
		if (!contention->locks[i]->label[0])
			unnamed[count++] = contention->locks[i];
	if (!count)
		return;
	error = cprof_areas_create(target, &areas);
	cprof_error_destroy(error);
	if (error) /* it has ended: there is nothing to look at any more */
		return;
	qsort(unnamed, count, sizeof(*unnamed), by_delay);
	for (size_t i = 0; i < count; i++)
		if (!cprof_areas_label(areas, contention->records->space, unnamed[i]->address,
				       unnamed[i]->label, sizeof(unnamed[i]->label)))
			unnamed[i]->label[0] = '\0';
	cprof_areas_destroy(areas);
}

/* Those without a name are told by their addresses. */
static struct cprof_error *copy_locks(struct cprof_contention *contention, bool named,
				      struct cprof_contention_rows *rows)
{
	if (named)
		cprof_contention_name_locks(contention);
	rows->locks = calloc(contention->lock_count + 1, sizeof(*rows->locks));
	if (!rows->locks)
		return cprof_error_nomem();
	for (size_t i = 0; i < contention->lock_count; i++) {
		struct cprof_contention_lock *copy = &rows->locks[i];

		*copy = *contention->locks[i];
		if (!copy->label[0])
			snprintf(copy->label, sizeof(copy->label), "0x%" PRIx64, copy->address);
	}
	rows->lock_count = contention->lock_count;
	return NULL;
}

/* --- rows ---------------------------------------------------------------------------------- */

static bool add_row(struct cprof_contention_rows *rows, struct cprof_contention_row row)
{
	if (!cprof_grow(&rows->rows, &rows->capacity, rows->count + 1, sizeof(*rows->rows)))
		return false;
	rows->rows[rows->count++] = row;
	return true;
}

static bool add_accounts(const struct cprof_contention *contention,
			 struct cprof_contention_rows *rows)
{
	const struct cprof_contention_account *account = contention->accounts;
	const struct cprof_contention_tail *tail = contention->tails;

	for (; account; account = account->hh.next)
		if (!add_row(rows, (struct cprof_contention_row){
					   .marker = account->key.stack ? CPROF_CONTENTION_STACK
									: CPROF_CONTENTION_UNKNOWN,
					   .side = (enum cprof_contention_side)account->key.side,
					   .stack = account->key.stack,
					   .lock = account->key.lock,
					   .count = account->count,
					   .delay_ns = account->delay_ns,
				   }))
			return false;
	for (; tail; tail = tail->hh.next)
		if (!add_row(rows, (struct cprof_contention_row){
					   .marker = CPROF_CONTENTION_UNKNOWN,
					   .side = CPROF_CONTENTION_HOLDER,
					   .lock = tail->lock,
					   .count = tail->count,
					   .delay_ns = tail->delay_ns,
				   }))
			return false;
	return true;
}

/* Whoever still waits must not be missing: that would be the worst of all. */
static bool add_going_on(const struct cprof_contention *contention, uint64_t now,
			 struct cprof_contention_rows *rows)
{
	const struct cprof_contention_wait *wait = contention->waits;
	double uncharged;
	double all;

	for (; wait && now; wait = wait->hh.next) {
		struct cprof_contention_row row = {
			.marker = CPROF_CONTENTION_HELD,
			.side = CPROF_CONTENTION_HOLDER,
			.lock = wait->lock,
			.count = wait->weight,
		};
		struct cprof_contention_lock *lock = &rows->locks[wait->lock];

		if (!cprof_contention_goes_on(contention, wait, now, &uncharged, &all))
			continue;
		lock->count += wait->weight;
		lock->delay_ns += wait->weight * all;
		lock->longest_ns = CPROF_MAX(lock->longest_ns, (uint64_t)all);
		row.delay_ns = wait->weight * uncharged;
		if (!add_row(rows, row))
			return false;
		row.marker = CPROF_CONTENTION_STACK;
		row.side = CPROF_CONTENTION_WAITER;
		row.stack = wait->stack;
		row.delay_ns = wait->weight * all;
		if (wait->wanted && !add_row(rows, row))
			return false;
	}
	return true;
}

/* Waits that found no entry stand for what they were chosen for, and have waited as long as those
 * that are known: in a crowd, which fills the table, that is far from the average. Others lost
 * count as the waits did on average, and have waited as long as those that are over: with the
 * profiler kept from the CPU, one that starves says nothing of thousands that did not. What unlocks
 * were charged with is known, though not who they were. */
static bool add_lost(const struct cprof_contention *contention, struct cprof_contention_rows *rows)
{
	const struct cprof_contention_losses *losses = &contention->losses;
	const double refused_weight = (double)losses->refused_weight;
	struct cprof_contention_row row = {.marker = CPROF_CONTENTION_LOST, .lock = NO_LOCK};
	struct cprof_contention_stats stats;
	double dropped;
	double over = 0;
	double count = 0;
	double delay_ns = 0;

	cprof_contention_stats(contention, &stats);
	if (!stats.lost)
		return true;
	for (size_t i = 0; i < rows->lock_count; i++) {
		over += contention->locks[i]->count;
		count += rows->locks[i].count;
		delay_ns += rows->locks[i].delay_ns;
	}
	dropped = (double)(stats.lost - losses->refused);
	dropped -= CPROF_MIN((double)losses->dropped_unlocks, dropped);
	if (stats.timed)
		dropped *= stats.contended / (double)stats.timed;
	row.count = dropped + refused_weight;
	if (count > 0)
		row.delay_ns = refused_weight * (delay_ns / count) +
			       dropped * (over > 0 ? stats.delay_ns / over : delay_ns / count);
	row.side = CPROF_CONTENTION_WAITER;
	if (!add_row(rows, row))
		return false;
	row.side = CPROF_CONTENTION_HOLDER;
	row.delay_ns += (double)losses->dropped_ns;
	return add_row(rows, row);
}

static struct cprof_error *make_rows(struct cprof_contention *contention, uint64_t now, bool named,
				     struct cprof_contention_rows **result)
{
	struct cprof_contention_rows *rows = calloc(1, sizeof(*rows));
	struct cprof_error *error = NULL;

	*result = NULL;
	if (!rows || contention->no_memory)
		error = cprof_error_nomem();
	if (!error)
		error = copy_locks(contention, named, rows);
	if (!error && !(add_accounts(contention, rows) && add_going_on(contention, now, rows) &&
			add_lost(contention, rows)))
		error = cprof_error_nomem();
	if (error) {
		cprof_contention_rows_destroy(rows);
		return error;
	}
	rows->started_ns = contention->started_ns;
	*result = rows;
	return NULL;
}

struct cprof_error *cprof_contention_rows(struct cprof_contention *contention, uint64_t now,
					  struct cprof_contention_rows **rows)
{
	return make_rows(contention, now, true, rows);
}

struct cprof_error *cprof_contention_mark(struct cprof_contention *contention, uint64_t now,
					  struct cprof_contention_rows **rows)
{
	return make_rows(contention, now, false, rows);
}

void cprof_contention_rows_destroy(struct cprof_contention_rows *rows)
{
	if (!rows)
		return;
	free(rows->rows);
	free(rows->locks);
	free(rows);
}

/* --- profile ------------------------------------------------------------------------------- */

bool cprof_contention_is_lock(const char *function)
{
	static const char *const starts[] = {"pthread_",
					     "__pthread_",
					     "___pthread_",
					     "__gthread_",
					     "__gthrw_",
					     "mtx_",
					     "cnd_",
					     "std::mutex",
					     "std::__mutex",
					     "std::timed_mutex",
					     "std::recursive_",
					     "std::shared_mutex",
					     "std::shared_timed",
					     "std::lock_guard",
					     "std::unique_lock",
					     "std::scoped_lock",
					     "std::shared_lock",
					     "std::condition_variable",
					     "std::__condvar",
					     "std::__shared_",
					     "std::__recursive_",
					     "std::__timed_mutex",
					     "std::lock<"};

	for (size_t i = 0; i < CPROF_COUNT(starts); i++)
		if (!strncmp(function, starts[i], strlen(starts[i])))
			return true;
	return false;
}

/* The innermost function that does more than lock; "" unknown. */
static const char *name_of_stack(const struct cprof_profile *profile, uint32_t stack)
{
	const struct cprof_profile_span span = profile->stacks[stack];

	for (uint32_t i = 0; i < span.count; i++) {
		const struct cprof_profile_location *where =
			&profile->locations[profile->stack_items[span.first + i]];

		for (uint32_t j = 0; j < where->line_count; j++) {
			uint32_t function = profile->lines[where->first_line + j].function;
			const char *name = profile->strings[profile->functions[function].name];

			if (*name && !cprof_contention_is_lock(name))
				return name;
		}
	}
	return "";
}

struct waiter {
	const char *name;
	double delay_ns;
};

static int by_waiter_delay(const void *a, const void *b)
{
	const struct waiter *x = a;
	const struct waiter *y = b;

	return (x->delay_ns < y->delay_ns) - (x->delay_ns > y->delay_ns);
}

/* "waiters f 61%; g 39%" */
static void tell_waiters(const struct cprof_contention_rows *rows,
			 const struct cprof_profile *profile, uint32_t lock, char *text,
			 size_t size)
{
	CPROF_AUTO_FREE struct waiter *waiters = calloc(rows->count + 1, sizeof(*waiters));
	size_t count = 0;
	double all = 0;
	size_t used = 0;

	*text = '\0';
	for (size_t i = 0; waiters && i < rows->count; i++) {
		const struct cprof_contention_row *row = &rows->rows[i];
		const char *name;
		size_t at = 0;

		if (row->lock != lock || row->side != CPROF_CONTENTION_WAITER ||
		    row->marker != CPROF_CONTENTION_STACK)
			continue;
		all += row->delay_ns;
		name = name_of_stack(profile, row->stack);
		while (at < count && strcmp(waiters[at].name, name) != 0)
			at++;
		if (at == count)
			waiters[count++].name = name;
		waiters[at].delay_ns += row->delay_ns;
	}
	if (count)
		qsort(waiters, count, sizeof(*waiters), by_waiter_delay);
	for (size_t i = 0; i < CPROF_MIN(count, (size_t)WAITERS_TOLD) && used < size && all > 0;
	     i++) {
		char name[128];

		cprof_text_clean(waiters[i].name, strlen(waiters[i].name), name, sizeof(name));
		if (*name)
			used += (size_t)snprintf(text + used, size - used, "%s%s %.0f%%",
						 used ? "; " : ", waiters ", name,
						 100 * waiters[i].delay_ns / all);
	}
}

static void add_comments(const struct cprof_contention_rows *rows, struct cprof_profile *profile)
{
	CPROF_AUTO_FREE struct cprof_contention_lock **sorted =
		calloc(rows->lock_count + 1, sizeof(struct cprof_contention_lock *));

	if (!sorted)
		return;
	for (size_t i = 0; i < rows->lock_count; i++)
		sorted[i] = &rows->locks[i];
	qsort(sorted, rows->lock_count, sizeof(*sorted), by_delay);
	for (size_t i = 0; i < CPROF_MIN(rows->lock_count, (size_t)COMMENTS_MAX); i++) {
		const struct cprof_contention_lock *lock = sorted[i];
		char waiters[512];
		char text[1024];

		if (!(lock->count > 0))
			break;
		tell_waiters(rows, profile, lock->index, waiters, sizeof(waiters));
		snprintf(text, sizeof(text),
			 "lock \"%s\": contentions %.0f, delay %.0f ns, longest %" PRIu64 " ns%s",
			 lock->label, lock->count, lock->delay_ns, lock->longest_ns, waiters);
		cprof_profile_add_comment(profile, text);
	}
}

static uint32_t stack_of_row(const struct cprof_contention_row *row, struct cprof_profile *profile)
{
	static const char *const markers[] = {
		[CPROF_CONTENTION_UNKNOWN] = "[holder unknown]",
		[CPROF_CONTENTION_HELD] = "[still held]",
		[CPROF_CONTENTION_LOST] = "[lost samples]",
	};
	uint32_t location;

	if (row->marker == CPROF_CONTENTION_STACK)
		return row->stack;
	location = cprof_profile_marker(profile, markers[row->marker]);
	return cprof_profile_stack(profile, &location, 1);
}

/* A target can make up any figure. */
static int64_t whole(double value)
{
	return llround(CPROF_MIN(value, VALUE_MAX));
}

struct cprof_error *cprof_contention_fill(const struct cprof_contention_rows *rows,
					  enum cprof_contention_side side,
					  struct cprof_profile *profile)
{
	const uint32_t key = cprof_profile_string(profile, "lock");

	for (size_t i = 0; i < rows->count; i++) {
		const struct cprof_contention_row *row = &rows->rows[i];
		int64_t values[2] = {whole(row->count), whole(row->delay_ns)};
		struct cprof_profile_label label = {.key = key};

		if (row->side != side || (!values[0] && !values[1]))
			continue;
		if (row->lock != NO_LOCK)
			label.text = cprof_profile_string(profile, rows->locks[row->lock].label);
		cprof_profile_add(profile, stack_of_row(row, profile),
				  label.text ? cprof_profile_labels(profile, &label, 1) : 0,
				  values);
	}
	if (side == CPROF_CONTENTION_WAITER)
		cprof_profile_add_comment(profile, CPROF_CONTENTION_OF_WAITERS);
	add_comments(rows, profile);
	return cprof_profile_check(profile);
}
