/* SPDX-License-Identifier: MIT
 *
 * A dump from start to end: stop and copy (attach floor), stacks, waits, deadlocks.
 */
#include "private.h"

#include <cprof/image.h>
#include <cprof/space.h>
#include <cprof/util.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

const char *cprof_wait_name(enum cprof_wait_kind kind)
{
	static const char *const names[CPROF_WAITS] = {
		"none",  "runq", "mutex", "rwlock", "cond",   "sem",   "join",
		"sleep", "poll", "file",  "pipe",   "socket", "futex",
	};

	return names[kind];
}

/* --- which threads ------------------------------------------------------------------------- */

static struct cprof_error *choose(const struct cprof_target *target, const char *const *filter,
				  pid_t **tids, size_t *count)
{
	size_t kept = 0;

	CPROF_TRY(cprof_target_threads(target, tids, count));
	for (size_t i = 0; i < *count; i++) {
		char name[64];

		if (cprof_target_thread_name(target, (*tids)[i], name, sizeof(name)) &&
		    cprof_thread_matches(filter, (*tids)[i], name))
			(*tids)[kept++] = (*tids)[i];
	}
	*count = kept;
	if (!kept)
		return cprof_error_create(CPROF_FAILED, NULL,
					  "pid %d: no thread of that id or name",
					  (int)cprof_target_info(target)->pid);
	return NULL;
}

static struct cprof_error *take_snapshot(const struct cprof_target *target,
					 const char *const *filter,
					 struct cprof_snapshot **snapshot)
{
	struct cprof_snapshot_options options = {0};
	CPROF_AUTO_FREE pid_t *tids = NULL;

	if (filter && *filter) {
		CPROF_TRY(choose(target, filter, &tids, &options.tid_count));
		options.tids = tids;
	}
	return cprof_snapshot_take(target, &options, snapshot);
}

/* --- taking -------------------------------------------------------------------------------- */

static void fill_thread(const struct cprof_target *target, const struct cprof_snapshot_thread *from,
			struct cprof_dump_thread *to)
{
	to->tid = from->tid;
	to->state = from->state;
	to->held = from->held;
	to->late = from->late;
	to->end = from->held ? CPROF_END_COMPLETE : CPROF_END_TRUNCATED;
	to->wait.left_ns = -1;
	cprof_target_thread_name(target, from->tid, to->name, sizeof(to->name)); /* "" once gone */
}

static struct cprof_error *fill_head(struct cprof_target *target,
				     const struct cprof_snapshot *snapshot, struct cprof_dump *dump)
{
	const struct cprof_target_info *info = cprof_target_info(target);

	dump->pid = info->pid;
	memcpy(dump->comm, info->comm, sizeof(dump->comm));
	dump->cmdline = cprof_keep_clean(dump->memory, info->cmdline);
	dump->taken_ns = snapshot->taken_ns;
	dump->stopped_ns = snapshot->stopped_ns;
	dump->stops = snapshot->stops;
	dump->unstoppable = snapshot->unstoppable;
	dump->late = snapshot->late;
	dump->dumping_core = snapshot->dumping_core;
	dump->threads =
		cprof_keep_take(dump->memory, (snapshot->count + 1) * sizeof(*dump->threads));
	if (!dump->threads || !dump->cmdline)
		return cprof_error_nomem();
	dump->count = snapshot->count;
	for (size_t i = 0; i < snapshot->count; i++)
		fill_thread(target, &snapshot->threads[i], &dump->threads[i]);
	return NULL;
}

static struct cprof_error *fill_waits(struct cprof_space *space,
				      const struct cprof_snapshot *snapshot,
				      struct cprof_dump *dump)
{
	struct cprof_look look = {
		.target = cprof_space_target(space),
		.space = space,
		.snapshot = snapshot,
		.dump = dump,
		.keep = dump->memory,
		.fds = {.target = cprof_space_target(space)},
	};
	struct cprof_error *error = cprof_areas_init(look.target, snapshot, &look.areas);

	for (size_t i = 0; i < dump->count && !error; i++)
		cprof_wait_classify(&look, i);
	if (!error)
		error = cprof_deadlock_find(&look);
	for (size_t i = 0; i < dump->count; i++)
		dump->waiting[dump->threads[i].wait.kind]++;
	cprof_areas_deinit(&look.areas);
	cprof_fds_deinit(&look.fds);
	free(look.tids);
	return error;
}

/* Opening libc's debug file takes longer than all the rest (its sections are unpacked): that is
 * done while the threads are being stopped. */
struct preparation {
	struct cprof_module *modules[2];
	size_t count;
	pthread_t thread;
	bool started;
};

static void *prepare(void *context)
{
	const struct preparation *preparation = context;

	for (size_t i = 0; i < preparation->count; i++) {
		struct cprof_names names;
		struct cprof_error *error =
			cprof_module_names(preparation->modules[i], NULL, 0, 0, &names);

		if (!error)
			cprof_names_deinit(&names);
		cprof_error_destroy(error);
	}
	return NULL;
}

static struct cprof_error *take(struct cprof_space *space, const struct cprof_dump_options *options,
				struct cprof_dump *dump)
{
	struct cprof_target *target = cprof_space_target(space);
	struct preparation preparation = {.count = 0};
	struct cprof_snapshot *snapshot = NULL;
	struct cprof_error *error;

	CPROF_TRY(cprof_space_refresh(space));
	preparation.count = cprof_space_usual(space, preparation.modules);
	cprof_image_hold_back();
	preparation.started = pthread_create(&preparation.thread, NULL, prepare, &preparation) == 0;
	error = take_snapshot(target, options->threads, &snapshot);
	cprof_image_go_on();
	if (preparation.started)
		pthread_join(preparation.thread, NULL);
	if (!error)
		error = fill_head(target, snapshot, dump);
	if (!error)
		error = cprof_stacks_fill(space, options, snapshot, dump);
	if (!error)
		error = fill_waits(space, snapshot, dump);
	cprof_snapshot_destroy(snapshot);
	return error;
}

static struct cprof_error *fill(struct cprof_target *target,
				const struct cprof_dump_options *options, struct cprof_dump *dump)
{
	const struct cprof_modules_options module_options = {.debug_dir = options->debug_dir};
	struct cprof_modules *modules;
	struct cprof_space *space = NULL;
	struct cprof_error *error;

	CPROF_TRY(cprof_modules_create(&module_options, &modules));
	error = cprof_space_create(target, modules, &space);
	if (!error)
		error = take(space, options, dump);
	cprof_space_destroy(space);
	cprof_modules_destroy(modules);
	return error;
}

struct cprof_error *cprof_dump_take(struct cprof_target *target,
				    const struct cprof_dump_options *options,
				    struct cprof_dump **result)
{
	struct cprof_dump *dump = calloc(1, sizeof(*dump));
	struct cprof_error *error;

	if (!dump || !(dump->memory = calloc(1, sizeof(struct cprof_keep)))) {
		free(dump);
		return cprof_error_nomem();
	}
	error = fill(target, options, dump);
	if (error) {
		cprof_dump_destroy(dump);
		return error;
	}
	*result = dump;
	return NULL;
}

void cprof_dump_destroy(struct cprof_dump *dump)
{
	if (!dump)
		return;
	cprof_keep_deinit(dump->memory);
	free(dump->memory);
	free(dump);
}
