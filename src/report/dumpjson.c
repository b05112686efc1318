/* SPDX-License-Identifier: MIT
 *
 * A thread dump as one JSON object.
 */
#include "dump.h"
#include "private.h"

#include <cprof/util.h>
#include <inttypes.h>
#include <jansson.h>

/* Valid UTF-8 whatever the text is (NULL: ""); NULL without memory. */
static json_t *text_of(const char *text)
{
	CPROF_AUTO_FREE char *clean = cprof_text_clean_dup(text ? text : "");

	return clean ? json_string(clean) : NULL;
}

static json_t *address_of(uint64_t address)
{
	return json_sprintf("0x%" PRIx64, address);
}

static json_t *number_of(uint64_t value)
{
	return json_integer((json_int_t)CPROF_MIN(value, (uint64_t)INT64_MAX));
}

/* Takes `object` and `value` over; NULL if either is, or without memory. */
static json_t *with(json_t *object, const char *key, json_t *value)
{
	if (object && value && !json_object_set_new(object, key, value))
		return object;
	if (!object)
		json_decref(value);
	json_decref(object);
	return NULL;
}

/* The same for an array. */
static json_t *appended(json_t *array, json_t *value)
{
	if (array && value && !json_array_append_new(array, value))
		return array;
	if (!array)
		json_decref(value);
	json_decref(array);
	return NULL;
}

/* Each returns NULL without memory. */
static json_t *wait_of(const struct cprof_wait *wait)
{
	json_t *object =
		json_pack("{s:s, s:o, s:o}", "kind", cprof_wait_name(wait->kind), "address",
			  address_of(wait->address), "detail", text_of(wait->detail));

	if (wait->owner) {
		object = with(object, "owner_tid", json_integer(wait->owner));
		object = with(object, "owner_gone", json_boolean(wait->owner_gone));
	}
	if (wait->left_ns >= 0)
		object = with(object, "left_ns", json_integer(wait->left_ns));
	return object;
}

static json_t *frame_of(const struct cprof_dump_frame *frame)
{
	return json_pack("{s:o, s:o, s:o, s:o, s:o, s:I, s:b}", "pc", address_of(frame->pc),
			 "function", text_of(frame->function), "offset", number_of(frame->offset),
			 "module", text_of(frame->module), "file", text_of(frame->file), "line",
			 (json_int_t)frame->line, "inlined", frame->inlined);
}

static json_t *frames_of(const struct cprof_dump_thread *thread)
{
	json_t *frames = json_array();

	for (size_t i = 0; i < thread->frame_count; i++)
		frames = appended(frames, frame_of(&thread->frames[i]));
	return frames;
}

static json_t *thread_of(const struct cprof_dump_entry *entry)
{
	const struct cprof_dump_thread *thread = entry->thread;
	char state[2] = {thread->state >= ' ' && thread->state <= '~' ? thread->state : '?', '\0'};
	bool complete = thread->held && thread->end == CPROF_END_COMPLETE;
	json_t *object =
		json_pack("{s:i, s:o, s:s, s:o, s:b, s:b, s:o}", "tid", (int)thread->tid, "name",
			  text_of(thread->name), "state", state, "wait", wait_of(&thread->wait),
			  "held", thread->held, "complete", complete, "frames", frames_of(thread));

	if (thread->held)
		object = with(object, "end", json_string(cprof_end_name(thread->end)));
	if (thread->late)
		object = with(object, "late", json_true());
	if (entry->still)
		object = with(object, "not_moved_ns", number_of(entry->still));
	return object;
}

static json_t *deadlocks_of(const struct cprof_dump *dump)
{
	json_t *deadlocks = json_array();

	for (size_t i = 0; i < dump->deadlock_count; i++) {
		const struct cprof_deadlock *deadlock = &dump->deadlocks[i];
		json_t *tids = json_array();

		for (size_t j = 0; j < deadlock->count; j++)
			tids = appended(tids, json_integer(deadlock->tids[j]));
		deadlocks = appended(deadlocks, tids);
	}
	return deadlocks;
}

/* Takes `value` over. */
static struct cprof_error *put(FILE *out, json_t *value)
{
	int failed;

	if (!value)
		return cprof_error_nomem();
	failed = json_dumpf(value, out, JSON_COMPACT | JSON_ENCODE_ANY);
	json_decref(value);
	return failed && !ferror(out) ? cprof_error_nomem() : NULL;
}

/* One thread at a time, as in cprof_report_json(). */
struct cprof_error *cprof_report_dump_json(const struct cprof_dump *dump,
					   const struct cprof_dump *earlier, FILE *out)
{
	CPROF_AUTO_FREE struct cprof_dump_entry *entries = NULL;

	CPROF_TRY(cprof_dump_entries(dump, earlier, true, &entries));
	fprintf(out, "{\"pid\":%d,\"comm\":", (int)dump->pid);
	CPROF_TRY(put(out, text_of(dump->comm)));
	fprintf(out, ",\"taken_unix_ns\":%" PRIu64 ",\"stopped_ns\":%" PRIu64 "%s,\"threads\":[",
		dump->taken_ns, dump->stopped_ns,
		dump->dumping_core ? ",\"dumping_core\":true" : "");
	for (size_t i = 0; i < dump->count; i++) {
		fputs(i ? ",\n" : "\n", out);
		CPROF_TRY(put(out, thread_of(&entries[i])));
	}
	fputs("\n],\"deadlocks\":", out);
	CPROF_TRY(put(out, deadlocks_of(dump)));
	fputs("}\n", out);
	return cprof_report_flush(out);
}
