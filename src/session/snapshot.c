/* SPDX-License-Identifier: MIT
 *
 * Snapshots: names what is not named yet, without holding up the collector, then copies.
 */
#include "private.h"

#include <cprof/util.h>
#include <stdlib.h>
#include <string.h>

struct unnamed {          /* a location to name */
	uint32_t mapping; /* index into the session's mappings */
	uint32_t location;
	uint64_t address; /* in the module's image */
};

/* --- what to name -------------------------------------------------------------------------- */

static int compare_unnamed(const void *a, const void *b)
{
	const struct unnamed *x = a;
	const struct unnamed *y = b;

	if (x->mapping != y->mapping)
		return x->mapping < y->mapping ? -1 : 1;
	return (x->address > y->address) - (x->address < y->address);
}

/* Sorted by mapping and address. Under the lock. */
static bool list_unnamed(const struct cprof_session *session, struct unnamed **list, size_t *count)
{
	const struct cprof_profile *profile = session->profile;
	CPROF_AUTO_FREE uint32_t *by_id =
		calloc(profile->mapping_count + 1, sizeof(*by_id)); /* index + 1 */
	size_t capacity = 0;

	if (!by_id)
		return false;
	for (size_t i = 0; i < session->mapping_count; i++)
		if (session->mappings[i].module && session->mappings[i].id < profile->mapping_count)
			by_id[session->mappings[i].id] = (uint32_t)i + 1;
	for (size_t i = 1; i < profile->location_count; i++) {
		const struct cprof_profile_location *location = &profile->locations[i];
		uint32_t index = by_id[location->mapping];

		if (location->named || !location->mapping || !index)
			continue;
		if (!cprof_grow(list, &capacity, *count + 1, sizeof(**list)))
			return false;
		(*list)[(*count)++] = (struct unnamed){
			.mapping = index - 1,
			.location = (uint32_t)i,
			.address = location->address - session->mappings[index - 1].bias,
		};
	}
	if (*count)
		qsort(*list, *count, sizeof(**list), compare_unnamed);
	return true;
}

/* --- naming -------------------------------------------------------------------------------- */

#define LINES_MAX 64

/* Under the lock. */
static void set_lines(struct cprof_session *session, uint32_t location,
		      const struct cprof_names *names, size_t which)
{
	struct cprof_profile *profile = session->profile;
	struct cprof_profile_line lines[LINES_MAX];
	size_t count = 0;

	for (uint32_t i = names->first[which]; i < names->first[which + 1] && count < LINES_MAX;
	     i++) {
		const struct cprof_name *name = &names->names[i];
		struct cprof_profile_function function = {
			.name = cprof_profile_string(profile, names->strings + name->name),
			.system_name =
				cprof_profile_string(profile, names->strings + name->system_name),
			.file = cprof_profile_string(profile, names->strings + name->file),
			.start_line = name->start_line,
		};

		lines[count].function = cprof_profile_function(profile, &function);
		lines[count++].line = name->line;
	}
	cprof_profile_set_lines(profile, location, lines, count);
}

static unsigned name_flags(const struct cprof_session *session)
{
	return (session->config.no_inlines ? CPROF_NAMES_NO_INLINES : 0u) |
	       (session->config.no_lines ? CPROF_NAMES_NO_LINES : 0u);
}

/* Names a run of locations of one module; takes the lock only to store the answer. */
static struct cprof_error *name_run(struct cprof_session *session, struct cprof_module *module,
				    const struct unnamed *run, size_t count)
{
	CPROF_AUTO_FREE uint64_t *addresses = malloc(count * sizeof(*addresses));
	bool jit = cprof_module_kind(module) == CPROF_MODULE_JIT;
	struct cprof_names names;

	if (!addresses)
		return cprof_error_nomem();
	for (size_t i = 0; i < count; i++)
		addresses[i] = run[i].address;
	CPROF_TRY(cprof_module_names(module, addresses, count, name_flags(session), &names));
	pthread_mutex_lock(&session->lock);
	for (size_t i = 0; i < count; i++)
		/* A JIT may write its map later: ask again at the next snapshot. */
		if (!jit || names.first[i + 1] > names.first[i])
			set_lines(session, run[i].location, &names, i);
	pthread_mutex_unlock(&session->lock);
	cprof_names_deinit(&names);
	return NULL;
}

static struct cprof_error *name_locations(struct cprof_session *session)
{
	CPROF_AUTO_FREE struct unnamed *list = NULL;
	size_t count = 0;
	size_t end;
	bool listed;

	pthread_mutex_lock(&session->lock);
	listed = list_unnamed(session, &list, &count);
	pthread_mutex_unlock(&session->lock);
	if (!listed)
		return cprof_error_nomem();
	for (size_t at = 0; at < count; at = end) {
		struct cprof_module *module;

		for (end = at; end < count && list[end].mapping == list[at].mapping; end++)
			continue;
		pthread_mutex_lock(&session->lock);
		module = session->mappings[list[at].mapping].module;
		pthread_mutex_unlock(&session->lock);
		CPROF_TRY(name_run(session, module, list + at, end - at));
	}
	return NULL;
}

/* What was found out about each mapping. Under the lock. */
static void set_mapping_flags(struct cprof_session *session)
{
	for (size_t i = 0; i < session->mapping_count; i++) {
		const struct cprof_session_mapping *mapping = &session->mappings[i];
		struct cprof_profile_mapping *entry = &session->profile->mappings[mapping->id];
		struct cprof_module_facts facts;

		if (!mapping->module || !mapping->id)
			continue;
		cprof_module_facts(mapping->module, &facts);
		entry->has_functions = facts.has_symbols;
		entry->has_filenames = facts.has_lines;
		entry->has_line_numbers = facts.has_lines;
		entry->has_inline_frames = facts.has_inlines;
		if (session->kernel_mapping == i + 1)
			session->stats.kernel_unnamed = !facts.has_symbols;
	}
}

/* --- the copy ------------------------------------------------------------------------------ */

static void add_marker(struct cprof_profile *profile, const char *name, int64_t samples,
		       int64_t weight)
{
	uint32_t location = cprof_profile_marker(profile, name);
	int64_t values[2] = {samples, weight};

	cprof_profile_add(profile, cprof_profile_stack(profile, &location, 1), 0, values);
}

/* What was lost has a weight too; so has CPU time that the events counted but never sampled. */
static void add_loss(struct cprof_session *session, const struct cprof_session_stats *stats,
		     struct cprof_profile *profile)
{
	uint64_t period = stats->perf.period;
	uint64_t seen = (stats->samples + stats->lost) * period;

	if (session->config.threads)
		return; /* nobody knows whose it was */
	if (stats->lost)
		add_marker(profile, "[lost samples]", (int64_t)stats->lost,
			   (int64_t)(stats->lost * period));
	if (session->config.no_kernel) /* what is in the kernel is counted, but not wanted */
		return;
	if (stats->perf.counted > seen + 2 * period &&
	    stats->perf.counted - seen > stats->perf.counted / 100) {
		add_marker(profile, "[not sampled]", 0, (int64_t)(stats->perf.counted - seen));
		pthread_mutex_lock(&session->lock);
		session->stats.unseen_ns = stats->perf.counted - seen;
		pthread_mutex_unlock(&session->lock);
	}
}

struct cprof_error *cprof_session_snapshot(struct cprof_session *session,
					   struct cprof_profile **result)
{
	struct cprof_session_stats stats;
	uint64_t before = cprof_now_ns();
	struct cprof_error *error = name_locations(session);

	if (error)
		return error;
	pthread_mutex_lock(&session->lock);
	session->stats.symbolize_ns += cprof_now_ns() - before;
	set_mapping_flags(session);
	error = cprof_profile_check(session->profile);
	if (!error)
		error = cprof_profile_clone(session->profile, result);
	pthread_mutex_unlock(&session->lock);
	if (error)
		return error;
	cprof_session_stats(session, &stats);
	(*result)->duration_ns = (int64_t)stats.duration_ns;
	add_loss(session, &stats, *result);
	return cprof_profile_check(*result);
}
