/* SPDX-License-Identifier: MIT
 *
 * The report on locks, as text and as JSON.
 */
#include "locks.h"

#include <cprof/util.h>
#include <jansson.h>
#include <math.h>
#include <string.h>

#define STACKS_TOLD 5 /* of a lock, as text */

/* What is not known is "-". */
struct text {
	char text[CPROF_UNITS_TEXT];
};

static int64_t whole(double value)
{
	return value >= 0x1p63 ? INT64_MAX : value <= -0x1p63 ? INT64_MIN : llround(value);
}

static struct text time_of(bool known, double ns)
{
	struct text result = {"-"};

	if (known)
		cprof_units_label(whole(ns), "nanoseconds", "minimum", result.text);
	return result;
}

static double mean_of(const struct cprof_lock *lock)
{
	return lock->contentions != 0 ? lock->delay_ns / lock->contentions : 0;
}

/* A copy of so many bytes, safe to show; NULL without memory. */
static char *clean(const char *text, size_t length)
{
	char *copy = strndup(text, length);

	if (copy)
		cprof_text_clean(copy, length, copy, length + 1);
	return copy;
}

/* The caller frees; NULL without memory. */
static char *lock_name(const struct cprof_lock *lock)
{
	return lock->name ? clean(lock->name, lock->length) : strdup("-");
}

static char *stack_name(const struct cprof_locks *locks, const struct cprof_lock_stack *stack)
{
	return stack->function ? cprof_text_clean_dup(locks->profile->strings[stack->function])
			       : strdup("-");
}

static const char *side_of(const struct cprof_locks *locks)
{
	return !locks->sides_known ? "stacks" : locks->are_waiters ? "waiters" : "holders";
}

/* --- text ---------------------------------------------------------------------------------- */

static void put_header(FILE *out, const struct cprof_locks *locks)
{
	const struct cprof_profile *profile = locks->profile;

	if (profile->mapping_count > 1 && profile->mappings[1].file) {
		fputs("File: ", out);
		cprof_put_clean(out, cprof_base_name(profile->strings[profile->mappings[1].file]));
		putc('\n', out);
	}
	if (profile->duration_ns)
		fprintf(out, "Duration: %s\n", time_of(true, (double)profile->duration_ns).text);
	fprintf(out, "%zu lock%s: %s of waiting, %lld contentions\n", locks->out_of,
		locks->out_of == 1 ? "" : "s", time_of(true, locks->delay_ns).text,
		(long long)whole(locks->contentions));
	if (locks->count < locks->out_of)
		fprintf(out, "Showing %zu of them\n", locks->count);
}

static void put_row(FILE *out, const struct cprof_locks *locks, const struct cprof_lock *lock)
{
	CPROF_AUTO_FREE char *name = lock_name(lock);
	char percent[32];

	cprof_units_percent(whole(lock->delay_ns), whole(locks->delay_ns), percent);
	fprintf(out, "%10s %s %11lld %10s %10s  %s\n", time_of(true, lock->delay_ns).text, percent,
		(long long)whole(lock->contentions),
		time_of(lock->contentions != 0, mean_of(lock)).text,
		time_of(lock->told, lock->longest_ns).text, name ? name : "?");
}

static void put_stacks(FILE *out, const struct cprof_locks *locks, const struct cprof_lock *lock)
{
	size_t count = CPROF_MIN(lock->stack_count, (size_t)STACKS_TOLD);

	for (size_t i = 0; i < count; i++) {
		const struct cprof_lock_stack *stack = &lock->stacks[i];
		CPROF_AUTO_FREE char *name = stack_name(locks, stack);
		char percent[32];

		cprof_units_percent(whole(stack->delay_ns), whole(lock->sampled_ns), percent);
		fprintf(out, "  %-8s%s %10s  %s\n", i ? "" : side_of(locks), percent,
			time_of(true, stack->delay_ns).text, name ? name : "?");
	}
	if (count < lock->stack_count)
		fprintf(out, "  %-8s%6s %10s  and %zu more\n", "", "", "",
			lock->stack_count - count);
}

static void put_waiters(FILE *out, const struct cprof_lock *lock)
{
	const char *title = "waiters", *next = lock->waiters;
	struct cprof_lock_waiter waiter;

	while (cprof_lock_next_waiter(&next, &waiter)) {
		CPROF_AUTO_FREE char *name = clean(waiter.name, waiter.length);

		fprintf(out, "  %-8s%5.0f%% %10s  %s\n", title, waiter.percent, "",
			name ? name : "?");
		title = "";
	}
}

static void put_lock(FILE *out, const struct cprof_locks *locks, const struct cprof_lock *lock)
{
	CPROF_AUTO_FREE char *name = lock_name(lock);
	bool waiters = lock->waiters && !locks->are_waiters;

	if (!lock->stack_count && !waiters)
		return;
	fprintf(out, "\n%s\n", name ? name : "?");
	put_stacks(out, locks, lock);
	if (waiters)
		put_waiters(out, lock);
}

struct cprof_error *cprof_report_locks(const struct cprof_profile *profile,
				       const struct cprof_report_options *options, FILE *out)
{
	CPROF_CLEANUP(cprof_locks_deinit) struct cprof_locks locks = {0};

	CPROF_TRY(cprof_locks_init(&locks, profile, options));
	put_header(out, &locks);
	fprintf(out, "%10s %6s %11s %10s %10s  %s\n", "delay", "delay%", "contentions", "mean",
		"longest", "lock");
	for (size_t i = 0; i < locks.count; i++)
		put_row(out, &locks, &locks.locks[i]);
	for (size_t i = 0; i < locks.count; i++)
		put_lock(out, &locks, &locks.locks[i]);
	return cprof_report_flush(out);
}

/* --- JSON ---------------------------------------------------------------------------------- */

/* Takes the text over; null where there is none. */
static json_t *string_of(char *text, bool known)
{
	json_t *string = !known ? json_null() : text ? json_string(text) : NULL;

	free(text);
	return string;
}

static json_t *number_of(double value)
{
	return json_integer(whole(value));
}

/* Each returns NULL without memory. */
static json_t *stacks_of(const struct cprof_locks *locks, const struct cprof_lock *lock)
{
	json_t *array = json_array();

	for (size_t i = 0; i < lock->stack_count; i++) {
		const struct cprof_lock_stack *stack = &lock->stacks[i];

		json_t *item = json_pack("{s:o, s:o, s:o}", "function",
					 string_of(stack_name(locks, stack), stack->function != 0),
					 "delay_ns", number_of(stack->delay_ns), "contentions",
					 number_of(stack->contentions));

		if (json_array_append_new(array, item)) {
			json_decref(array);
			return NULL;
		}
	}
	return array;
}

static json_t *waiters_of(const struct cprof_lock *lock)
{
	const char *next = lock->waiters;
	struct cprof_lock_waiter waiter;
	json_t *array = json_array();

	while (cprof_lock_next_waiter(&next, &waiter)) {
		json_t *item = json_pack("{s:o, s:f}", "function",
					 string_of(clean(waiter.name, waiter.length), true),
					 "share", waiter.percent / 100);

		if (json_array_append_new(array, item)) {
			json_decref(array);
			return NULL;
		}
	}
	return array;
}

static json_t *lock_of(const struct cprof_locks *locks, const struct cprof_lock *lock)
{
	json_t *object = json_pack(
		"{s:o, s:o, s:o}", "lock", string_of(lock_name(lock), lock->name != NULL),
		"delay_ns", number_of(lock->delay_ns), "contentions", number_of(lock->contentions));

	bool failed = false;

	if (lock->contentions != 0)
		failed |= json_object_set_new(object, "mean_ns", number_of(mean_of(lock))) != 0;
	if (lock->told)
		failed |=
			json_object_set_new(object, "longest_ns", number_of(lock->longest_ns)) != 0;
	if (lock->stack_count)
		failed |= json_object_set_new(object, side_of(locks), stacks_of(locks, lock)) != 0;
	if (lock->waiters && !locks->are_waiters)
		failed |= json_object_set_new(object, "waiters", waiters_of(lock)) != 0;
	if (failed)
		json_decref(object);
	return failed ? NULL : object;
}

struct cprof_error *cprof_report_locks_json(const struct cprof_profile *profile,
					    const struct cprof_report_options *options, FILE *out)
{
	CPROF_CLEANUP(cprof_locks_deinit) struct cprof_locks locks = {0};

	CPROF_TRY(cprof_locks_init(&locks, profile, options));
	fprintf(out, "{\"contentions\":%lld,\"delay_ns\":%lld,\"locks\":[",
		(long long)whole(locks.contentions), (long long)whole(locks.delay_ns));
	for (size_t i = 0; i < locks.count; i++) {
		json_t *lock = lock_of(&locks, &locks.locks[i]);
		int failed;

		fputs(i ? ",\n" : "\n", out);
		failed =
			!lock || json_dumpf(lock, out,
					    JSON_COMPACT | JSON_SORT_KEYS | JSON_REAL_PRECISION(6));
		json_decref(lock);
		if (failed && !ferror(out))
			return cprof_error_nomem();
	}
	fputs("\n]}\n", out);
	return cprof_report_flush(out);
}
