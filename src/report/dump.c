/* SPDX-License-Identifier: MIT
 *
 * A thread dump as text: totals, groups of threads with their stack, deadlocks.
 */
#include "dump.h"
#include "private.h"

#include <cprof/util.h>
#include <inttypes.h>
#include <string.h>

#define NAMES_SHOWN 8 /* of a group */

struct view {
	const struct cprof_dump *dump;
	const struct cprof_dump_entry *entries; /* dump->count of them */
	bool color;
	FILE *out;
};

static void put_colored(const struct view *view, const char *code, const char *text)
{
	if (view->color)
		fprintf(view->out, "\033[%sm%s\033[m", code, text);
	else
		fputs(text, view->out);
}

/* --- head ---------------------------------------------------------------------------------- */

/* What a thread waits for in one word; one that waits for nothing need not be running. */
static const char *word_of(const struct cprof_dump_thread *thread)
{
	if (thread->wait.kind != CPROF_WAIT_NONE)
		return cprof_wait_name(thread->wait.kind);
	if (!thread->held)
		return "not stopped";
	switch (thread->state) {
	case 'R':
		return "running";
	case 'T':
	case 't':
		return "stopped";
	default:
		return "none";
	}
}

struct total {
	const char *word;
	size_t count;
};

static int by_count(const void *a, const void *b)
{
	const struct total *left = a, *right = b;

	if (left->count != right->count)
		return left->count > right->count ? -1 : 1;
	return strcmp(left->word, right->word);
}

static void put_totals(const struct view *view)
{
	struct total totals[CPROF_WAITS + 4]; /* and the words beside the kinds' names */
	size_t used = 0;

	for (size_t i = 0; i < view->dump->count; i++) {
		const char *word = word_of(&view->dump->threads[i]);
		size_t j = 0;

		while (j < used && strcmp(totals[j].word, word) != 0)
			j++;
		if (j == used)
			totals[used++] = (struct total){.word = word};
		totals[j].count++;
	}
	qsort(totals, used, sizeof(*totals), by_count);
	for (size_t i = 0; i < used; i++)
		fprintf(view->out, "%s%s %zu", i ? ", " : "", totals[i].word, totals[i].count);
	if (used)
		putc('\n', view->out);
}

static void put_head(const struct view *view)
{
	const struct cprof_dump *dump = view->dump;

	fprintf(view->out, "Process %d: ", (int)dump->pid);
	cprof_put_clean(view->out, dump->cmdline ? dump->cmdline : dump->comm);
	if (dump->dumping_core)
		fputs("\ncrashed, its core dump is being written", view->out);
	else
		fprintf(view->out, "\nstopped for %.1f ms", (double)dump->stopped_ns / 1e6);
	fprintf(view->out, ", %zu thread%s", dump->count, dump->count == 1 ? "" : "s");
	if (dump->late)
		fprintf(view->out, ", %zu seen later", dump->late);
	if (dump->unstoppable)
		fprintf(view->out, ", %zu could not be stopped", dump->unstoppable);
	putc('\n', view->out);
	put_totals(view);
}

/* --- threads ------------------------------------------------------------------------------- */

static void put_thread(const struct view *view, const struct cprof_dump_thread *thread)
{
	putc('"', view->out);
	cprof_put_clean(view->out, thread->name);
	fprintf(view->out, "\" %d", (int)thread->tid);
}

/* By name, if it is there. */
static void put_owner(const struct view *view, pid_t tid)
{
	const struct cprof_dump_thread *owner = cprof_dump_find(view->dump, tid);

	if (owner)
		put_thread(view, owner);
	else
		fprintf(view->out, "%d", (int)tid);
}

/* `mutex 0x4040 (lock in service)`: what it is, without who has it. */
static void put_object(const struct view *view, const struct cprof_wait *wait)
{
	fputs(cprof_wait_name(wait->kind), view->out);
	if (wait->address)
		fprintf(view->out, " 0x%" PRIx64, wait->address);
	if (wait->detail) {
		fputs(wait->address ? " (" : " ", view->out);
		cprof_put_clean(view->out, wait->detail);
		fputs(wait->address ? ")" : "", view->out);
	}
}

static void put_holder(const struct view *view, const struct cprof_dump_thread *thread)
{
	const struct cprof_wait *wait = &thread->wait;

	if (!wait->owner)
		return;
	if (wait->kind == CPROF_WAIT_JOIN) {
		fputs(" of ", view->out);
		put_owner(view, wait->owner);
		return;
	}
	fputs(", held by ", view->out);
	if (wait->owner == thread->tid)
		fputs("itself", view->out);
	else
		put_owner(view, wait->owner);
	if (wait->owner_gone)
		fputs(", which has exited", view->out);
}

static bool same_text(const char *a, const char *b)
{
	return a == b || (a && b && strcmp(a, b) == 0);
}

static bool same_wait(const struct cprof_wait *a, const struct cprof_wait *b)
{
	return a->kind == b->kind && a->address == b->address && a->owner == b->owner &&
	       a->owner_gone == b->owner_gone && same_text(a->detail, b->detail);
}

/* The longest and the shortest time left; times that differ are a range. */
static void put_left(const struct view *view, const struct cprof_dump_entry *entries)
{
	int64_t least = INT64_MAX, most = -1;

	for (size_t i = 0; i < entries->group; i++) {
		int64_t left = entries[i].thread->wait.left_ns;

		if (left < 0)
			return;
		least = CPROF_MIN(least, left);
		most = CPROF_MAX(most, left);
	}
	if (most / 100000000 == least / 100000000)
		fprintf(view->out, ", %.1f s left", (double)most / 1e9);
	else
		fprintf(view->out, ", %.1f to %.1f s left", (double)least / 1e9,
			(double)most / 1e9);
}

/* What a group waits for: in full if it is the same thing, otherwise its kind alone. */
static void put_wait(const struct view *view, const struct cprof_dump_entry *entries)
{
	const struct cprof_dump_thread *first = entries->thread;
	bool same = true;

	if (first->wait.kind == CPROF_WAIT_NONE) {
		fputs(word_of(first), view->out);
		return;
	}
	for (size_t i = 1; i < entries->group && same; i++)
		same = same_wait(&first->wait, &entries[i].thread->wait);
	if (same) {
		put_object(view, &first->wait);
		put_holder(view, first);
	} else {
		fputs(cprof_wait_name(first->wait.kind), view->out);
	}
	put_left(view, entries);
	if (!first->held)
		fputs(", not stopped", view->out);
}

static void put_frame(const struct view *view, const struct cprof_dump_frame *frame)
{
	if (frame->function)
		cprof_put_clean(view->out, frame->function);
	else
		fprintf(view->out, "0x%" PRIx64, frame->pc);
	if (frame->function && !frame->inlined)
		fprintf(view->out, "+0x%" PRIx64, frame->offset);
	if (frame->file) {
		putc(' ', view->out);
		cprof_put_clean(view->out, cprof_base_name(frame->file));
		if (frame->line)
			fprintf(view->out, ":%" PRIu32, frame->line);
	}
	if (frame->module && *frame->module) {
		fputs(" (", view->out);
		cprof_put_clean(view->out, cprof_base_name(frame->module));
		putc(')', view->out);
	}
	fputs(frame->inlined ? " [inlined]\n" : "\n", view->out);
}

static void put_group(const struct view *view, const struct cprof_dump_entry *entries)
{
	const struct cprof_dump_thread *thread = entries->thread;
	size_t shown = entries->group > NAMES_SHOWN + 1 ? NAMES_SHOWN : entries->group;
	char text[64];

	snprintf(text, sizeof(text), "%zu thread%s", entries->group,
		 entries->group == 1 ? "" : "s");
	putc('\n', view->out);
	put_colored(view, "1", text);
	fprintf(view->out, " [%c, ",
		thread->state >= ' ' && thread->state <= '~' ? thread->state : '?');
	put_wait(view, entries);
	if (entries->still) {
		snprintf(text, sizeof(text), "not moved for %.1f s", (double)entries->still / 1e9);
		fputs(", ", view->out);
		put_colored(view, "33", text);
	}
	if (thread->late)
		fputs(", seen later", view->out);
	fputs("]:", view->out);
	for (size_t i = 0; i < shown; i++) {
		fputs(i ? ", " : " ", view->out);
		put_thread(view, entries[i].thread);
	}
	if (shown < entries->group)
		fprintf(view->out, ", and %zu more", entries->group - shown);
	putc('\n', view->out);
	for (size_t i = 0; i < thread->frame_count; i++) {
		fprintf(view->out, "    #%zu ", i);
		put_frame(view, &thread->frames[i]);
	}
	if (thread->held && thread->end != CPROF_END_COMPLETE)
		fprintf(view->out, "    %s\n", cprof_end_marker(thread->end));
}

/* --- deadlocks ----------------------------------------------------------------------------- */

static bool has_prefix(const char *text, const char *prefix)
{
	return strncmp(text, prefix, strlen(prefix)) == 0;
}

/* Whether a frame only carries out the waiting: the C library's, or a wrapper around it. */
static bool is_plumbing(const struct cprof_dump_frame *frame)
{
	static const char *const modules[] = {"libc.so", "libc-",     "libpthread",
					      "ld-musl", "libstdc++", "libc++"};
	static const char *const functions[] = {"lll_",     "futex_",    "GI_",
						"pthread_", "gthread_",  "syscall",
						"std::",    "timedlock", "gthrw_"};
	const char *module = frame->module ? cprof_base_name(frame->module) : "";
	const char *function = frame->function ? frame->function : "";

	function += strspn(function, "_");
	for (size_t i = 0; i < CPROF_COUNT(modules); i++)
		if (has_prefix(module, modules[i]))
			return true;
	for (size_t i = 0; i < CPROF_COUNT(functions); i++)
		if (has_prefix(function, functions[i]))
			return true;
	return false;
}

static void put_waiting_frame(const struct view *view, const struct cprof_dump_thread *thread)
{
	size_t i = 0;

	while (i < thread->frame_count && is_plumbing(&thread->frames[i]))
		i++;
	if (i == thread->frame_count)
		i = 0;
	if (!thread->frame_count)
		return;
	fprintf(view->out, "        #%zu ", i);
	put_frame(view, &thread->frames[i]);
}

static void put_link(const struct view *view, pid_t tid)
{
	const struct cprof_dump_thread *thread = cprof_dump_find(view->dump, tid);

	fputs("    ", view->out);
	if (!thread) { /* left out by --thread */
		fprintf(view->out, "%d\n", (int)tid);
		return;
	}
	put_thread(view, thread);
	fputs(" waits for ", view->out);
	put_object(view, &thread->wait);
	put_holder(view, thread);
	putc('\n', view->out);
	put_waiting_frame(view, thread);
}

static void put_cycle(const struct view *view, const struct cprof_deadlock *deadlock)
{
	putc('\n', view->out);
	put_colored(view, "1;31", "Deadlock:");
	if (deadlock->count == 1)
		fputs(" a thread waits for what it has itself\n", view->out);
	else
		fprintf(view->out, " %zu threads wait for one another\n", deadlock->count);
	for (size_t i = 0; i < deadlock->count; i++)
		put_link(view, deadlock->tids[i]);
}

/* A lock whose owner has exited will never be released. */
static bool is_orphaned(const struct cprof_dump_thread *thread)
{
	return thread->wait.owner_gone && thread->wait.address &&
	       (thread->wait.kind == CPROF_WAIT_MUTEX || thread->wait.kind == CPROF_WAIT_RWLOCK);
}

static int by_address(const void *a, const void *b)
{
	const struct cprof_dump_thread *left = *(const struct cprof_dump_thread *const *)a;
	const struct cprof_dump_thread *right = *(const struct cprof_dump_thread *const *)b;

	if (left->wait.address != right->wait.address)
		return left->wait.address < right->wait.address ? -1 : 1;
	return left->tid < right->tid ? -1 : left->tid > right->tid;
}

/* Threads that wait for one such lock, `count` of them. */
static void put_orphaned(const struct view *view, const struct cprof_dump_thread *const *threads,
			 size_t count)
{
	size_t shown = count > NAMES_SHOWN + 1 ? NAMES_SHOWN : count;

	putc('\n', view->out);
	put_colored(view, "1;31", "Deadlock:");
	fprintf(view->out, " %zu thread%s for a lock whose owner, %d, has exited\n", count,
		count == 1 ? " waits" : "s wait", (int)threads[0]->wait.owner);
	for (size_t i = 0; i < shown; i++)
		put_link(view, threads[i]->tid);
	if (shown < count)
		fprintf(view->out, "    and %zu more\n", count - shown);
}

static struct cprof_error *put_all_orphaned(const struct view *view)
{
	const struct cprof_dump *dump = view->dump;
	CPROF_AUTO_FREE const struct cprof_dump_thread **threads =
		calloc(dump->count + 1, sizeof(*threads));
	size_t count = 0, end;

	if (!threads)
		return cprof_error_nomem();
	for (size_t i = 0; i < dump->count; i++)
		if (is_orphaned(&dump->threads[i]))
			threads[count++] = &dump->threads[i];
	qsort(threads, count, sizeof(const struct cprof_dump_thread *), by_address);
	for (size_t first = 0; first < count; first = end) {
		for (end = first + 1; end < count; end++)
			if (threads[end]->wait.address != threads[first]->wait.address)
				break;
		put_orphaned(view, threads + first, end - first);
	}
	return NULL;
}

struct cprof_error *cprof_report_dump(const struct cprof_dump *dump,
				      const struct cprof_report_dump_options *options, FILE *out)
{
	CPROF_AUTO_FREE struct cprof_dump_entry *entries = NULL;
	struct view view = {.dump = dump, .color = options->color, .out = out};

	CPROF_TRY(cprof_dump_entries(dump, options->earlier, options->all, &entries));
	view.entries = entries;
	put_head(&view);
	for (size_t i = 0; i < dump->count; i += entries[i].group)
		put_group(&view, &entries[i]);
	for (size_t i = 0; i < dump->deadlock_count; i++)
		put_cycle(&view, &dump->deadlocks[i]);
	CPROF_TRY(put_all_orphaned(&view));
	return cprof_report_flush(out);
}
