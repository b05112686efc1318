/* SPDX-License-Identifier: MIT
 *
 * The list of threads: what changed since the list before, what each waits for, who is deadlocked.
 */
#include "list.h"

#include <cprof/unwind.h>
#include <cprof/util.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>

#define AREAS_NS 5000000000ull

struct cprof_error *cprof_thread_list_create(struct cprof_target *target,
					     const struct cprof_thread_list_options *options,
					     struct cprof_thread_list **result)
{
	const struct cprof_modules_options modules = {.debug_dir = options->debug_dir};
	struct cprof_thread_list *list = calloc(1, sizeof(*list));
	struct cprof_error *error;

	*result = NULL;
	if (!list)
		return cprof_error_nomem();
	list->options = *options;
	list->target = target;
	error = cprof_modules_create(&modules, &list->modules);
	if (!error)
		error = cprof_space_create(target, list->modules, &list->space);
	if (!error)
		error = cprof_unwinder_cfi.create(list->space, &list->unwinder);
	if (error) {
		cprof_thread_list_destroy(list);
		return error;
	}
	*result = list;
	return NULL;
}

void cprof_thread_list_destroy(struct cprof_thread_list *list)
{
	if (!list)
		return;
	cprof_list_forget_names(list);
	if (list->areas_ns)
		cprof_areas_deinit(&list->areas);
	if (list->unwinder)
		list->unwinder->ops->destroy(list->unwinder);
	cprof_space_destroy(list->space);
	cprof_modules_destroy(list->modules);
	free(list->threads);
	free(list);
}

/* --- procfs -------------------------------------------------------------------------------- */

/* Reads task/TID/NAME; its length, terminated, -1 once it is gone. */
static ssize_t read_task(const struct cprof_thread_list *list, pid_t tid, const char *name,
			 char *text, size_t size)
{
	CPROF_AUTO_CLOSE int fd = -1;
	char path[48];
	ssize_t got;

	snprintf(path, sizeof(path), "task/%d/%s", (int)tid, name);
	fd = openat(cprof_target_procfd(list->target), path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	got = read(fd, text, size - 1);
	text[CPROF_MAX(got, 0)] = '\0';
	return got;
}

/* Name, state and, where there is no schedstat, CPU time. */
static void read_stat(const struct cprof_thread_list *list, struct cprof_list_thread *thread)
{
	char text[1024];
	const char *open;
	const char *close;
	unsigned long long user, system;

	thread->state = '\0';
	if (read_task(list, thread->tid, "stat", text, sizeof(text)) <= 0)
		return;
	open = strchr(text, '(');
	close = strrchr(text, ')');
	if (!open || !close || close < open)
		return;
	cprof_text_clean(open + 1, (size_t)(close - open - 1), thread->name, sizeof(thread->name));
	if (sscanf(close + 1, " %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu",
		   &thread->state, &user, &system) == 3 &&
	    !thread->slices)
		thread->run_ns =
			(user + system) *
			(1000000000ull / (unsigned long)CPROF_MAX(sysconf(_SC_CLK_TCK), 1l));
}

static void read_call(const struct cprof_thread_list *list, struct cprof_list_thread *thread)
{
	struct cprof_snapshot_thread *call = &thread->call;
	unsigned long long arguments[6], sp, pc;
	char text[256];
	long number;

	*call = (struct cprof_snapshot_thread){
		.tid = thread->tid, .state = thread->state, .syscall = -1};
	thread->in_call = false;
	if (thread->state == 'R' ||
	    read_task(list, thread->tid, "syscall", text, sizeof(text)) <= 0)
		return;
	if (sscanf(text, "%ld %llx %llx %llx %llx %llx %llx %llx %llx", &number, &arguments[0],
		   &arguments[1], &arguments[2], &arguments[3], &arguments[4], &arguments[5], &sp,
		   &pc) != 9 ||
	    number < 0)
		return;
	thread->in_call = true;
	call->held = true;
	call->syscall = number;
	for (size_t i = 0; i < CPROF_COUNT(arguments); i++)
		call->arguments[i] = arguments[i];
	call->regs.value[CPROF_REG_SP] = sp;
	call->regs.value[CPROF_REG_PC] = pc;
	call->regs.known = 1u << CPROF_REG_SP | 1u << CPROF_REG_PC;
}

/* False: it has gone. */
static bool read_thread(const struct cprof_thread_list *list, struct cprof_list_thread *thread)
{
	uint64_t run_before = thread->run_ns;
	uint64_t slices_before = thread->slices;
	uint64_t read_before = thread->read_ns;
	unsigned long long run = 0;
	unsigned long long slices = 0;
	char text[128];

	if (read_task(list, thread->tid, "schedstat", text, sizeof(text)) > 0)
		sscanf(text, "%llu %*u %llu", &run, &slices);
	thread->read_ns = cprof_now_ns();
	thread->run_ns = run;
	thread->slices = slices;
	/* A sleeper wakes by getting a CPU, which is counted. */
	thread->changed = !thread->seen || !slices || slices != slices_before ||
			  run != run_before || thread->state == 'R';
	if (thread->changed) {
		read_stat(list, thread);
		if (!thread->state)
			return false;
		read_call(list, thread);
		thread->frame_count = 0;
	}
	thread->cpu = -1;
	if (thread->seen && thread->run_ns >= run_before && thread->read_ns > read_before)
		thread->cpu = (double)(thread->run_ns - run_before) /
			      (double)(thread->read_ns - read_before);
	thread->seen = true;
	return true;
}

/* Takes the threads there are, with what is known of those that were there before. */
static struct cprof_error *read_threads(struct cprof_thread_list *list)
{
	CPROF_AUTO_FREE pid_t *tids = NULL;
	struct cprof_list_thread *threads;
	size_t count = 0;
	size_t old = 0;
	size_t kept = 0;

	CPROF_TRY(cprof_target_threads(list->target, &tids, &count));
	threads = calloc(count + 1, sizeof(*threads));
	if (!threads)
		return cprof_error_nomem();
	for (size_t i = 0; i < count; i++) {
		struct cprof_list_thread *thread = &threads[kept];

		while (old < list->count && list->threads[old].tid < tids[i])
			old++;
		if (old < list->count && list->threads[old].tid == tids[i])
			*thread = list->threads[old];
		else
			*thread = (struct cprof_list_thread){.tid = tids[i]};
		kept += read_thread(list, thread);
	}
	free(list->threads);
	list->threads = threads;
	list->count = kept;
	return NULL;
}

/* --- what they wait for -------------------------------------------------------------------- */

static bool is_futex(const struct cprof_list_thread *thread)
{
	return thread->in_call &&
	       (thread->call.syscall == SYS_futex || thread->call.syscall == SYS_restart_syscall);
}

/* Who has a lock can change while its waiters sleep. */
static bool must_look(const struct cprof_list_thread *thread)
{
	enum cprof_wait_kind kind = thread->wait.kind;

	return thread->changed || kind == CPROF_WAIT_MUTEX || kind == CPROF_WAIT_RWLOCK ||
	       kind == CPROF_WAIT_JOIN;
}

/* Threads as a dump has them: the snapshot's and the dump's. */
struct view {
	struct cprof_snapshot snapshot;
	struct cprof_dump dump;
	struct cprof_keep keep;
	struct cprof_look look;
};

static void view_deinit(struct view *view)
{
	free(view->snapshot.threads);
	free(view->dump.threads);
	cprof_fds_deinit(&view->look.fds);
	free(view->look.tids);
	cprof_keep_deinit(&view->keep);
}

static struct cprof_error *view_init(struct cprof_thread_list *list, struct view *view)
{
	view->snapshot.threads = calloc(list->count + 1, sizeof(*view->snapshot.threads));
	view->dump.threads = calloc(list->count + 1, sizeof(*view->dump.threads));
	if (!view->snapshot.threads || !view->dump.threads)
		return cprof_error_nomem();
	view->snapshot.count = view->dump.count = list->count;
	view->snapshot.taken_ns = cprof_wall_ns();
	for (size_t i = 0; i < list->count; i++) {
		struct cprof_list_thread *thread = &list->threads[i];
		struct cprof_dump_thread *dumped = &view->dump.threads[i];

		if (is_futex(thread) && !thread->frame_count)
			cprof_list_frames(list, thread);
		view->snapshot.threads[i] = thread->call;
		view->snapshot.threads[i].tid = thread->tid;
		dumped->tid = thread->tid;
		dumped->state = thread->state;
		dumped->held = thread->in_call;
		dumped->frames = thread->frames;
		dumped->frame_count = thread->frame_count;
		dumped->wait = thread->wait;
		dumped->wait.detail = NULL;
	}
	view->look = (struct cprof_look){
		.target = list->target,
		.space = list->space,
		.snapshot = &view->snapshot,
		.dump = &view->dump,
		.keep = &view->keep,
		.areas = list->areas,
		.fds = {.target = list->target},
	};
	return NULL;
}

/* The map is long where threads are many: it is not read each time. */
static struct cprof_error *refresh_areas(struct cprof_thread_list *list)
{
	uint64_t now = cprof_now_ns();
	struct cprof_snapshot snapshot = {.count = 0};
	struct cprof_error *error;
	struct cprof_areas areas;
	bool wanted = false;

	for (size_t i = 0; i < list->count && !wanted; i++)
		wanted = is_futex(&list->threads[i]) && list->threads[i].changed;
	if (!wanted || (list->areas_ns && now < list->areas_ns + AREAS_NS))
		return NULL;
	snapshot.threads = calloc(list->count + 1, sizeof(*snapshot.threads));
	if (!snapshot.threads)
		return cprof_error_nomem();
	snapshot.count = list->count;
	for (size_t i = 0; i < list->count; i++)
		snapshot.threads[i] = list->threads[i].call;
	error = cprof_areas_init(list->target, &snapshot, &areas);
	free(snapshot.threads);
	CPROF_TRY(error);
	if (list->areas_ns)
		cprof_areas_deinit(&list->areas);
	list->areas = areas;
	list->areas_ns = now;
	return NULL;
}

static void keep_waits(struct cprof_thread_list *list, const struct view *view)
{
	for (size_t i = 0; i < list->count; i++) {
		struct cprof_list_thread *thread = &list->threads[i];
		const struct cprof_wait *wait = &view->dump.threads[i].wait;

		if (must_look(thread))
			snprintf(thread->detail, sizeof(thread->detail), "%s",
				 wait->detail ? wait->detail : "");
		thread->wait = *wait;
		thread->wait.detail = NULL;
	}
}

/* --- telling ------------------------------------------------------------------------------- */

static const char *name_in(const struct cprof_thread_list *list, pid_t tid)
{
	size_t low = 0;
	size_t high = list->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (list->threads[middle].tid < tid)
			low = middle + 1;
		else
			high = middle;
	}
	return low < list->count && list->threads[low].tid == tid ? list->threads[low].name : "";
}

static void tell_wait(const struct cprof_thread_list *list, const struct cprof_list_thread *thread,
		      struct cprof_source_thread *told)
{
	const struct cprof_wait *wait = &thread->wait;
	char text[128 + sizeof(thread->detail)];
	char owner[128] = "";
	int length;

	if (thread->state != 'R' && !thread->in_call)
		return; /* not permitted, or not in a system call */
	snprintf(told->wait, sizeof(told->wait), "%s", cprof_wait_name(wait->kind));
	if (wait->owner) {
		const char *verb = wait->kind == CPROF_WAIT_JOIN ? "for" : "held by";
		const char *name = name_in(list, wait->owner);

		snprintf(owner, sizeof(owner), "%s %s%s%s%d%s", verb, *name ? "\"" : "", name,
			 *name ? "\" " : "", (int)wait->owner,
			 wait->owner_gone ? ", which has ended" : "");
	}
	snprintf(owner + strlen(owner), sizeof(owner) - strlen(owner), "%s",
		 owner[0] && thread->detail[0] ? ", " : "");
	/* A cut must not split a character. */
	length = snprintf(text, sizeof(text), "%s%s", owner, thread->detail);

	cprof_text_clean(text, (size_t)CPROF_MAX(length, 0), told->wait_detail,
			 sizeof(told->wait_detail));
}

static void tell_top(const struct cprof_thread_list *list, const struct cprof_list_thread *thread,
		     struct cprof_source_thread *told)
{
	const char *call = thread->in_call ? cprof_list_call_name(thread->call.syscall) : NULL;

	if (call)
		snprintf(told->top, sizeof(told->top), "%s", call);
	else if (thread->in_call)
		snprintf(told->top, sizeof(told->top), "system call %lld",
			 (long long)thread->call.syscall);
	else if (list->options.top)
		list->options.top(list->options.context, thread->tid, told->top, sizeof(told->top));
}

static void tell_deadlocks(const struct cprof_dump *dump, char *text, size_t size)
{
	const struct cprof_deadlock *first = dump->deadlocks;
	size_t length;

	if (!dump->deadlock_count)
		return;
	if (first->count == 1) {
		snprintf(text, size, "thread %d waits for what it has itself", (int)first->tids[0]);
		return;
	}
	length = (size_t)snprintf(text, size, "%zu threads wait for one another: ", first->count);
	for (size_t i = 0; i <= first->count && length + 16 < size; i++)
		length += (size_t)snprintf(text + length, size - length, "%s%d", i ? " -> " : "",
					   (int)first->tids[i % first->count]);
	if (dump->deadlock_count > 1 && length < size)
		snprintf(text + length, size - length, "; and %zu more", dump->deadlock_count - 1);
}

static struct cprof_error *tell(const struct cprof_thread_list *list, const struct view *view,
				struct cprof_source_threads **result)
{
	struct cprof_source_threads *told = calloc(1, sizeof(*told));

	if (told)
		told->threads = calloc(list->count + 1, sizeof(*told->threads));
	if (!told || !told->threads) {
		free(told);
		return cprof_error_nomem();
	}
	told->count = list->count;
	for (size_t i = 0; i < list->count; i++) {
		const struct cprof_list_thread *thread = &list->threads[i];
		struct cprof_source_thread *to = &told->threads[i];

		to->tid = thread->tid;
		memcpy(to->name, thread->name, sizeof(to->name));
		to->state = thread->state;
		to->cpu = thread->cpu;
		to->cpu_ns = thread->run_ns;
		tell_wait(list, thread, to);
		tell_top(list, thread, to);
	}
	tell_deadlocks(&view->dump, told->deadlock, sizeof(told->deadlock));
	*result = told;
	return NULL;
}

struct cprof_error *cprof_thread_list_read(struct cprof_thread_list *list,
					   struct cprof_source_threads **result)
{
	CPROF_CLEANUP(view_deinit) struct view view = {.look = {.tids = NULL}};
	struct cprof_error *error;

	*result = NULL;
	CPROF_TRY(cprof_list_refresh(list));
	CPROF_TRY(read_threads(list));
	CPROF_TRY(refresh_areas(list));
	CPROF_TRY(view_init(list, &view));
	for (size_t i = 0; i < list->count; i++)
		if (must_look(&list->threads[i]))
			cprof_wait_classify(&view.look, i);
	error = cprof_deadlock_find(&view.look);
	list->areas = view.look.areas; /* with what was described */
	CPROF_TRY(error);
	keep_waits(list, &view);
	return tell(list, &view, result);
}
