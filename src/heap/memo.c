/* SPDX-License-Identifier: MIT
 *
 * Exact mode sees the same stacks again and again: a stack is known by (pc, sp) and by what its
 * unwinding stood on. To learn that, a stack is unwound once more by an unwinder that is told less:
 * no registers but pc and sp, and only those stack words that look like code (return addresses),
 * then also those that point into the stack, in the end everything. Rules make no use of what they
 * are not told (a register that cannot be read is unknown; needing it ends the stack), so if a poor
 * unwinding arrives at the same complete stack, any richer one with those same words does too.
 */
#include "private.h"

#include <cprof/util.h>
#include <string.h>

#define ARENA      (16u << 20) /* bytes of entries; when they are full all are forgotten */
#define BUCKETS    (1u << 16)
#define CHAIN_MAX  64u   /* stacks with the same pc and sp */
#define WORDS_MAX  2048u /* that one stack may stand on */
#define NO_ENTRY   0u
#define NEVER      UINT32_MAX
#define KEY_COUNT  CPROF_COUNT(key_registers)
#define MASK_FRAME (1u << CPROF_REG_PC | 1u << CPROF_REG_SP)

static const uint8_t key_registers[] = {3, CPROF_REG_BP, 12, 13, 14, 15};

struct entry {
	uint64_t pc;
	uint64_t sp;
	uint64_t registers[KEY_COUNT];
	uint32_t known;  /* registers that must be the same, beside pc and sp */
	uint32_t length; /* of the captured stack if that matters, otherwise what is needed of it */
	uint32_t next;   /* offset in the arena */
	uint32_t count;
	uint32_t told; /* generation of the agent's table in which it is; NEVER: cannot be told */
	bool length_matters;
	struct cprof_heap_found found;
	struct word {
		uint64_t value;
		uint64_t offset; /* from sp; within `length` */
	} words[];
};

struct cprof_heap_memo {
	uint8_t *arena;
	uint32_t used;
	uint32_t heads[BUCKETS];
	struct cprof_frame frames[CPROF_FRAMES_SAMPLE];
	struct word words[WORDS_MAX];
	uint64_t told[WORDS_MAX];
	struct cprof_heap_seen seen;
};

struct cprof_error *cprof_heap_memo_create(struct cprof_agent_shared *shared,
					   struct cprof_heap_memo **result)
{
	struct cprof_heap_memo *memo = calloc(1, sizeof(*memo));

	if (!memo)
		return cprof_error_nomem();
	memo->arena = malloc(ARENA);
	if (!memo->arena) {
		free(memo);
		return cprof_error_nomem();
	}
	cprof_heap_seen_init(&memo->seen, shared);
	cprof_heap_memo_flush(memo);
	*result = memo;
	return NULL;
}

void cprof_heap_memo_destroy(struct cprof_heap_memo *memo)
{
	if (!memo)
		return;
	free(memo->arena);
	free(memo);
}

void cprof_heap_memo_flush(struct cprof_heap_memo *memo)
{
	memset(memo->heads, 0, sizeof(memo->heads));
	memo->used = sizeof(struct entry); /* offset 0 is no entry */
	cprof_heap_seen_clear(&memo->seen);
}

static struct entry *entry_at(const struct cprof_heap_memo *memo, uint32_t offset)
{
	return (struct entry *)(memo->arena + offset);
}

static uint32_t bucket_of(uint64_t pc, uint64_t sp)
{
	return cprof_hash_u64(cprof_hash_u64(pc) + sp) % BUCKETS;
}

static bool same_registers(const struct entry *entry, const struct cprof_agent_record *record)
{
	struct cprof_regs regs;

	if (!entry->known)
		return true;
	cprof_agent_registers(record, &regs);
	for (size_t i = 0; i < KEY_COUNT; i++)
		if ((entry->known & (1u << key_registers[i])) &&
		    regs.value[key_registers[i]] != entry->registers[i])
			return false;
	return true;
}

static bool same_words(const struct entry *entry, const uint8_t *stack)
{
	for (uint32_t i = 0; i < entry->count; i++) {
		uint64_t value;

		memcpy(&value, stack + entry->words[i].offset, sizeof(value));
		if (value != entry->words[i].value)
			return false;
	}
	return true;
}

/* What has been met twice: many stacks of some programs are met only once. */
static void tell_agent(struct cprof_heap_memo *memo, struct entry *entry)
{
	struct cprof_agent_seen seen = {
		.pc = entry->pc,
		.sp = entry->sp,
		.stack = entry->found.stack,
		.count = entry->count,
		.length = entry->length,
		.whole = entry->length_matters,
	};

	for (size_t i = 0; i < KEY_COUNT; i++) {
		seen.registers[i] = entry->registers[i];
		seen.mask |= (entry->known >> key_registers[i] & 1u) << i;
	}
	for (uint32_t i = 0; i < entry->count; i++)
		if (!cprof_heap_seen_word(entry->words[i].value, entry->words[i].offset,
					  &memo->told[i])) {
			entry->told = NEVER;
			return;
		}
	if (cprof_heap_seen_tell(&memo->seen, &seen, memo->told))
		entry->told = memo->seen.generation;
}

bool cprof_heap_memo_find(struct cprof_heap_memo *memo, const struct cprof_heap_record *record,
			  bool tell, struct cprof_heap_found *found)
{
	const struct cprof_agent_record *fixed = &record->fixed;
	uint32_t at = memo->heads[bucket_of(fixed->pc, fixed->sp)];

	for (; at != NO_ENTRY; at = entry_at(memo, at)->next) {
		struct entry *entry = entry_at(memo, at);

		if (entry->pc != fixed->pc || entry->sp != fixed->sp ||
		    (entry->length_matters ? fixed->stack_length != entry->length
					   : fixed->stack_length < entry->length) ||
		    !same_registers(entry, fixed) || !same_words(entry, record->stack))
			continue;
		if (tell && entry->told != memo->seen.generation && entry->told != NEVER)
			tell_agent(memo, entry);
		*found = entry->found;
		return true;
	}
	return false;
}

/* --- learning ------------------------------------------------------------------------------ */

enum told { TOLD_CODE, TOLD_STACK, TOLD_ALL };

/* An unwinding that is told some of the stack's words, and which. */
struct lesson {
	struct cprof_heap_memo *memo;
	struct cprof_space *space;
	const struct cprof_memory *memory;
	enum told told;
	size_t count;
	bool odd;     /* something else than a word was read, or too many */
	bool outside; /* the last word that was asked for had not been captured */
};

static bool tell(void *context, uint64_t address, void *buffer, size_t length)
{
	struct lesson *lesson = context;
	const struct cprof_memory *memory = lesson->memory;
	uint64_t offset = address - memory->stack_start;
	struct word *word = &lesson->memo->words[lesson->count];
	uint64_t value;

	lesson->outside = memory->stack_length < sizeof(value) ||
			  offset > memory->stack_length - sizeof(value);
	lesson->odd |= length != sizeof(value) || lesson->count == WORDS_MAX;
	if (lesson->outside || lesson->odd)
		return false;
	memcpy(&value, memory->stack + offset, sizeof(value));
	if (lesson->told != TOLD_ALL && !cprof_space_find(lesson->space, value) &&
	    (lesson->told != TOLD_STACK || value - memory->stack_start >= memory->stack_length))
		return false;
	*word = (struct word){.value = value, .offset = offset};
	lesson->count++;
	memcpy(buffer, &value, sizeof(value));
	return true;
}

static bool same_stack(const struct cprof_stack *a, const struct cprof_stack *b)
{
	if (a->count != b->count || a->end != b->end)
		return false;
	for (size_t i = 0; i < a->count; i++)
		if (a->frames[i].pc != b->frames[i].pc ||
		    a->frames[i].exact != b->frames[i].exact ||
		    a->frames[i].region != b->frames[i].region)
			return false;
	return true;
}

/* Whether this stack is the whole truth of what the lesson was told. */
static bool conclusive(const struct lesson *lesson, const struct cprof_stack *stack)
{
	if (lesson->odd)
		return false;
	return lesson->told == TOLD_ALL || stack->end == CPROF_END_COMPLETE ||
	       (stack->end == CPROF_END_TRUNCATED &&
		(lesson->outside || stack->count == stack->capacity));
}

static void store(struct cprof_heap_memo *memo, const struct lesson *lesson,
		  const struct cprof_regs *regs, const struct cprof_heap_found *found)
{
	size_t size = sizeof(struct entry) + lesson->count * sizeof(struct word);
	uint32_t *head;
	struct entry *entry;
	unsigned chain = 0;

	if (memo->used + size > ARENA)
		cprof_heap_memo_flush(memo);
	head = &memo->heads[bucket_of(regs->value[CPROF_REG_PC], regs->value[CPROF_REG_SP])];
	for (uint32_t at = *head; at != NO_ENTRY; at = entry_at(memo, at)->next)
		chain++;
	entry = entry_at(memo, memo->used);
	*entry = (struct entry){
		.pc = regs->value[CPROF_REG_PC],
		.sp = regs->value[CPROF_REG_SP],
		.known = regs->known & ~MASK_FRAME,
		.next = chain < CHAIN_MAX ? *head : NO_ENTRY,
		.count = (uint32_t)lesson->count,
		.length_matters = lesson->told == TOLD_ALL || found->end != CPROF_END_COMPLETE,
		.found = *found,
	};
	for (size_t i = 0; i < KEY_COUNT; i++)
		entry->registers[i] = regs->value[key_registers[i]];
	for (size_t i = 0; i < lesson->count; i++) {
		entry->words[i] = memo->words[i];
		entry->length =
			CPROF_MAX(entry->length, (uint32_t)memo->words[i].offset + (uint32_t)8);
	}
	if (entry->length_matters)
		entry->length = (uint32_t)lesson->memory->stack_length;
	*head = memo->used;
	memo->used += (uint32_t)size;
}

void cprof_heap_memo_learn(struct cprof_heap_memo *memo, const struct cprof_agent_records *records,
			   const struct cprof_heap_found *found)
{
	struct cprof_unwinder *unwinder = records->unwinder;
	const struct cprof_memory *memory = &records->memory;
	const struct cprof_stack *stack = &records->stack;
	/* Only our own unwinder is known to make nothing of what it is not told. */
	enum told told = unwinder->ops == &cprof_unwinder_cfi ? TOLD_CODE : TOLD_ALL;

	for (; told <= TOLD_ALL; told++) {
		struct lesson lesson = {
			.memo = memo, .space = records->space, .memory = memory, .told = told};
		struct cprof_memory poor = {
			.stack_start = memory->stack_start, .read = tell, .context = &lesson};
		struct cprof_regs known = records->regs;
		struct cprof_stack again = {.frames = memo->frames, .capacity = stack->capacity};

		if (told == TOLD_CODE)
			known.known = MASK_FRAME;
		else if (told == TOLD_STACK)
			known.known = MASK_FRAME | 1u << CPROF_REG_BP;
		unwinder->ops->unwind(unwinder, &known, &poor, &again);
		if (conclusive(&lesson, &again) && same_stack(&again, stack)) {
			store(memo, &lesson, &known, found);
			return;
		}
	}
}
