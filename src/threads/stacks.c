/* SPDX-License-Identifier: MIT
 *
 * From registers and stacks to named frames. A code address is named once, however many threads are
 * there, and equal stacks share their frames.
 */
#include "private.h"

#include <cprof/space.h>
#include <cprof/util.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define UNWIND_FRAMES (1u << 20) /* room for one stack, before it is cut to CPROF_FRAMES_DUMP */
#define TOTAL_FRAMES  (1u << 21) /* kept of all stacks: beyond, stacks are cut shorter */
#define TOTAL_STEPS   (1u << 24) /* unwound of all stacks: beyond, CPROF_FRAMES_SAMPLE each */
#define FRAMES_LEAST  64
#define PAGE          4096u
#define PAGES         64u /* cached, a power of 2 */

/* --- memory that is on no captured stack --------------------------------------------------- */

struct reader {
	const struct cprof_target *target;
	struct {
		uint64_t page;
		size_t length;
		uint8_t bytes[PAGE];
	} pages[PAGES];
};

static bool read_memory(void *context, uint64_t address, void *buffer, size_t length)
{
	struct reader *reader = context;
	uint8_t *to = buffer;

	while (length) {
		uint64_t page = address / PAGE;
		size_t offset = address % PAGE;
		size_t part = CPROF_MIN(length, PAGE - offset);
		unsigned slot = page % PAGES;

		if (reader->pages[slot].page != page + 1) {
			reader->pages[slot].length = cprof_target_read(
				reader->target, page * PAGE, reader->pages[slot].bytes, PAGE);
			reader->pages[slot].page = page + 1;
		}
		if (offset + part > reader->pages[slot].length)
			return false;
		memcpy(to, reader->pages[slot].bytes + offset, part);
		to += part;
		address += part;
		length -= part;
	}
	return true;
}

/* --- places and stacks --------------------------------------------------------------------- */

struct batch { /* names of one module's places */
	struct cprof_names names;
	const char *texts; /* its strings, in the dump's memory */
};

struct place { /* an address in code, and whether it is a return address */
	uint64_t pc;
	uint64_t address; /* to look up, in the module's image */
	uint64_t bias;
	struct cprof_module *module; /* NULL: none */
	const char *module_path;
	const struct batch *batch; /* NULL: not named */
	uint32_t which;            /* in it */
	bool exact;
};

struct stack { /* places of a distinct stack, innermost first */
	uint64_t hash;
	uint32_t first; /* in `items` */
	uint32_t count;
	uint32_t inner;   /* of them, before what was left out */
	uint64_t omitted; /* left out */
	struct cprof_dump_frame *frames;
	size_t frame_count;
};

struct table { /* open addressing: index + 1, 0 free */
	uint32_t *slots;
	size_t size; /* power of 2 */
};

struct making {
	struct cprof_dump *dump;
	struct cprof_keep *keep;
	struct cprof_frame *frames; /* UNWIND_FRAMES of room */
	uint64_t steps;
	struct place *places;
	size_t place_count;
	size_t place_capacity;
	struct table place_table;
	struct stack *stacks;
	size_t stack_count;
	size_t stack_capacity;
	struct table stack_table;
	uint32_t *items;
	size_t item_count;
	size_t item_capacity;
	uint32_t *stack_of; /* by thread: index + 1, 0 none */
	struct batch *batches;
	size_t batch_count;
	const char *path; /* the module path copied last, */
	const char *path_copy;
};

static uint64_t place_hash(const struct place *place)
{
	return cprof_hash_u64(place->pc * 2 + place->exact);
}

/* Doubles a table when it is half full; `hash_of` gives the hash of an entry. */
static bool table_room(struct table *table, size_t count, const struct making *making,
		       uint64_t (*hash_of)(const struct making *, size_t))
{
	size_t size = table->size ? table->size * 2 : 1024;
	uint32_t *slots;

	if (count * 2 < table->size)
		return true;
	slots = calloc(size, sizeof(*slots));
	if (!slots)
		return false;
	for (size_t i = 0; i < count; i++) {
		size_t at = hash_of(making, i) & (size - 1);

		while (slots[at])
			at = (at + 1) & (size - 1);
		slots[at] = (uint32_t)i + 1;
	}
	free(table->slots);
	table->slots = slots;
	table->size = size;
	return true;
}

static uint64_t hash_of_place(const struct making *making, size_t index)
{
	return place_hash(&making->places[index]);
}

static uint64_t hash_of_stack(const struct making *making, size_t index)
{
	return making->stacks[index].hash;
}

/* The module's path in the dump's memory; NULL without memory. */
static const char *keep_path(struct making *making, const struct cprof_region *region)
{
	struct cprof_module_facts facts = {.path = region->path};
	char *copy;

	if (!region->path[0] && region->module)
		cprof_module_facts(region->module, &facts);
	if (facts.path == making->path)
		return making->path_copy;
	copy = cprof_keep_take(making->keep, strlen(facts.path) + 1);
	if (!copy)
		return NULL;
	making->path = facts.path;
	making->path_copy = strcpy(copy, facts.path);
	return copy;
}

/* Index of the frame's place; UINT32_MAX without memory. */
static uint32_t get_place(struct making *making, const struct cprof_frame *frame)
{
	struct place place = {.pc = frame->pc, .exact = frame->exact, .module_path = ""};
	const struct table *table = &making->place_table;
	size_t at;

	if (!table_room(&making->place_table, making->place_count, making, hash_of_place) ||
	    !cprof_grow(&making->places, &making->place_capacity, making->place_count + 1,
			sizeof(place)))
		return UINT32_MAX;
	for (at = place_hash(&place) & (table->size - 1); table->slots[at];
	     at = (at + 1) & (table->size - 1)) {
		const struct place *other = &making->places[table->slots[at] - 1];

		if (other->pc == place.pc && other->exact == place.exact)
			return table->slots[at] - 1;
	}
	if (frame->region) {
		place.module = frame->region->bound ? frame->region->module : NULL;
		place.bias = frame->region->bias;
		place.module_path = keep_path(making, frame->region);
		place.address = cprof_frame_lookup_pc(frame) - place.bias;
		if (!place.module_path)
			return UINT32_MAX;
	}
	making->places[making->place_count] = place;
	table->slots[at] = (uint32_t)++making->place_count;
	return (uint32_t)making->place_count - 1;
}

/* How many frames of the next stack may be kept. */
static size_t frame_limit(const struct making *making)
{
	size_t left = TOTAL_FRAMES - CPROF_MIN(TOTAL_FRAMES, making->item_count);

	return CPROF_MAX(FRAMES_LEAST, CPROF_MIN(CPROF_FRAMES_DUMP, left / 4));
}

/* Puts the frames at the end of `items`; cut: the innermost and the outermost half stay. */
static bool add_items(struct making *making, const struct cprof_stack *frames, struct stack *stack)
{
	size_t limit = frame_limit(making);
	size_t keep = CPROF_MIN(frames->count, limit);

	if (!cprof_grow(&making->items, &making->item_capacity, making->item_count + keep,
			sizeof(*making->items)))
		return false;
	*stack = (struct stack){
		.first = (uint32_t)making->item_count,
		.count = (uint32_t)keep,
		.inner = (uint32_t)(keep < frames->count ? keep / 2 : keep),
		.omitted = frames->count - keep,
	};
	for (size_t i = 0; i < keep; i++) {
		size_t from = i < stack->inner ? i : i + (size_t)stack->omitted;
		uint32_t place = get_place(making, &frames->frames[from]);

		if (place == UINT32_MAX)
			return false;
		making->items[stack->first + i] = place;
		stack->hash = cprof_hash_u64(stack->hash ^ ((uint64_t)place + 1));
	}
	stack->hash ^= cprof_hash_u64(stack->omitted);
	making->item_count += keep;
	return true;
}

static bool same_stack(const struct making *making, const struct stack *a, const struct stack *b)
{
	return a->hash == b->hash && a->count == b->count && a->omitted == b->omitted &&
	       memcmp(making->items + a->first, making->items + b->first,
		      a->count * sizeof(*making->items)) == 0;
}

static bool add_stack(struct making *making, size_t thread, const struct cprof_stack *frames)
{
	const struct table *table = &making->stack_table;
	struct stack stack;
	size_t at;

	if (!add_items(making, frames, &stack) ||
	    !table_room(&making->stack_table, making->stack_count, making, hash_of_stack) ||
	    !cprof_grow(&making->stacks, &making->stack_capacity, making->stack_count + 1,
			sizeof(stack)))
		return false;
	for (at = stack.hash & (table->size - 1); table->slots[at];
	     at = (at + 1) & (table->size - 1))
		if (same_stack(making, &stack, &making->stacks[table->slots[at] - 1])) {
			making->item_count = stack.first;
			making->stack_of[thread] = table->slots[at];
			return true;
		}
	making->stacks[making->stack_count] = stack;
	table->slots[at] = (uint32_t)++making->stack_count;
	making->stack_of[thread] = (uint32_t)making->stack_count;
	return true;
}

static bool unwind_thread(struct making *making, struct cprof_unwinder *unwinder,
			  struct reader *reader, const struct cprof_snapshot_thread *thread,
			  size_t index)
{
	struct cprof_memory memory = {
		.stack = thread->stack,
		.stack_start = thread->regs.value[CPROF_REG_SP],
		.stack_length = thread->stack_length,
		.read = read_memory,
		.context = reader,
	};
	struct cprof_stack stack = {
		.frames = making->frames,
		.capacity = making->steps < TOTAL_STEPS ? UNWIND_FRAMES : CPROF_FRAMES_SAMPLE,
	};

	unwinder->ops->unwind(unwinder, &thread->regs, &memory, &stack);
	making->steps += stack.count;
	if (!add_stack(making, index, &stack))
		return false;
	making->dump->threads[index].end = making->stacks[making->stack_of[index] - 1].omitted
						   ? CPROF_END_TRUNCATED
						   : stack.end;
	return true;
}

/* --- naming -------------------------------------------------------------------------------- */

static int compare_places(const void *a, const void *b)
{
	const struct place *x = *(const struct place *const *)a;
	const struct place *y = *(const struct place *const *)b;

	if (x->module != y->module)
		return (uintptr_t)x->module < (uintptr_t)y->module ? -1 : 1;
	return (x->address > y->address) - (x->address < y->address);
}

static struct cprof_error *name_run(struct making *making, struct place **run, size_t count,
				    unsigned flags)
{
	CPROF_AUTO_FREE uint64_t *addresses = malloc(count * sizeof(*addresses));
	struct batch *batch = &making->batches[making->batch_count];
	char *texts;

	if (!addresses)
		return cprof_error_nomem();
	for (size_t i = 0; i < count; i++)
		addresses[i] = run[i]->address;
	CPROF_TRY(cprof_module_names(run[0]->module, addresses, count, flags, &batch->names));
	making->batch_count++;
	/* The strings of the dump must outlive the modules. */
	texts = cprof_keep_take(making->keep, batch->names.strings_length + 1);
	if (!texts)
		return cprof_error_nomem();
	if (batch->names.strings_length)
		memcpy(texts, batch->names.strings, batch->names.strings_length);
	batch->texts = texts;
	for (size_t i = 0; i < count; i++) {
		run[i]->batch = batch;
		run[i]->which = (uint32_t)i;
	}
	return NULL;
}

static struct cprof_error *name_places(struct making *making,
				       const struct cprof_dump_options *options)
{
	unsigned flags = (options->no_inlines ? CPROF_NAMES_NO_INLINES : 0u) |
			 (options->no_lines ? CPROF_NAMES_NO_LINES : 0u);
	CPROF_AUTO_FREE struct place **sorted =
		calloc(making->place_count + 1, sizeof(struct place *));
	size_t count = 0;
	size_t runs = 0;
	size_t end;

	if (!sorted)
		return cprof_error_nomem();
	for (size_t i = 0; i < making->place_count; i++)
		if (making->places[i].module)
			sorted[count++] = &making->places[i];
	if (count)
		qsort(sorted, count, sizeof(struct place *), compare_places);
	for (size_t i = 0; i < count; i++)
		runs += i == 0 || sorted[i]->module != sorted[i - 1]->module;
	making->batches = calloc(runs + 1, sizeof(*making->batches));
	if (!making->batches)
		return cprof_error_nomem();
	for (size_t at = 0; at < count; at = end) {
		for (end = at; end < count && sorted[end]->module == sorted[at]->module; end++)
			continue;
		CPROF_TRY(name_run(making, sorted + at, end - at, flags));
	}
	return NULL;
}

/* --- frames -------------------------------------------------------------------------------- */

/* The names of a place, innermost first. */
static const struct cprof_name *place_names(const struct place *place, size_t *count)
{
	const struct cprof_names *names;
	uint32_t first;

	*count = 0;
	if (!place->batch)
		return NULL;
	names = &place->batch->names;
	first = names->first[place->which];
	*count = names->first[place->which + 1] - first;
	return names->names + first;
}

static size_t place_frames(const struct place *place)
{
	size_t count;

	place_names(place, &count);
	return CPROF_MAX(count, 1u);
}

static const char *text_at(const struct batch *batch, uint32_t offset)
{
	return offset ? batch->texts + offset : NULL;
}

static struct cprof_dump_frame *add_frames(const struct place *place, struct cprof_dump_frame *to)
{
	uint64_t pc = place->pc - place->bias;
	size_t count;
	const struct cprof_name *name = place_names(place, &count);

	if (!count)
		*to++ = (struct cprof_dump_frame){.pc = place->pc, .module = place->module_path};
	for (size_t i = 0; i < count; i++, name++)
		*to++ = (struct cprof_dump_frame){
			.pc = place->pc,
			.function = text_at(place->batch, name->name),
			.offset = name->start && pc >= name->start ? pc - name->start : 0,
			.module = place->module_path,
			.file = text_at(place->batch, name->file),
			.line = name->line,
			.inlined = name->inlined,
		};
	return to;
}

static bool make_frames(struct making *making, struct stack *stack)
{
	struct cprof_dump_frame *to;
	size_t count = stack->omitted != 0;

	for (uint32_t i = 0; i < stack->count; i++)
		count += place_frames(&making->places[making->items[stack->first + i]]);
	stack->frames = to = cprof_keep_take(making->keep, count * sizeof(*to));
	if (!to)
		return false;
	stack->frame_count = count;
	for (uint32_t i = 0; i < stack->count; i++) {
		if (i == stack->inner) { /* only where something was left out */
			char text[64];

			snprintf(text, sizeof(text), "[%llu frames left out]",
				 (unsigned long long)stack->omitted);
			*to++ = (struct cprof_dump_frame){
				.function = cprof_keep_clean(making->keep, text), .module = ""};
		}
		to = add_frames(&making->places[making->items[stack->first + i]], to);
	}
	return true;
}

static bool find_mappings(const struct making *making, struct cprof_space *space)
{
	CPROF_AUTO_FREE uint64_t *addresses =
		malloc((making->place_count + 1) * sizeof(*addresses));

	for (size_t i = 0; addresses && i < making->place_count; i++)
		addresses[i] = making->places[i].bias + making->places[i].address;
	return addresses &&
	       cprof_mappings_fill(space, addresses, making->place_count, making->dump);
}

/* --- all of it ----------------------------------------------------------------------------- */

static void making_deinit(struct making *making)
{
	for (size_t i = 0; i < making->batch_count; i++)
		cprof_names_deinit(&making->batches[i].names);
	free(making->frames);
	free(making->places);
	free(making->place_table.slots);
	free(making->stacks);
	free(making->stack_table.slots);
	free(making->items);
	free(making->stack_of);
	free(making->batches);
}

static bool add_better(void *context, size_t thread, const struct cprof_stack *stack)
{
	struct making *making = context;

	if (stack->count <= making->stacks[making->stack_of[thread] - 1].count)
		return true;
	if (!add_stack(making, thread, stack))
		return false;
	making->dump->threads[thread].end = CPROF_END_COMPLETE;
	return true;
}

/* Stacks that ended before their end get a second chance; what is too deep does not. */
static bool retry_all(struct making *making, struct cprof_space *space,
		      const struct cprof_snapshot *snapshot)
{
	CPROF_AUTO_FREE size_t *threads = calloc(snapshot->count + 1, sizeof(*threads));
	size_t count = 0;

	if (!threads)
		return false;
	for (size_t i = 0; i < snapshot->count; i++) {
		const struct cprof_dump_thread *thread = &making->dump->threads[i];

		if (thread->held && thread->end != CPROF_END_COMPLETE &&
		    making->stacks[making->stack_of[i] - 1].count < CPROF_FRAMES_SAMPLE)
			threads[count++] = i;
	}
	return cprof_retry_stacks(space, snapshot, threads, count, add_better, making);
}

static struct cprof_error *unwind_all(struct making *making, struct cprof_space *space,
				      const struct cprof_snapshot *snapshot)
{
	CPROF_AUTO_FREE struct reader *reader = calloc(1, sizeof(*reader));
	struct cprof_unwinder *unwinder;
	bool fine = true;

	if (!reader)
		return cprof_error_nomem();
	reader->target = cprof_space_target(space);
	CPROF_TRY(cprof_unwinder_cfi.create(space, &unwinder));
	for (size_t i = 0; i < snapshot->count && fine; i++)
		if (snapshot->threads[i].held)
			fine = unwind_thread(making, unwinder, reader, &snapshot->threads[i], i);
	unwinder->ops->destroy(unwinder);
	fine = fine && retry_all(making, space, snapshot);
	return fine ? NULL : cprof_error_nomem();
}

static struct cprof_error *fill(struct making *making, struct cprof_space *space,
				const struct cprof_dump_options *options,
				const struct cprof_snapshot *snapshot)
{
	making->frames = malloc(UNWIND_FRAMES * sizeof(*making->frames));
	making->stack_of = calloc(snapshot->count + 1, sizeof(*making->stack_of));
	if (!making->frames || !making->stack_of)
		return cprof_error_nomem();
	CPROF_TRY(cprof_space_refresh(space));
	CPROF_TRY(unwind_all(making, space, snapshot));
	CPROF_TRY(name_places(making, options));
	if (!find_mappings(making, space))
		return cprof_error_nomem();
	for (size_t i = 0; i < making->stack_count; i++)
		if (!make_frames(making, &making->stacks[i]))
			return cprof_error_nomem();
	for (size_t i = 0; i < snapshot->count; i++)
		if (making->stack_of[i]) {
			const struct stack *stack = &making->stacks[making->stack_of[i] - 1];

			making->dump->threads[i].frames = stack->frames;
			making->dump->threads[i].frame_count = stack->frame_count;
		}
	return NULL;
}

struct cprof_error *cprof_stacks_fill(struct cprof_space *space,
				      const struct cprof_dump_options *options,
				      const struct cprof_snapshot *snapshot,
				      struct cprof_dump *dump)
{
	struct making making = {.dump = dump, .keep = dump->memory};
	struct cprof_error *error = fill(&making, space, options, snapshot);

	making_deinit(&making);
	return error;
}
