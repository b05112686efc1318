/* SPDX-License-Identifier: MIT
 *
 * What a slot holds, and what it should hold.
 */
#include "planparts.h"

#include <cprof/util.h>
#include <string.h>
#include <sys/mman.h>

#define READ_MAX 4096 /* bytes of slots read at once */

/* Functions whose slow path calls another variant: the one that does not throw. */
#define QUIET_OF_FUNCTION(id, symbol, shape, quiet) CPROF_AGENT_F_##quiet,
static const uint8_t quiet_of[] = {CPROF_AGENT_FUNCTIONS(QUIET_OF_FUNCTION)};

/* Slots lie close together: few reads get them all. */
void cprof_plan_read_slots(struct cprof_plan *plan, struct cprof_plan_module *module)
{
	const struct cprof_linkage *linkage = &module->file->linkage;
	uint8_t bytes[READ_MAX];

	for (size_t first = 0, end; first < linkage->import_count; first = end) {
		uint64_t start = linkage->imports[first].slot;
		size_t length;
		size_t got;

		for (end = first + 1;
		     end < linkage->import_count &&
		     linkage->imports[end].slot - start <= READ_MAX - sizeof(uint64_t);)
			end++;
		length = linkage->imports[end - 1].slot - start + sizeof(uint64_t);
		got = cprof_target_read(plan->target, start + module->bias, bytes, length);
		for (size_t i = first; i < end; i++) {
			size_t at = linkage->imports[i].slot - start;

			module->slots[i].value = 0;
			if (at + sizeof(uint64_t) <= got)
				memcpy(&module->slots[i].value, bytes + at, sizeof(uint64_t));
		}
	}
}

/* --- what a value is ----------------------------------------------------------------------- */

enum value_kind {
	VALUE_NOTHING,   /* not relocated yet */
	VALUE_STUB,      /* a PLT entry: that one's own slot is looked at */
	VALUE_FUNCTION,  /* `original` in `definer` */
	VALUE_UNBOUND,   /* binds itself at the first call; what to is not certain */
	VALUE_HOOK,      /* one of ours */
	VALUE_ELSEWHERE, /* some other function */
};
struct value {
	enum value_kind kind;
	uint64_t original;
	struct cprof_plan_module *definer;
};

static bool is_export(const struct cprof_plan_module *module, unsigned function, uint64_t address)
{
	const struct cprof_export *export = &module->file->linkage.exports[function];

	return export->address && !export->indirect && export->address + module->bias == address;
}

/* Who the dynamic linker would take a function from, for a module that was there from the start:
 * for others there may be scopes of their own (RTLD_LOCAL, RTLD_DEEPBIND). */
static void look_up(const struct cprof_plan *plan, const struct cprof_plan_module *module,
		    const struct cprof_import *import, struct value *value)
{
	const struct cprof_plan_module *best = NULL;
	const struct cprof_export *export;
	unsigned function = import->name;

	value->kind = VALUE_UNBOUND;
	if (!module->initial || module->file->linkage.symbolic)
		return;
	for (size_t i = 0; i < plan->module_count; i++) {
		struct cprof_plan_module *other = plan->modules[i];

		if (other->known && other->file->linkage.exports[function].address &&
		    other->initial && (!best || other->position < best->position))
			best = other;
	}
	export = best ? &best->file->linkage.exports[function] : NULL;
	if (!export || export->indirect || (export->several && export->version != import->version))
		return;
	value->kind = VALUE_FUNCTION;
	value->original = export->address + best->bias;
	value->definer = (struct cprof_plan_module *)best;
}

static struct value classify(const struct cprof_plan *plan, const struct cprof_plan_module *module,
			     size_t index)
{
	const struct cprof_import *import = &module->file->linkage.imports[index];
	uint64_t address = module->slots[index].value;
	struct cprof_plan_module *holder = cprof_plan_module_at(plan, address);
	struct value value = {.kind = VALUE_NOTHING};
	const struct cprof_export *export;
	uint64_t slot;

	if (address >= plan->base && address - plan->base < CPROF_AGENT_RESIDENT) {
		value.kind = VALUE_HOOK;
		return value;
	}
	if (!holder || !holder->known)
		return value;
	if (import->kind == CPROF_IMPORT_CALL && import->initial &&
	    address == import->initial + module->bias) {
		look_up(plan, module, import, &value);
		return value;
	}
	export = &holder->file->linkage.exports[import->name];
	if (is_export(holder, import->name, address) ||
	    /* What an IFUNC chose is known to be the function where no program writes. */
	    (export->indirect && import->kind != CPROF_IMPORT_DATA)) {
		value.kind = VALUE_FUNCTION;
		value.original = address;
		value.definer = holder;
		return value;
	}
	value.kind = cprof_image_stub(holder->file->image, address - holder->bias, &slot)
			     ? VALUE_STUB
			     : VALUE_ELSEWHERE;
	return value;
}

/* Whether a hook may stand before a function. The definer must be a whole allocator: operator new
 * of libstdc++ calls malloc, whose slot is hooked, and so do helpers like libbsd's reallocarray. */
static bool is_hookable(const struct cprof_plan_module *definer, unsigned function)
{
	const struct cprof_plan_file *file = definer->file;
	unsigned quiet = quiet_of[function];

	if (!file->linkage.exports[CPROF_AGENT_F_malloc].address ||
	    (file->wrappers & CPROF_PLAN_BIT(function)))
		return false;
	return quiet == function ||
	       (file->linkage.exports[quiet].address && !file->linkage.exports[quiet].indirect);
}

/* --- banks --------------------------------------------------------------------------------- */

/* The allocator a bank stands for: NULL if it is free, or its allocator is gone. */
static const struct cprof_plan_module *definer_of(const struct cprof_plan *plan, unsigned bank,
						  bool *used)
{
	*used = false;
	for (size_t i = 0; i < CPROF_AGENT_FUNCTION_COUNT; i++)
		if (plan->config.originals[bank][i]) {
			*used = true;
			return cprof_plan_module_at(plan, plan->config.originals[bank][i]);
		}
	return NULL;
}

static bool fits(uint64_t present, uint64_t original)
{
	return !present || present == original;
}

/* The bank with that original: its allocator's, or a free one. False: all are taken. */
static bool get_bank(struct cprof_plan *plan, unsigned function, const struct value *value,
		     unsigned *bank)
{
	const struct cprof_plan_module *definer = value->definer;
	unsigned quiet = quiet_of[function];
	uint64_t quiet_original =
		quiet == function ? value->original
				  : definer->file->linkage.exports[quiet].address + definer->bias;

	for (unsigned empty = 0; empty < 2; empty++)
		for (*bank = 0; *bank < CPROF_AGENT_BANKS; (*bank)++) {
			uint64_t *originals = plan->config.originals[*bank];
			bool used;
			bool same = definer_of(plan, *bank, &used) == definer;

			if (empty ? used
				  : !same || !fits(originals[function], value->original) ||
					    !fits(originals[quiet], quiet_original))
				continue;
			originals[function] = value->original;
			originals[quiet] = quiet_original;
			return true;
		}
	return false;
}

void cprof_plan_choose_bank(struct cprof_plan *plan)
{
	size_t most = 0;
	struct value best = {0};
	bool used;

	definer_of(plan, 0, &used);
	if (used)
		return;
	for (size_t i = 0; i < plan->module_count; i++)
		plan->modules[i]->votes = 0;
	for (size_t i = 0; i < plan->module_count; i++) {
		const struct cprof_plan_module *module = plan->modules[i];

		for (size_t s = 0; module->relocated && s < module->file->linkage.import_count;
		     s++) {
			unsigned function = module->file->linkage.imports[s].name;
			struct value value;

			if (function >= CPROF_AGENT_FUNCTION_COUNT)
				continue;
			value = classify(plan, module, s);
			if (value.kind != VALUE_FUNCTION || !is_hookable(value.definer, function) ||
			    ++value.definer->votes <= most)
				continue;
			most = value.definer->votes;
			best = value;
		}
	}
	if (most) {
		struct value value = {
			.definer = best.definer,
			.original =
				best.definer->bias +
				best.definer->file->linkage.exports[CPROF_AGENT_F_malloc].address,
		};
		unsigned bank;

		get_bank(plan, CPROF_AGENT_F_malloc, &value, &bank);
	}
}

/* --- orders -------------------------------------------------------------------------------- */

void cprof_plan_release(struct cprof_plan *plan, uint32_t order)
{
	plan->orders[order].state = CPROF_AGENT_ORDER_FAILED;
	if (cprof_grow(&plan->released, &plan->released_capacity, plan->released_count + 1,
		       sizeof(*plan->released)))
		plan->released[plan->released_count++] = order;
}

static struct cprof_agent_order *new_order(struct cprof_plan *plan, struct cprof_plan_slot *slot)
{
	if (plan->released_count)
		slot->order = plan->released[--plan->released_count] + 1;
	else if (plan->order_count < CPROF_AGENT_ORDERS)
		slot->order = (uint32_t)++plan->order_count;
	else
		return NULL;
	plan->orders[slot->order - 1] = (struct cprof_agent_order){0};
	return &plan->orders[slot->order - 1];
}

/* Makes or renews the order of a slot. One that could not be carried out stays as it is. */
static void order_slot(struct cprof_plan *plan, const struct cprof_plan_module *module,
		       size_t index, uint64_t hook, enum cprof_agent_order_state state,
		       uint64_t before)
{
	struct cprof_plan_slot *slot = &module->slots[index];
	uint64_t address = module->file->linkage.imports[index].slot + module->bias;
	const struct cprof_plan_range *range = cprof_plan_range_at(plan, address);
	struct cprof_agent_order *order =
		slot->order ? &plan->orders[slot->order - 1] : new_order(plan, slot);

	slot->status = order ? CPROF_PLAN_SLOT_HOOKED : CPROF_PLAN_SLOT_NO_ORDER;
	if (order && order->state == CPROF_AGENT_ORDER_FAILED)
		slot->status = CPROF_PLAN_SLOT_ELSEWHERE;
	else if (order)
		*order = (struct cprof_agent_order){
			.slot = address,
			.before = before,
			.hook = hook,
			.state = state,
			.relro = !range || !(range->prot & PROT_WRITE),
		};
}

/* What a hook stands for; 0: it is none. */
static uint64_t original_of(const struct cprof_plan *plan, uint64_t hook)
{
	for (unsigned bank = 0; bank < CPROF_AGENT_BANKS; bank++)
		for (unsigned i = 0; i < CPROF_AGENT_FUNCTION_COUNT; i++)
			if (plan->base + plan->header.hooks[bank][i] == hook)
				return plan->config.originals[bank][i];
	for (unsigned layout = 0; layout < CPROF_AGENT_LAYOUTS; layout++)
		for (unsigned i = 0; i < CPROF_AGENT_LOCK_COUNT; i++)
			if (plan->base + plan->header.lock_hooks[layout][i] == hook)
				return plan->config.lock_originals[layout][i];
	return 0;
}

/* A slot that leads to a hook: by our order, or left by a profiler before us; then it is put back
 * to its original in the end. */
static void keep_hook(struct cprof_plan *plan, const struct cprof_plan_module *module, size_t index)
{
	struct cprof_plan_slot *slot = &module->slots[index];
	uint64_t original;

	slot->status = CPROF_PLAN_SLOT_HOOKED;
	if (slot->order && plan->orders[slot->order - 1].hook == slot->value) {
		plan->orders[slot->order - 1].state = CPROF_AGENT_ORDER_DONE;
		return;
	}
	original = original_of(plan, slot->value);
	if (original)
		order_slot(plan, module, index, slot->value, CPROF_AGENT_ORDER_DONE, original);
}

/* A slot that is not to be hooked, as things are: what was ordered for it is void. */
static void pass_slot(struct cprof_plan *plan, struct cprof_plan_slot *slot,
		      enum cprof_plan_slot_status status)
{
	slot->status = status;
	if (slot->order && plan->orders[slot->order - 1].state != CPROF_AGENT_ORDER_FAILED)
		plan->orders[slot->order - 1].state = CPROF_AGENT_ORDER_CHANGED;
}

/* How the C library lays out its locks; false: it is none that is known. */
static bool find_layout(const struct cprof_plan_file *file, unsigned *layout)
{
	bool glibc = cprof_plan_defines(file, CPROF_PLAN_GLIBC);

	*layout = glibc ? CPROF_AGENT_GLIBC : CPROF_AGENT_MUSL;
	return cprof_plan_defines(file, CPROF_PLAN_LIBC) && (glibc || strstr(file->path, "musl"));
}

static void hook_lock(struct cprof_plan *plan, struct cprof_plan_module *module, size_t index,
		      const struct value *value)
{
	unsigned function = module->file->linkage.imports[index].name - CPROF_PLAN_LOCKS;
	struct cprof_plan_slot *slot = &module->slots[index];
	unsigned layout;
	uint64_t *original;

	if (!find_layout(value->definer->file, &layout)) {
		pass_slot(plan, slot, CPROF_PLAN_SLOT_ELSEWHERE);
		return;
	}
	original = &plan->config.lock_originals[layout][function];
	if (!fits(*original, value->original)) { /* another copy of the C library */
		pass_slot(plan, slot, CPROF_PLAN_SLOT_NO_BANK);
		return;
	}
	*original = value->original;
	order_slot(plan, module, index, plan->base + plan->header.lock_hooks[layout][function],
		   CPROF_AGENT_ORDER_WANTED, slot->value);
}

static void hook_slot(struct cprof_plan *plan, struct cprof_plan_module *module, size_t index,
		      const struct value *value)
{
	unsigned function = module->file->linkage.imports[index].name;
	struct cprof_plan_slot *slot = &module->slots[index];
	unsigned bank;

	if (cprof_plan_is_lock(function)) {
		hook_lock(plan, module, index, value);
		return;
	}

	if (!is_hookable(value->definer, function)) {
		pass_slot(plan, slot, CPROF_PLAN_SLOT_PASSED);
		return;
	}
	if (!get_bank(plan, function, value, &bank)) {
		pass_slot(plan, slot, CPROF_PLAN_SLOT_NO_BANK);
		return;
	}
	value->definer->allocator = true;
	order_slot(plan, module, index, plan->base + plan->header.hooks[bank][function],
		   CPROF_AGENT_ORDER_WANTED, slot->value);
}

static void decide_slot(struct cprof_plan *plan, struct cprof_plan_module *module, size_t index)
{
	const struct cprof_import *import = &module->file->linkage.imports[index];
	struct cprof_plan_slot *slot = &module->slots[index];
	struct value value = classify(plan, module, index);

	if (import->slot % sizeof(uint64_t)) /* it cannot be changed atomically: a packed struct */
		value.kind = VALUE_STUB;
	switch (value.kind) {
	case VALUE_HOOK:
		keep_hook(plan, module, index);
		return;
	case VALUE_NOTHING:
		pass_slot(plan, slot,
			  import->weak && !slot->value ? CPROF_PLAN_SLOT_PASSED
						       : CPROF_PLAN_SLOT_PENDING);
		return;
	case VALUE_UNBOUND:
		pass_slot(plan, slot, CPROF_PLAN_SLOT_PENDING);
		return;
	case VALUE_STUB:
		pass_slot(plan, slot, CPROF_PLAN_SLOT_PASSED);
		return;
	case VALUE_ELSEWHERE:
		pass_slot(plan, slot, CPROF_PLAN_SLOT_ELSEWHERE);
		return;
	case VALUE_FUNCTION:
		hook_slot(plan, module, index, &value);
	}
}

void cprof_plan_decide(struct cprof_plan *plan, struct cprof_plan_module *module)
{
	const struct cprof_linkage *linkage = &module->file->linkage;
	/* glibc's linker is no module like others: it lives through states in which a hook could
	 * not run. */
	bool locks = plan->kinds & CPROF_AGENT_KIND_LOCKS &&
		     !cprof_plan_defines(module->file, CPROF_PLAN_LINKER);
	/* An allocator calls itself: that would count twice. */
	bool heap = plan->kinds & CPROF_AGENT_KIND_HEAP &&
		    !cprof_plan_defines(module->file, CPROF_PLAN_LINKER) &&
		    !cprof_plan_is_allocator(module->file);

	module->fresh = false;
	module->pending = false;
	for (size_t i = 0; i < linkage->import_count; i++) {
		unsigned name = linkage->imports[i].name;

		if (name < CPROF_AGENT_FUNCTION_COUNT ? !heap : !locks || !cprof_plan_is_lock(name))
			continue;
		decide_slot(plan, module, i);
		module->pending |= module->slots[i].status == CPROF_PLAN_SLOT_PENDING;
	}
}
