/* SPDX-License-Identifier: MIT
 *
 * Threads: as the source lists them, as the labels of a profile name them, and their stacks.
 */
#include "model.h"

#include <cprof/threads.h>
#include <cprof/util.h>
#include <inttypes.h>
#include <string.h>

#define STACKS_SHOWN 20 /* of a thread in a saved profile */

/* --- by labels ----------------------------------------------------------------------------- */

struct label_thread {
	const char *name;
	const char *wait;
	int64_t tid;
};

static bool read_labels(const struct cprof_profile *profile, uint32_t labels,
			struct label_thread *thread)
{
	const struct cprof_profile_span *set = &profile->label_sets[labels];
	bool found = false;

	*thread = (struct label_thread){"", "", 0};
	for (uint32_t i = 0; i < set->count; i++) {
		const struct cprof_profile_label *label = &profile->label_items[set->first + i];
		const char *key = profile->strings[label->key];

		if (!strcmp(key, "tid") && !label->text) {
			thread->tid = label->number;
			found = true;
		} else if (!strcmp(key, "thread") && label->text) {
			thread->name = profile->strings[label->text];
			found = true;
		} else if (!strcmp(key, "wait") && label->text) {
			thread->wait = profile->strings[label->text];
		}
	}
	return found;
}

/* Threads found so far, by tid or else by name. */
struct collecting {
	struct cprof_view_thread *threads;
	int64_t *largest; /* of each: of one sample */
	uint32_t *slots;  /* plus one */
	size_t slot_count;
	size_t count;
};

static struct cprof_view_thread *find_thread(struct collecting *collecting,
					     const struct label_thread *label)
{
	char name[CPROF_NAME_MAX];
	size_t at;

	cprof_text_clean(label->name, strlen(label->name), name, sizeof(name));
	at = label->tid ? cprof_hash_u64((uint64_t)label->tid)
			: cprof_hash_bytes(name, strlen(name));
	for (;; at++) {
		uint32_t id = collecting->slots[at &= collecting->slot_count - 1];
		struct cprof_view_thread *thread = &collecting->threads[id - (id != 0)];

		if (id && thread->tid == label->tid && (label->tid || !strcmp(thread->name, name)))
			return thread;
		if (id)
			continue;
		collecting->slots[at] = (uint32_t)collecting->count + 1;
		thread = &collecting->threads[collecting->count++];
		thread->tid = label->tid;
		thread->cpu = -1;
		thread->cpu_ns = UINT64_MAX;
		memcpy(thread->name, name, sizeof(name));
		return thread;
	}
}

static void name_top(const struct cprof_profile *profile, uint32_t stack_id, char *top, size_t size)
{
	const struct cprof_profile_span *stack = &profile->stacks[stack_id];
	const struct cprof_profile_location *location;
	const char *name = "";

	if (stack->count) {
		location = &profile->locations[profile->stack_items[stack->first]];
		if (location->line_count)
			name = profile->strings
				       [profile->functions[profile->lines[location->first_line]
								   .function]
						.name];
	}
	cprof_text_clean(name, strlen(name), top, size);
}

static int by_value(const void *a, const void *b)
{
	const struct cprof_view_thread *x = a, *y = b;

	if (llabs(x->value) != llabs(y->value))
		return llabs(x->value) > llabs(y->value) ? -1 : 1;
	if (x->tid != y->tid)
		return x->tid < y->tid ? -1 : 1;
	return strcmp(x->name, y->name);
}

struct cprof_error *cprof_model_label_threads(struct cprof_model *model,
					      const struct cprof_profile *profile, size_t type)
{
	struct collecting collecting = {.slot_count = 64};
	CPROF_AUTO_FREE uint32_t *slots = NULL;
	CPROF_AUTO_FREE int64_t *largest = NULL;

	while (collecting.slot_count < 2 * profile->label_set_count)
		collecting.slot_count *= 2;
	slots = collecting.slots = calloc(collecting.slot_count, sizeof(*slots));
	largest = collecting.largest = calloc(profile->label_set_count + 1, sizeof(*largest));
	collecting.threads = calloc(profile->label_set_count + 1, sizeof(*collecting.threads));
	free(model->threads);
	model->threads = collecting.threads;
	model->thread_count = 0;
	if (!slots || !largest || !model->threads)
		return cprof_error_nomem();
	for (size_t i = 0; i < profile->sample_count; i++) {
		int64_t value = profile->values[i * profile->type_count + type];
		struct label_thread label;
		struct cprof_view_thread *thread;

		if (!read_labels(profile, profile->samples[i].labels, &label))
			continue;
		thread = find_thread(&collecting, &label);
		if (__builtin_add_overflow(thread->value, value, &thread->value))
			thread->value = INT64_MAX;
		if (llabs(value) <= largest[thread - collecting.threads])
			continue;
		largest[thread - collecting.threads] = llabs(value);
		name_top(profile, profile->samples[i].stack, thread->top, sizeof(thread->top));
		snprintf(thread->wait, sizeof(thread->wait), "%s", label.wait);
	}
	model->thread_count = collecting.count;
	qsort(model->threads, model->thread_count, sizeof(*model->threads), by_value);
	return NULL;
}

/* --- live ---------------------------------------------------------------------------------- */

struct cprof_error *cprof_model_live_threads(struct cprof_model *model,
					     const struct cprof_source_threads *threads)
{
	model->threads = calloc(threads->count + 1, sizeof(*model->threads));
	if (!model->threads)
		return cprof_error_nomem();
	model->thread_count = threads->count;
	for (size_t i = 0; i < threads->count; i++) {
		const struct cprof_source_thread *from = &threads->threads[i];
		struct cprof_view_thread *to = &model->threads[i];

		*to = (struct cprof_view_thread){
			.tid = from->tid,
			.state = from->state,
			.cpu = from->cpu,
			.cpu_ns = from->cpu_ns,
		};
		memcpy(to->name, from->name, sizeof(to->name));
		memcpy(to->wait, from->wait, sizeof(to->wait));
		memcpy(to->detail, from->wait_detail, sizeof(to->detail));
		memcpy(to->top, from->top, sizeof(to->top));
	}
	memcpy(model->deadlock, threads->deadlock, sizeof(model->deadlock));
	return NULL;
}

/* --- stacks -------------------------------------------------------------------------------- */

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash && slash[1] ? slash + 1 : path;
}

static bool put_frame(struct cprof_model *model, size_t number,
		      const struct cprof_dump_frame *frame)
{
	char place[512] = "";
	char offset[32] = "";
	char pc[32];

	if (frame->file)
		snprintf(place, sizeof(place), frame->line ? "  %s:%u" : "  %s",
			 base_name(frame->file), frame->line);
	if (frame->function && frame->offset && !frame->inlined)
		snprintf(offset, sizeof(offset), "+0x%" PRIx64, frame->offset);
	snprintf(pc, sizeof(pc), "0x%" PRIx64, frame->pc);
	return cprof_model_line(model, frame->inlined ? CPROF_STYLE_DIM : CPROF_STYLE_NORMAL,
				"#%-3zu %s%s%s%s%s%s%s", number,
				frame->function ? frame->function : pc, offset, place,
				*frame->module ? "  (" : "", base_name(frame->module),
				*frame->module ? ")" : "", frame->inlined ? " inlined" : "");
}

static const char *end_text(enum cprof_end end)
{
	switch (end) {
	case CPROF_END_COMPLETE:
		return NULL;
	case CPROF_END_TRUNCATED:
		return "the stack goes on: it was cut here";
	case CPROF_END_NO_CFI:
		return "the stack goes on: nothing says how to unwind this code";
	default:
		return "the stack goes on: what is there makes no sense";
	}
}

struct cprof_error *cprof_model_live_stack(struct cprof_model *model, const struct cprof_dump *dump,
					   const struct cprof_want *want)
{
	const struct cprof_dump_thread *thread = NULL;
	const struct cprof_wait *wait;
	bool fine;

	for (size_t i = 0; dump && i < dump->count; i++)
		if (dump->threads[i].tid == want->stack_tid)
			thread = &dump->threads[i];
	if (!thread)
		return cprof_error_create(CPROF_FAILED, NULL, "thread %lld has ended",
					  (long long)want->stack_tid);
	wait = &thread->wait;
	fine = cprof_model_line(model, CPROF_STYLE_TITLE, "thread %d \"%s\" [%c]%s%s%s%s",
				(int)thread->tid, thread->name, thread->state ? thread->state : '?',
				wait->kind == CPROF_WAIT_NONE ? "" : ", waits: ",
				wait->kind == CPROF_WAIT_NONE ? "" : cprof_wait_name(wait->kind),
				wait->detail ? " " : "", wait->detail ? wait->detail : "");
	if (wait->owner)
		fine &= cprof_model_line(model, CPROF_STYLE_WARN, "     held by thread %d%s",
					 (int)wait->owner,
					 wait->owner_gone ? ", which is gone" : "");
	if (!thread->held)
		fine &= cprof_model_line(model, CPROF_STYLE_WARN,
					 "     it could not be stopped: no stack");
	for (size_t i = 0; i < thread->frame_count && fine; i++)
		fine = put_frame(model, i, &thread->frames[i]);
	if (thread->held && end_text(thread->end))
		fine &= cprof_model_line(model, CPROF_STYLE_WARN, "     %s", end_text(thread->end));
	return fine ? NULL : cprof_error_nomem();
}

struct stack_value {
	int64_t value;
	uint32_t stack;
	const char *wait;
};

static int by_stack_value(const void *a, const void *b)
{
	const struct stack_value *x = a, *y = b;

	if (llabs(x->value) != llabs(y->value))
		return llabs(x->value) > llabs(y->value) ? -1 : 1;
	return (x->stack > y->stack) - (x->stack < y->stack);
}

static bool put_saved_stack(struct cprof_model *model, const struct stack_value *entry)
{
	const struct cprof_profile *profile = model->profile;
	const struct cprof_profile_span *stack = &profile->stacks[entry->stack];
	char text[CPROF_ANALYSIS_TEXT], percent[32];
	size_t number = 0;
	bool fine;

	cprof_analysis_value(entry->value, model->unit, model->output_unit, text);
	cprof_analysis_percent(entry->value, model->whole, percent);
	fine = cprof_model_line(model, CPROF_STYLE_TITLE, "%s  %s%s%s", text,
				percent + strspn(percent, " "), *entry->wait ? "  waits: " : "",
				entry->wait);
	for (uint32_t i = 0; i < stack->count && fine; i++) {
		const struct cprof_profile_location *location =
			&profile->locations[profile->stack_items[stack->first + i]];
		const char *module =
			base_name(profile->strings[profile->mappings[location->mapping].file]);

		if (!location->line_count)
			fine = cprof_model_line(model, CPROF_STYLE_NORMAL,
						"  #%-3zu 0x%" PRIx64 "  (%s)", number++,
						location->address, module);
		for (uint32_t j = 0; j < location->line_count && fine; j++) {
			const struct cprof_profile_line *line =
				&profile->lines[location->first_line + j];
			const struct cprof_profile_function *function =
				&profile->functions[line->function];
			bool inlined = j + 1 < location->line_count;

			fine = cprof_model_line(model,
						inlined ? CPROF_STYLE_DIM : CPROF_STYLE_NORMAL,
						"  #%-3zu %s  %s:%" PRId64 "%s%s%s%s", number++,
						profile->strings[function->name],
						base_name(profile->strings[function->file]),
						line->line, *module ? "  (" : "", module,
						*module ? ")" : "", inlined ? " inlined" : "");
		}
	}
	return fine && cprof_model_line(model, CPROF_STYLE_NORMAL, "%s", "");
}

struct cprof_error *cprof_model_saved_stack(struct cprof_model *model,
					    const struct cprof_want *want)
{
	const struct cprof_profile *profile = model->profile;
	CPROF_AUTO_FREE struct stack_value *entries =
		calloc(profile->sample_count + 1, sizeof(*entries));
	size_t count = 0;

	if (!entries)
		return cprof_error_nomem();
	for (size_t i = 0; i < profile->sample_count; i++) {
		int64_t value = profile->values[i * profile->type_count + model->type];
		char name[CPROF_NAME_MAX];
		struct label_thread label;

		if (!value || !read_labels(profile, profile->samples[i].labels, &label))
			continue;
		cprof_text_clean(label.name, strlen(label.name), name, sizeof(name));
		if (want->stack_tid ? label.tid == want->stack_tid
				    : !strcmp(name, want->stack_thread))
			entries[count++] =
				(struct stack_value){value, profile->samples[i].stack, label.wait};
	}
	qsort(entries, count, sizeof(*entries), by_stack_value);
	for (size_t i = 0; i < count && i < STACKS_SHOWN; i++)
		if (!put_saved_stack(model, &entries[i]))
			return cprof_error_nomem();
	if (count > STACKS_SHOWN &&
	    !cprof_model_line(model, CPROF_STYLE_DIM, "%zu smaller stacks are not shown",
			      count - STACKS_SHOWN))
		return cprof_error_nomem();
	return NULL;
}
