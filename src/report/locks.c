/* SPDX-License-Identifier: MIT
 *
 * Sums by lock, and what the comments know beyond the samples.
 */
#include "locks.h"

#include <cprof/locks.h>
#include <cprof/util.h>
#include <string.h>

#define COUNT_DEFAULT 20
#define TOLD_START    "lock \""
#define TOLD_MIDDLE   "\": contentions "

/* --- which values -------------------------------------------------------------------------- */

struct values {
	size_t contentions; /* indices of types */
	size_t delay;
	double factor; /* from the unit of delay to ns */
};

static struct cprof_error *find_values(const struct cprof_profile *profile, struct values *values)
{
	int contentions = cprof_profile_find_type(profile, "contentions");
	int delay = cprof_profile_find_type(profile, "delay");
	const char *unit = "";

	if (contentions >= 0 && delay >= 0)
		values->factor = cprof_units_scale(1, profile->strings[profile->types[delay].unit],
						   "nanoseconds", &unit);
	if (strcmp(unit, "ns") != 0)
		return cprof_error_create(
			CPROF_USAGE, "take one by record -e mutex",
			"report locks: not a profile of locks: it has no contentions and delay");
	values->contentions = (size_t)contentions;
	values->delay = (size_t)delay;
	return NULL;
}

/* --- names --------------------------------------------------------------------------------- */

/* What a waiting thread passes through below the call that locks. */
static bool is_inner(const struct cprof_profile *profile, uint32_t mapping, const char *name)
{
	static const char *const starts[] = {"__lll_", "lll_",           "futex_",  "__futex_",
					     "sync.",  "internal/sync.", "runtime."};

	if (!strcmp(profile->strings[profile->mappings[mapping].file], "[kernel.kallsyms]"))
		return true;
	for (size_t i = 0; i < CPROF_COUNT(starts); i++)
		if (!strncmp(name, starts[i], strlen(starts[i])))
			return true;
	return cprof_contention_is_lock(name);
}

/* Where all of them only lock, the outermost; 0 unknown. */
static uint32_t function_of(const struct cprof_profile *profile,
			    const struct cprof_profile_span *stack)
{
	uint32_t last = 0;

	for (uint32_t i = 0; i < stack->count; i++) {
		const struct cprof_profile_location *where =
			&profile->locations[profile->stack_items[stack->first + i]];

		for (uint32_t j = 0; j < where->line_count; j++) {
			uint32_t function = profile->lines[where->first_line + j].function;
			uint32_t name = profile->functions[function].name;

			last = name ? name : last;
			if (name && !is_inner(profile, where->mapping, profile->strings[name]))
				return name;
		}
	}
	return last;
}

/* The label `lock` of a sample, 0 none. */
static uint32_t label_of(const struct cprof_profile *profile, uint32_t set)
{
	const struct cprof_profile_span *span = &profile->label_sets[set];

	for (uint32_t i = 0; i < span->count; i++) {
		const struct cprof_profile_label *label = &profile->label_items[span->first + i];

		if (label->text && !strcmp(profile->strings[label->key], "lock"))
			return label->text;
	}
	return 0;
}

/* --- samples ------------------------------------------------------------------------------- */

static int by_lock_and_function(const void *a, const void *b)
{
	const struct cprof_lock_stack *x = a, *y = b;

	if (x->lock != y->lock)
		return (x->lock > y->lock) - (x->lock < y->lock);
	return (x->function > y->function) - (x->function < y->function);
}

static int by_lock_and_delay(const void *a, const void *b)
{
	const struct cprof_lock_stack *x = a, *y = b;

	if (x->lock != y->lock)
		return (x->lock > y->lock) - (x->lock < y->lock);
	if (x->delay_ns != y->delay_ns)
		return x->delay_ns < y->delay_ns ? 1 : -1;
	return (x->function > y->function) - (x->function < y->function);
}

/* Adds up what is of the same lock (here still its string id) and function; how many are left. */
static size_t join_stacks(struct cprof_lock_stack *stacks, size_t count)
{
	size_t kept = 0;

	if (count)
		qsort(stacks, count, sizeof(*stacks), by_lock_and_function);
	for (size_t i = 0; i < count; i++) {
		struct cprof_lock_stack *last = kept ? &stacks[kept - 1] : NULL;

		if (last && last->lock == stacks[i].lock && last->function == stacks[i].function) {
			last->delay_ns += stacks[i].delay_ns;
			last->contentions += stacks[i].contentions;
		} else {
			stacks[kept++] = stacks[i];
		}
	}
	if (kept)
		qsort(stacks, kept, sizeof(*stacks), by_lock_and_delay);
	return kept;
}

/* A lock for each run of stacks of one. */
static void make_locks(struct cprof_locks *locks, size_t stack_count)
{
	const struct cprof_profile *profile = locks->profile;

	for (size_t i = 0; i < stack_count; i++) {
		const struct cprof_lock_stack *stack = &locks->stacks[i];
		struct cprof_lock *lock = &locks->locks[locks->count];

		if (!i || stack->lock != stack[-1].lock) {
			const char *name = stack->lock ? profile->strings[stack->lock] : NULL;

			*lock = (struct cprof_lock){
				.name = name,
				.length = name ? strlen(name) : 0,
				.stacks = stack,
			};
			locks->count++;
		} else {
			lock--;
		}
		lock->stack_count++;
		lock->delay_ns += stack->delay_ns;
		lock->contentions += stack->contentions;
		lock->sampled_ns = lock->delay_ns;
	}
}

static struct cprof_error *sum_up(struct cprof_locks *locks, const struct values *values)
{
	const struct cprof_profile *profile = locks->profile;
	size_t count = 0;

	locks->stacks = calloc(profile->sample_count + 1, sizeof(*locks->stacks));
	locks->locks =
		calloc(profile->sample_count + profile->comment_count + 1, sizeof(*locks->locks));
	if (!locks->stacks || !locks->locks)
		return cprof_error_nomem();
	for (size_t i = 0; i < profile->sample_count; i++) {
		const struct cprof_profile_sample *sample = &profile->samples[i];
		const int64_t *value = &profile->values[i * profile->type_count];

		if (!value[values->contentions] && !value[values->delay])
			continue;
		locks->stacks[count++] = (struct cprof_lock_stack){
			.lock = label_of(profile, sample->labels),
			.function = function_of(profile, &profile->stacks[sample->stack]),
			.delay_ns = (double)value[values->delay] * values->factor,
			.contentions = (double)value[values->contentions],
		};
	}
	make_locks(locks, join_stacks(locks->stacks, count));
	return NULL;
}

/* --- comments ------------------------------------------------------------------------------ */

/* `before` and then a number; moves behind them. */
static bool take_number(const char **text, const char *before, double *number)
{
	size_t length = strlen(before);
	char *end;

	if (strncmp(*text, before, length) != 0 || (*text)[length] < '0' || (*text)[length] > '9')
		return false;
	*number = (double)strtoull(*text + length, &end, 10);
	*text = end;
	return true;
}

/* A name may hold anything: it ends where the numbers begin last. */
static bool parse_told(const char *text, struct cprof_lock *lock)
{
	const char *end = NULL;

	if (strncmp(text, TOLD_START, strlen(TOLD_START)) != 0)
		return false;
	text += strlen(TOLD_START);
	for (const char *next = text; (next = strstr(next, TOLD_MIDDLE)); next++)
		end = next;
	if (!end)
		return false;
	*lock = (struct cprof_lock){.name = text, .length = (size_t)(end - text), .told = true};
	text = end;
	if (!take_number(&text, TOLD_MIDDLE, &lock->contentions) ||
	    !take_number(&text, ", delay ", &lock->delay_ns) ||
	    !take_number(&text, " ns, longest ", &lock->longest_ns) || strncmp(text, " ns", 3) != 0)
		return false;
	text += 3;
	if (!strncmp(text, ", waiters ", 10))
		lock->waiters = text + 10;
	return true;
}

bool cprof_lock_next_waiter(const char **text, struct cprof_lock_waiter *waiter)
{
	while (**text) {
		const char *start = *text;
		const char *end = strstr(start, "%; ");
		const char *space;

		if (!end && strchr(start, '%'))
			end = strrchr(start, '%');
		if (!end)
			return false; /* cut off */
		*text = end + (end[1] ? strspn(end, "%; ") : 1);
		space = memrchr(start, ' ', (size_t)(end - start));
		if (!space || space == start || space[1] < '0' || space[1] > '9')
			continue;
		*waiter = (struct cprof_lock_waiter){.name = start,
						     .length = (size_t)(space - start),
						     .percent = (double)atoi(space + 1)};
		return true;
	}
	return false;
}

static int by_name(const void *a, const void *b)
{
	const struct cprof_lock *x = a, *y = b;
	int order;

	if (!x->name || !y->name)
		return (x->name != NULL) - (y->name != NULL);
	order = memcmp(x->name, y->name, CPROF_MIN(x->length, y->length));
	if (order)
		return order;
	if (x->length != y->length)
		return x->length < y->length ? -1 : 1;
	return x->told - y->told;
}

static bool is_same(const struct cprof_lock *a, const struct cprof_lock *b)
{
	return a->name && b->name && a->length == b->length && !memcmp(a->name, b->name, a->length);
}

/* Several locks may have one name. What is told is the whole lock's. */
static void add_told(struct cprof_lock *lock, const struct cprof_lock *told)
{
	if (!lock->told) {
		lock->told = true;
		lock->delay_ns = lock->contentions = lock->longest_ns = 0;
	}
	if (!lock->waiters || told->delay_ns > lock->delay_ns)
		lock->waiters = told->waiters ? told->waiters : lock->waiters;
	lock->delay_ns += told->delay_ns;
	lock->contentions += told->contentions;
	lock->longest_ns = CPROF_MAX(lock->longest_ns, told->longest_ns);
}

static void read_comments(struct cprof_locks *locks, bool difference)
{
	const struct cprof_profile *profile = locks->profile;
	size_t kept = 0;

	for (size_t i = 0; i < profile->comment_count; i++) {
		const char *text = profile->strings[profile->comments[i]];

		if (!difference)
			locks->count += parse_told(text, &locks->locks[locks->count]);
		locks->sides_known |= !strcmp(text, CPROF_CONTENTION_OF_WAITERS);
		locks->are_waiters |= !strcmp(text, CPROF_CONTENTION_OF_WAITERS);
	}
	if (locks->count)
		qsort(locks->locks, locks->count, sizeof(*locks->locks), by_name);
	for (size_t i = 0; i < locks->count; i++) {
		struct cprof_lock *lock = &locks->locks[i];

		locks->sides_known |= lock->told;
		if (lock->told && kept && is_same(&locks->locks[kept - 1], lock))
			add_told(&locks->locks[kept - 1], lock);
		else
			locks->locks[kept++] = *lock;
	}
	locks->count = kept;
}

/* A block profile tells what is waited for, and has the stacks that wait. */
static void find_sides(struct cprof_locks *locks)
{
	const struct cprof_profile *profile = locks->profile;

	for (size_t i = 0; i < profile->label_item_count && !locks->are_waiters; i++)
		if (!strcmp(profile->strings[profile->label_items[i].key], "wait"))
			locks->are_waiters = locks->sides_known = true;
}

/* --- choosing ------------------------------------------------------------------------------ */

static int by_delay(const void *a, const void *b)
{
	const struct cprof_lock *x = a, *y = b;

	if (x->delay_ns != y->delay_ns)
		return x->delay_ns < y->delay_ns ? 1 : -1;
	return by_name(a, b);
}

static int by_contentions(const void *a, const void *b)
{
	const struct cprof_lock *x = a, *y = b;

	if (x->contentions != y->contentions)
		return x->contentions < y->contentions ? 1 : -1;
	return by_delay(a, b);
}

static struct cprof_error *keep_matching(struct cprof_locks *locks, const char *option,
					 const char *pattern, bool wanted)
{
	size_t kept = 0;
	regex_t regex;

	if (!pattern || !*pattern)
		return NULL;
	CPROF_TRY(cprof_select_compile(option, pattern, &regex));
	for (size_t i = 0; i < locks->count; i++) {
		const struct cprof_lock *lock = &locks->locks[i];
		CPROF_AUTO_FREE char *name =
			strndup(lock->name ? lock->name : "-", lock->name ? lock->length : 1);

		if (name && !regexec(&regex, name, 0, NULL, 0) == wanted)
			locks->locks[kept++] = *lock;
	}
	regfree(&regex);
	locks->count = kept;
	return NULL;
}

static struct cprof_error *choose(struct cprof_locks *locks,
				  const struct cprof_report_options *options,
				  const struct values *values)
{
	size_t type = values->delay;
	size_t limit = SIZE_MAX;

	if (options->sample_index)
		CPROF_TRY(cprof_select_type(locks->profile, options->sample_index, &type));
	locks->out_of = locks->count;
	for (size_t i = 0; i < locks->count; i++) {
		locks->delay_ns += locks->locks[i].delay_ns;
		locks->contentions += locks->locks[i].contentions;
	}
	CPROF_TRY(keep_matching(locks, "--focus", options->focus, true));
	CPROF_TRY(keep_matching(locks, "--ignore", options->ignore, false));
	if (locks->count)
		qsort(locks->locks, locks->count, sizeof(*locks->locks),
		      type == values->contentions ? by_contentions : by_delay);
	if (options->count >= 0)
		limit = options->count ? (size_t)options->count : COUNT_DEFAULT;
	locks->count = CPROF_MIN(locks->count, limit);
	return NULL;
}

struct cprof_error *cprof_locks_init(struct cprof_locks *locks, const struct cprof_profile *profile,
				     const struct cprof_report_options *options)
{
	struct values values = {0};

	*locks = (struct cprof_locks){.profile = profile};
	CPROF_TRY(find_values(profile, &values));
	CPROF_TRY(sum_up(locks, &values));
	read_comments(locks, options->difference);
	find_sides(locks);
	return choose(locks, options, &values);
}

void cprof_locks_deinit(struct cprof_locks *locks)
{
	free(locks->locks);
	free(locks->stacks);
}
