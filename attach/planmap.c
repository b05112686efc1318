/* SPDX-License-Identifier: MIT
 *
 * The modules of the target: what is mapped executable from which file, whether it is relocated,
 * where the dynamic linker's list has it.
 */
#include "planparts.h"

#include <cprof/util.h>
#include <link.h>
#include <string.h>
#include <sys/mman.h>

#define PAGE          4096ull
#define DYNAMIC_MAX   1024 /* entries of a PT_DYNAMIC */
#define LINK_MAPS_MAX (1u << 14)

#define NAME_OF_FUNCTION(id, symbol, shape, quiet) symbol,
#define NAME_OF_LOCK(id, symbol, shape)            symbol,
const char *const cprof_plan_names[CPROF_PLAN_NAMES] = {
	CPROF_AGENT_FUNCTIONS(NAME_OF_FUNCTION) /* */
	"__libc_start_main",
	"_rtld_global",
	"_Unwind_Backtrace",
	"__cxa_throw",
	"je_malloc",
	"_rjem_malloc",
	"je_mallocx",
	"tc_malloc",
	"mi_malloc",
	"rpmalloc",
	"__scudo_allocate",
	"snmalloc_alloc",
	"GC_malloc",
	"__libc_malloc_impl",
	"runtime.mallocgc",
	CPROF_AGENT_LOCKS(NAME_OF_LOCK) /* */
	"gnu_get_libc_version",
};

/* --- files --------------------------------------------------------------------------------- */

/* Functions that the C library makes of others, told by its code: musl's calloc calls malloc,
 * glibc's reallocarray calls realloc. A resize that calls malloc is none: it is what is asked for.
 */
static uint64_t find_wrappers(const struct cprof_plan_file *file)
{
#define SHAPE_OF_FUNCTION(id, symbol, shape, quiet) CPROF_AGENT_##shape,
	static const uint8_t shapes[] = {CPROF_AGENT_FUNCTIONS(SHAPE_OF_FUNCTION)};
	uint64_t sets[3] = {0}; /* allocate, resize, free */
	uint64_t wrappers = 0;

	if (!cprof_plan_defines(file, CPROF_PLAN_LIBC))
		return 0;
	for (unsigned i = 0; i < CPROF_AGENT_FUNCTION_COUNT; i++) {
		bool resize = shapes[i] == CPROF_AGENT_RESIZE || shapes[i] == CPROF_AGENT_RECOUNT;

		sets[shapes[i] == CPROF_AGENT_FREE ? 2 : resize] |= CPROF_PLAN_BIT(i);
	}
	for (unsigned i = 0; i < CPROF_AGENT_FUNCTION_COUNT; i++) {
		const struct cprof_export *export = &file->linkage.exports[i];
		uint64_t calls = cprof_image_calls(file->image, &file->linkage, export->address,
						   export->address ? export->size : 0);

		for (size_t s = 0; s < CPROF_COUNT(sets); s++)
			if ((sets[s] & CPROF_PLAN_BIT(i)) && (sets[s] & calls & ~CPROF_PLAN_BIT(i)))
				wrappers |= CPROF_PLAN_BIT(i);
	}
	return wrappers;
}

static struct cprof_error *open_file(struct cprof_plan *plan, const struct cprof_mapping *mapping,
				     struct cprof_plan_file *file)
{
	CPROF_AUTO_CLOSE int fd = cprof_target_open_file(plan->target, mapping, &file->verified);
	struct cprof_error *error;

	if (fd < 0) { /* perhaps; what lies in memory only is made code as a rule */
		file->elf = mapping->path[0] == '/' && strncmp(mapping->path, "/memfd:", 7) != 0 &&
			    strncmp(mapping->path, "/dev/", 5) != 0;
		return NULL;
	}
	error = cprof_image_create(fd, &file->image);
	if (error) { /* no ELF file: data or made code */
		cprof_error_destroy(error);
		file->image = NULL;
		return NULL;
	}
	file->elf = true;
	CPROF_TRY(cprof_image_linkage(file->image, cprof_plan_names, CPROF_PLAN_NAMES,
				      &file->linkage));
	file->wrappers = find_wrappers(file);
	return NULL;
}

static void destroy_file(struct cprof_plan_file *file)
{
	cprof_linkage_deinit(&file->linkage);
	cprof_image_destroy(file->image);
	free(file->path);
	free(file);
}

static struct cprof_error *get_file(struct cprof_plan *plan, const struct cprof_mapping *mapping,
				    struct cprof_plan_file **result)
{
	struct cprof_plan_file *file;
	struct cprof_error *error;

	for (size_t i = 0; i < plan->file_count; i++) {
		file = plan->files[i];
		if (file->inode == mapping->inode && file->device_major == mapping->device_major &&
		    file->device_minor == mapping->device_minor) {
			*result = file;
			return NULL;
		}
	}
	if (!cprof_grow(&plan->files, &plan->file_capacity, plan->file_count + 1,
			sizeof(struct cprof_plan_file *)))
		return cprof_error_nomem();
	file = calloc(1, sizeof(*file));
	if (!file)
		return cprof_error_nomem();
	file->inode = mapping->inode;
	file->device_major = mapping->device_major;
	file->device_minor = mapping->device_minor;
	file->path = cprof_text_clean_dup(mapping->path);
	error = file->path ? open_file(plan, mapping, file) : cprof_error_nomem();
	if (error) {
		destroy_file(file);
		return error;
	}
	plan->files[plan->file_count++] = file;
	*result = file;
	return NULL;
}

/* --- maps ---------------------------------------------------------------------------------- */

struct reading {
	struct cprof_plan *plan;
	uint64_t fingerprint;
};

static struct cprof_error *add_range(void *context, const struct cprof_mapping *mapping)
{
	struct reading *reading = context;
	struct cprof_plan *plan = reading->plan;
	struct cprof_plan_range range = {
		.start = mapping->start,
		.end = mapping->end,
		.offset = mapping->offset,
		.prot = mapping->prot,
	};
	const uint64_t words[] = {
		mapping->start,
		mapping->end,
		mapping->offset,
		mapping->inode,
		(uint64_t)mapping->device_major << 32 | mapping->device_minor,
		mapping->prot,
	};

	if (!mapping->inode ||
	    (mapping->start >= plan->base && mapping->start - plan->base < CPROF_AGENT_FILE_SIZE))
		return NULL;
	for (size_t i = 0; i < CPROF_COUNT(words); i++)
		reading->fingerprint = cprof_hash_u64(reading->fingerprint ^ words[i]);
	if (mapping->prot & PROT_EXEC)
		CPROF_TRY(get_file(plan, mapping, &range.file));
	if (!cprof_grow(&plan->spare, &plan->spare_capacity, plan->spare_count + 1, sizeof(range)))
		return cprof_error_nomem();
	plan->spare[plan->spare_count++] = range;
	return NULL;
}

struct cprof_error *cprof_plan_read_maps(struct cprof_plan *plan, bool *changed)
{
	struct reading reading = {.plan = plan, .fingerprint = 1};
	struct cprof_plan_range *ranges = plan->ranges;
	size_t capacity = plan->range_capacity;

	plan->spare_count = 0;
	CPROF_TRY(cprof_target_maps(plan->target, add_range, &reading));
	if (!plan->spare_count && !cprof_target_alive(plan->target))
		return cprof_error_create(CPROF_NO_PROCESS, NULL, "pid %d: the process has ended",
					  (int)cprof_target_info(plan->target)->pid);
	*changed = reading.fingerprint != plan->fingerprint;
	if (!*changed)
		return NULL;
	plan->fingerprint = reading.fingerprint;
	plan->ranges = plan->spare;
	plan->range_count = plan->spare_count;
	plan->range_capacity = plan->spare_capacity;
	plan->spare = ranges;
	plan->spare_capacity = capacity;
	return NULL;
}

struct cprof_plan_range *cprof_plan_range_at(const struct cprof_plan *plan, uint64_t address)
{
	size_t low = 0;
	size_t high = plan->range_count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (plan->ranges[middle].end <= address)
			low = middle + 1;
		else
			high = middle;
	}
	return low < plan->range_count && plan->ranges[low].start <= address ? &plan->ranges[low]
									     : NULL;
}

struct cprof_plan_module *cprof_plan_module_at(const struct cprof_plan *plan, uint64_t address)
{
	const struct cprof_plan_range *range = cprof_plan_range_at(plan, address);

	return range ? range->module : NULL;
}

/* --- modules ------------------------------------------------------------------------------- */

/* Whether the file that stands at the path is what is mapped: its build-id is in the target's
 * memory, in the first page. Without one nothing can be said, and nothing is to be written. */
static bool same_file(const struct cprof_plan *plan, const struct cprof_plan_range *range)
{
	const struct cprof_image_info *info = cprof_image_info(range->file->image);
	uint8_t page[PAGE];
	size_t got =
		cprof_target_read(plan->target, range->start - range->offset, page, sizeof(page));

	return info->build_id_length >= 8 &&
	       memmem(page, got, info->build_id, info->build_id_length) != NULL;
}

static struct cprof_error *add_module(struct cprof_plan *plan, struct cprof_plan_range *range,
				      uint64_t bias)
{
	struct cprof_plan_file *file = range->file;
	struct cprof_plan_module *module;

	if (!cprof_grow(&plan->modules, &plan->module_capacity, plan->module_count + 1,
			sizeof(struct cprof_plan_module *)))
		return cprof_error_nomem();
	module = calloc(1, sizeof(*module));
	if (module)
		module->slots = calloc(file->linkage.import_count + 1, sizeof(*module->slots));
	if (!module || !module->slots) {
		free(module);
		return cprof_error_nomem();
	}
	module->file = file;
	module->bias = bias;
	module->fresh = true;
	module->known = file->image && (file->verified || same_file(plan, range));
	plan->modules[plan->module_count++] = module;
	range->module = module;
	return NULL;
}

/* The module a range belongs to, which may be new. */
static struct cprof_error *bind_range(struct cprof_plan *plan, struct cprof_plan_range *range)
{
	uint64_t bias = range->start - range->offset;

	if (range->file->image &&
	    !cprof_image_bias(range->file->image, range->start, range->offset, &bias))
		return NULL;
	for (size_t i = 0; i < plan->module_count; i++)
		if (plan->modules[i]->file == range->file && plan->modules[i]->bias == bias) {
			range->module = plan->modules[i];
			return NULL;
		}
	return add_module(plan, range, bias);
}

/* The dynamic linker makes the range read-only when it has written all that is in it, whole pages
 * only. Without such a range nothing tells; but then nobody changes protections there either. */
static bool is_relocated(const struct cprof_plan *plan, const struct cprof_plan_module *module)
{
	const struct cprof_linkage *linkage = &module->file->linkage;
	uint64_t start = (linkage->relro_start + module->bias) & ~(PAGE - 1);
	uint64_t end = (linkage->relro_end + module->bias) & ~(PAGE - 1);
	const struct cprof_plan_range *range = cprof_plan_range_at(plan, start);

	if (!module->known)
		return false;
	return !linkage->import_count || start >= end || (range && !(range->prot & PROT_WRITE));
}

static void destroy_module(struct cprof_plan_module *module)
{
	free(module->slots);
	free(module);
}

static void drop_gone(struct cprof_plan *plan)
{
	size_t kept = 0;

	for (size_t i = 0; i < plan->module_count; i++) {
		struct cprof_plan_module *module = plan->modules[i];

		if (module->seen) {
			plan->modules[kept++] = module;
			continue;
		}
		for (size_t s = 0; s < module->file->linkage.import_count; s++)
			if (module->slots[s].order)
				cprof_plan_release(plan, module->slots[s].order - 1);
		destroy_module(module);
	}
	plan->module_count = kept;
	kept = 0;
	for (size_t i = 0; i < plan->file_count; i++) {
		if (plan->files[i]->used)
			plan->files[kept++] = plan->files[i];
		else
			destroy_file(plan->files[i]);
	}
	plan->file_count = kept;
}

/* --- the dynamic linker's list ------------------------------------------------------------- */

/* DT_DEBUG of the program: where the list begins (struct r_debug of <link.h>); 0 if not found. */
static uint64_t list_of(const struct cprof_plan *plan, const struct cprof_plan_module *module)
{
	Elf64_Dyn entries[DYNAMIC_MAX];
	size_t got = cprof_target_read(plan->target, module->file->linkage.dynamic + module->bias,
				       entries, sizeof(entries));
	struct r_debug debug;

	for (size_t i = 0; i < got / sizeof(*entries) && entries[i].d_tag != DT_NULL; i++)
		if (entries[i].d_tag == DT_DEBUG &&
		    cprof_target_read(plan->target, entries[i].d_un.d_val, &debug, sizeof(debug)) ==
			    sizeof(debug))
			return (uintptr_t)debug.r_map;
	return 0;
}

static struct cprof_plan_module *find_dynamic(const struct cprof_plan *plan, uint64_t dynamic)
{
	for (size_t i = 0; i < plan->module_count; i++) {
		const struct cprof_plan_file *file = plan->modules[i]->file;

		if (file->linkage.dynamic &&
		    file->linkage.dynamic + plan->modules[i]->bias == dynamic)
			return plan->modules[i];
	}
	return NULL;
}

static bool make_needed_initial(struct cprof_plan *plan, const struct cprof_linkage *linkage)
{
	bool more = false;

	for (size_t i = 0; i < plan->module_count; i++) {
		struct cprof_plan_module *module = plan->modules[i];
		uint64_t soname = module->file->linkage.soname;

		if (module->initial || module->position == UINT32_MAX || !soname)
			continue;
		for (size_t n = 0; n < linkage->needed_count; n++)
			module->initial |= linkage->needed[n] == soname;
		more |= module->initial;
	}
	return more;
}

/*
 * Which modules were there from the start, so that all names are looked up in them in the list's
 * order: those up to the C library or the dynamic linker, since later ones are put at the end
 * (libraries to preload are in front); and whatever such a module needs.
 */
static void find_initial(struct cprof_plan *plan, uint32_t last)
{
	bool more = true;

	for (size_t i = 0; i < plan->module_count; i++)
		plan->modules[i]->initial = plan->modules[i]->position <= last;
	while (more) {
		more = false;
		for (size_t i = 0; i < plan->module_count; i++)
			if (plan->modules[i]->initial)
				more |= make_needed_initial(plan, &plan->modules[i]->file->linkage);
	}
}

static void read_list(struct cprof_plan *plan)
{
	uint64_t next = 0;
	uint32_t last = 0;

	for (size_t i = 0; i < plan->module_count; i++) {
		plan->modules[i]->position = UINT32_MAX;
		if (!next && plan->modules[i]->file->linkage.interpreter)
			next = list_of(plan, plan->modules[i]);
	}
	for (uint32_t i = 0; next && i < LINK_MAPS_MAX; i++) {
		struct cprof_plan_module *module;
		struct link_map entry;

		if (cprof_target_read(plan->target, next, &entry, sizeof(entry)) != sizeof(entry))
			break;
		next = (uintptr_t)entry.l_next;
		module = find_dynamic(plan, (uintptr_t)entry.l_ld);
		if (!module)
			continue;
		module->position = i;
		if (cprof_plan_defines(module->file, CPROF_PLAN_LIBC) ||
		    cprof_plan_defines(module->file, CPROF_PLAN_LINKER))
			last = i;
	}
	find_initial(plan, last);
}

struct cprof_error *cprof_plan_find_modules(struct cprof_plan *plan)
{
	for (size_t i = 0; i < plan->module_count; i++)
		plan->modules[i]->seen = false;
	for (size_t i = 0; i < plan->file_count; i++)
		plan->files[i]->used = false;
	for (size_t i = 0; i < plan->range_count; i++) {
		struct cprof_plan_range *range = &plan->ranges[i];

		if (!range->file)
			continue;
		range->file->used = true;
		if (!range->file->elf)
			continue;
		CPROF_TRY(bind_range(plan, range));
		if (range->module)
			range->module->seen = true;
	}
	drop_gone(plan);
	for (size_t i = 0; i < plan->module_count; i++)
		plan->modules[i]->relocated = is_relocated(plan, plan->modules[i]);
	read_list(plan);
	return NULL;
}

void cprof_plan_forget(struct cprof_plan *plan)
{
	for (size_t i = 0; i < plan->module_count; i++)
		destroy_module(plan->modules[i]);
	for (size_t i = 0; i < plan->file_count; i++)
		destroy_file(plan->files[i]);
	free(plan->modules);
	free(plan->files);
	free(plan->ranges);
	free(plan->spare);
}
