/* SPDX-License-Identifier: MIT
 *
 * The list of threads of a live session: what runs is told by its last sample.
 */
#include "live.h"

#include <cprof/util.h>
#include <inttypes.h>
#include <string.h>

/* The innermost function of a stack, or where it is. Under the lock. */
static void tell_leaf(const struct cprof_profile *profile, uint32_t stack, char *text, size_t size)
{
	const struct cprof_profile_span *span = &profile->stacks[stack];
	const struct cprof_profile_location *location;
	const char *name;

	if (!span->count)
		return;
	location = &profile->locations[profile->stack_items[span->first]];
	if (!location->line_count) {
		snprintf(text, size, "0x%" PRIx64, location->address);
		return;
	}
	name = profile->strings[profile->functions[profile->lines[location->first_line].function]
					.name];
	cprof_text_clean(name, strlen(name), text, size);
}

static void last_function(void *context, pid_t tid, char *text, size_t size)
{
	struct cprof_session *session = context;
	uint32_t stack;

	pthread_mutex_lock(&session->lock);
	stack = session->builder ? cprof_session_last_stack(session, tid) : 0;
	if (stack)
		tell_leaf(cprof_builder_profile(session->builder), stack, text, size);
	pthread_mutex_unlock(&session->lock);
}

struct cprof_error *cprof_live_threads(struct cprof_source *source,
				       struct cprof_source_threads **threads)
{
	struct cprof_session *session = (struct cprof_session *)source;
	const struct cprof_thread_list_options options = {
		.debug_dir = session->config.debug_dir,
		.top = last_function,
		.context = session,
	};

	*threads = NULL;
	if (!session->live->threads)
		CPROF_TRY(cprof_thread_list_create(session->dump_target, &options,
						   &session->live->threads));
	return cprof_thread_list_read(session->live->threads, threads);
}
