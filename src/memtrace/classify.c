/* SPDX-License-Identifier: MIT
 *
 * CPU time by what it was spent on: a walk over every stack, from the outermost frame inwards.
 */
#include "private.h"

#include <cprof/util.h>
#include <string.h>

#define SIDES (CPROF_MEMTRACE_MALLOC | CPROF_MEMTRACE_FREE)
#define WORK  (CPROF_MEMTRACE_CALL | CPROF_MEMTRACE_FAULT)
#define KNOWN 128 /* beside the bits of a function */

struct classifier {
	const struct cprof_profile *profile;
	uint8_t *modules;   /* enum cprof_memtrace_module of each mapping */
	uint8_t *functions; /* bits of each function in each kind of module, once they are KNOWN */
};

/* What a walk over one stack found. */
struct verdict {
	unsigned side;  /* of the outermost allocator function: MALLOC, FREE or 0 */
	unsigned work;  /* of the outermost kernel function that works for memory */
	unsigned flags; /* of all allocator functions, and of the locks they wait for */
	bool glibc;
	bool agent; /* the innermost function of the user's space is our agent's */
};

static const char *function_name(const struct cprof_profile *profile, uint32_t id)
{
	const struct cprof_profile_function *function = &profile->functions[id];

	return profile->strings[function->system_name ? function->system_name : function->name];
}

static unsigned function_bits(const struct classifier *classifier,
			      enum cprof_memtrace_module module, uint32_t id)
{
	uint8_t *bits = &classifier->functions[(size_t)id * CPROF_MEMTRACE_MODULES + module];

	if (!*bits)
		*bits = (uint8_t)(KNOWN | cprof_memtrace_function(
						  module, function_name(classifier->profile, id)));
	return *bits & ~(unsigned)KNOWN;
}

static void look_at_frame(enum cprof_memtrace_module module, unsigned bits, struct verdict *verdict)
{
	if (!verdict->side)
		verdict->side = bits & SIDES;
	if (!verdict->work)
		verdict->work = bits & WORK;
	if (verdict->side || (verdict->flags | bits) & CPROF_MEMTRACE_FOREIGN)
		verdict->flags |= bits;
	if (module != CPROF_MEMTRACE_KERNEL)
		verdict->agent = module == CPROF_MEMTRACE_AGENT;
	verdict->glibc |= module == CPROF_MEMTRACE_GLIBC && bits & SIDES;
}

static struct verdict judge(const struct classifier *classifier,
			    const struct cprof_profile_span *stack)
{
	const struct cprof_profile *profile = classifier->profile;
	struct verdict verdict = {0};

	for (uint32_t i = stack->count; i--;) {
		const struct cprof_profile_location *location =
			&profile->locations[profile->stack_items[stack->first + i]];
		enum cprof_memtrace_module module =
			(enum cprof_memtrace_module)classifier->modules[location->mapping];

		if (!location->line_count)
			look_at_frame(module, cprof_memtrace_function(module, ""), &verdict);
		for (uint32_t j = location->line_count; j--;) { /* inlinees are first */
			uint32_t id = profile->lines[location->first_line + j].function;

			look_at_frame(module, function_bits(classifier, module, id), &verdict);
		}
	}
	/* Within an allocator, and nothing says that it frees. */
	if (!verdict.side && verdict.flags & CPROF_MEMTRACE_FOREIGN)
		verdict.side = CPROF_MEMTRACE_MALLOC;
	return verdict;
}

/* Not a stack, but what a session tells of those it has not got. */
static bool is_lost(const struct cprof_profile *profile, const struct cprof_profile_span *stack)
{
	const struct cprof_profile_location *location;
	const char *name;

	if (stack->count != 1)
		return false;
	location = &profile->locations[profile->stack_items[stack->first]];
	if (location->mapping || location->line_count != 1)
		return false;
	name = function_name(profile, profile->lines[location->first_line].function);
	return !strcmp(name, "[lost samples]") || !strcmp(name, "[not sampled]");
}

static void count(const struct verdict *verdict, uint64_t ns, struct cprof_memtrace_cpu *cpu)
{
	if (verdict->work) {
		cpu->kernel_ns += ns;
		cpu->inside_ns += verdict->side ? ns : 0;
		cpu->faults_ns += verdict->work & CPROF_MEMTRACE_FAULT ? ns : 0;
	} else if (verdict->side) {
		*(verdict->side & CPROF_MEMTRACE_MALLOC ? &cpu->malloc_ns : &cpu->free_ns) += ns;
		cpu->wait_ns += verdict->flags & CPROF_MEMTRACE_WAIT ? ns : 0;
		cpu->slow_ns += verdict->flags & CPROF_MEMTRACE_SLOW ? ns : 0;
	} else {
		cpu->other_ns += ns;
	}
	if (!verdict->side)
		return;
	if (verdict->flags & CPROF_MEMTRACE_FOREIGN)
		cpu->foreign_ns += ns;
	else if (verdict->glibc)
		cpu->glibc_ns += ns;
}

struct cprof_error *cprof_memtrace_classify(const struct cprof_profile *profile,
					    struct cprof_memtrace_cpu *cpu)
{
	int samples = cprof_profile_find_type(profile, "samples");
	int ns = cprof_profile_find_type(profile, "cpu");
	CPROF_AUTO_FREE uint8_t *modules = calloc(profile->mapping_count, sizeof(*modules));
	CPROF_AUTO_FREE uint8_t *functions =
		calloc(profile->function_count, CPROF_MEMTRACE_MODULES * sizeof(*functions));
	struct classifier classifier = {profile, modules, functions};

	*cpu = (struct cprof_memtrace_cpu){0};
	if (!modules || !functions)
		return cprof_error_nomem();
	if (samples < 0 || ns < 0)
		return cprof_error_create(CPROF_FAILED, NULL, "not a profile of CPU time");
	for (size_t i = 0; i < profile->mapping_count; i++)
		modules[i] =
			(uint8_t)cprof_memtrace_module(profile->strings[profile->mappings[i].file]);
	for (size_t i = 0; i < profile->sample_count; i++) {
		const struct cprof_profile_span *stack =
			&profile->stacks[profile->samples[i].stack];
		const int64_t *values = &profile->values[i * profile->type_count];
		struct verdict verdict;

		if (values[ns] <= 0 || is_lost(profile, stack))
			continue;
		verdict = judge(&classifier, stack);
		if (verdict.agent)
			continue;
		count(&verdict, (uint64_t)values[ns], cpu);
		cpu->samples += (uint64_t)CPROF_MAX(values[samples], 0);
	}
	return NULL;
}
