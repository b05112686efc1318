/* SPDX-License-Identifier: MIT
 *
 * What the plan covers, in words.
 */
#include "planparts.h"

#include <cprof/util.h>
#include <string.h>

/* The allocators behind CPROF_PLAN_OWN and following. */
static const char *const own_reasons[CPROF_PLAN_LOCKS - CPROF_PLAN_OWN] = {
	"carries an allocator of its own (jemalloc)",
	"carries an allocator of its own (Rust's jemalloc)",
	"carries an allocator of its own (jemalloc)",
	"carries an allocator of its own (tcmalloc)",
	"carries an allocator of its own (mimalloc)",
	"carries an allocator of its own (rpmalloc)",
	"carries an allocator of its own (Scudo)",
	"carries an allocator of its own (snmalloc)",
	"carries a garbage collector (Boehm)",
	"carries an allocator of its own (musl)",
	"the Go runtime allocates by itself",
};

/* Allocates by means that no slot shows; NULL if nothing is known of that. */
static const char *own_reason(const struct cprof_plan_module *module)
{
	const struct cprof_plan_file *file = module->file;
	bool libc = cprof_plan_defines(file, CPROF_PLAN_LIBC);

	if (file->linkage.go)
		return own_reasons[CPROF_PLAN_LOCKS - CPROF_PLAN_OWN - 1];
	if (libc || cprof_plan_defines(file, CPROF_PLAN_LINKER))
		return NULL;
	if (module->allocator)
		return file->linkage.interpreter
			       ? "carries an allocator, which it calls through no slot"
			       : NULL;
	for (unsigned i = CPROF_PLAN_OWN; i < CPROF_PLAN_LOCKS; i++)
		if (cprof_plan_defines(file, i))
			return own_reasons[i - CPROF_PLAN_OWN];
	return cprof_plan_is_allocator(file) ? "carries an allocator of its own (malloc)" : NULL;
}

/* Slots of a module by what became of them. */
static void count_slots(const struct cprof_plan_module *module, bool locks,
			size_t counts[CPROF_PLAN_SLOT_HOOKED + 1])
{
	memset(counts, 0, (CPROF_PLAN_SLOT_HOOKED + 1) * sizeof(*counts));
	for (size_t i = 0; i < module->file->linkage.import_count; i++)
		if (cprof_plan_is_lock(module->file->linkage.imports[i].name) == locks)
			counts[module->slots[i].status]++;
}

/* Without heap hooks: an allocator says nothing of locks. */
static void tell_locks(const struct cprof_plan_module *module,
		       const size_t counts[CPROF_PLAN_SLOT_HOOKED + 1],
		       struct cprof_agent_module *told)
{
	if (!module->relocated)
		told->cover = CPROF_AGENT_COVER_LATER;
	else if (counts[CPROF_PLAN_SLOT_NO_BANK])
		told->reason = "uses another copy of the C library";
	else if (counts[CPROF_PLAN_SLOT_NO_ORDER])
		told->reason = "has more slots than can be patched";
	else if (counts[CPROF_PLAN_SLOT_ELSEWHERE])
		told->reason = "has locks that are not those of a C library that is known";
	else
		told->cover = told->lock_slots ? CPROF_AGENT_COVER_HOOKED : CPROF_AGENT_COVER_NONE;
}

static void tell_module(const struct cprof_plan *plan, const struct cprof_plan_module *module,
			struct cprof_agent_module *told)
{
	size_t counts[CPROF_PLAN_SLOT_HOOKED + 1];

	*told = (struct cprof_agent_module){.path = module->file->path};
	count_slots(module, true, counts);
	told->lock_slots = (uint32_t)counts[CPROF_PLAN_SLOT_HOOKED];
	told->cover = CPROF_AGENT_COVER_BYPASS;
	if (module->known && !(plan->kinds & CPROF_AGENT_KIND_HEAP)) {
		tell_locks(module, counts, told);
		return;
	}
	count_slots(module, false, counts);
	told->slots = (uint32_t)counts[CPROF_PLAN_SLOT_HOOKED];
	if (!module->known)
		told->reason = module->file->image ? "is not the file that stands at its path now"
						   : "has a file that cannot be opened";
	else if (!module->relocated)
		told->cover = CPROF_AGENT_COVER_LATER;
	else if ((told->reason = own_reason(module)))
		;
	else if (counts[CPROF_PLAN_SLOT_NO_BANK])
		told->reason = "uses more allocators than can be told apart";
	else if (counts[CPROF_PLAN_SLOT_NO_ORDER])
		told->reason = "has more slots than can be patched";
	else if (counts[CPROF_PLAN_SLOT_ELSEWHERE])
		told->reason = "has slots that lead to functions unknown, or cannot be written";
	else
		told->cover = told->slots ? CPROF_AGENT_COVER_HOOKED : CPROF_AGENT_COVER_NONE;
}

struct cprof_error *cprof_plan_tell(struct cprof_plan *plan)
{
	if (!cprof_grow(&plan->told, &plan->told_capacity, plan->module_count + 1,
			sizeof(*plan->told)))
		return cprof_error_nomem();
	plan->told_count = plan->module_count;
	for (size_t i = 0; i < plan->module_count; i++)
		tell_module(plan, plan->modules[i], &plan->told[i]);
	return NULL;
}

/* --- refusal ------------------------------------------------------------------------------- */

static const struct cprof_plan_module *program_of(const struct cprof_plan *plan)
{
	const char *exe = cprof_target_info(plan->target)->exe;

	for (size_t i = 0; i < plan->module_count; i++)
		if (strcmp(plan->modules[i]->file->path, exe) == 0)
			return plan->modules[i];
	return NULL;
}

/* Slots of the language's own runtime libraries say nothing of the program. */
static bool is_runtime(const struct cprof_plan_module *module)
{
	const struct cprof_export *exports = module->file->linkage.exports;

	return exports[CPROF_PLAN_LIBC].address || exports[CPROF_PLAN_UNWINDER].address ||
	       exports[CPROF_PLAN_CXX].address;
}

/* Whether there is anything to patch, or will be. For a program that allocates by other means what
 * the C library does for itself is not enough: the profile would be almost empty. */
static bool is_worth_it(const struct cprof_plan *plan, const char *own)
{
	for (size_t i = 0; i < plan->module_count; i++) {
		const struct cprof_plan_module *module = plan->modules[i];

		if (module->known &&
		    (!module->relocated || (plan->told[i].slots && !(own && is_runtime(module)))))
			return true;
	}
	return false;
}

static struct cprof_error *check_locks(const struct cprof_plan *plan)
{
	const struct cprof_target_info *info = cprof_target_info(plan->target);
	const struct cprof_plan_module *program = program_of(plan);
	const char *why = "calls none of the C library's";

	for (size_t i = 0; i < plan->module_count; i++)
		if (plan->modules[i]->known &&
		    (!plan->modules[i]->relocated || plan->told[i].lock_slots))
			return NULL;
	if (program && !program->known)
		why = "cannot be read";
	else if (program && program->file->linkage.go)
		why = "is a Go program: its locks are the Go runtime's own";
	else if (program && !program->file->linkage.interpreter)
		why = "is statically linked: its calls of the C library's locks pass no slot";
	return cprof_error_create(
		CPROF_DENIED, "use -e block: it needs no hooks, and sees every kind of lock",
		"pid %d: no locks to hook: %s %s", (int)info->pid, info->exe, why);
}

static struct cprof_error *check_heap(const struct cprof_plan *plan)
{
	const struct cprof_target_info *info = cprof_target_info(plan->target);
	const struct cprof_plan_module *program = program_of(plan);
	const char *own = program && program->known ? own_reason(program) : NULL;
	const char *why = "calls no allocator that can be hooked";

	if (is_worth_it(plan, own))
		return NULL;
	if (own && program->file->linkage.go)
		return cprof_error_create(CPROF_DENIED,
					  "use its own heap profile (net/http/pprof), or -e cpu",
					  "pid %d: nothing to patch: %s is a Go program: %s",
					  (int)info->pid, info->exe, own);
	if (program && !program->known)
		why = "cannot be read";
	else if (program && !program->file->linkage.interpreter)
		why = "is statically linked: its calls of the allocator pass no slot";
	return cprof_error_create(CPROF_DENIED, "use -e cpu, or link the allocator dynamically",
				  "pid %d: nothing to patch: %s %s", (int)info->pid, info->exe,
				  own ? own : why);
}

struct cprof_error *cprof_plan_check(const struct cprof_plan *plan)
{
	if (plan->kinds & CPROF_AGENT_KIND_HEAP)
		CPROF_TRY(check_heap(plan));
	return plan->kinds & CPROF_AGENT_KIND_LOCKS ? check_locks(plan) : NULL;
}
