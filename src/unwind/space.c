/* SPDX-License-Identifier: MIT
 *
 * The executable regions of a process, sorted; each bound to its module on the first address in it.
 */
#include "module.h"

#include <cprof/util.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define VDSO_MAX      (1u << 20)
#define BUILD_ID_SCAN 4096

struct slot { /* a region and what binding it needs */
	struct cprof_region region;
	uint64_t dev;
	uint64_t ino;
};

struct cprof_space {
	struct cprof_target *target;
	struct cprof_modules *modules;
	struct slot *slots;
	size_t count;
	size_t capacity;
	size_t last; /* the slot found last: frames come in runs of one module */
	uint32_t next_id;
};

struct cprof_error *cprof_space_create(struct cprof_target *target, struct cprof_modules *modules,
				       struct cprof_space **result)
{
	struct cprof_space *space = calloc(1, sizeof(*space));

	if (!space)
		return cprof_error_nomem();
	space->target = target;
	space->modules = modules;
	*result = space;
	return NULL;
}

void cprof_space_destroy(struct cprof_space *space)
{
	if (!space)
		return;
	free(space->slots);
	free(space);
}

struct cprof_target *cprof_space_target(const struct cprof_space *space)
{
	return space->target;
}

/* --- changing ------------------------------------------------------------------------------ */

/* Index of the first slot that ends above `address`. */
static size_t lower_bound(const struct cprof_space *space, uint64_t address)
{
	size_t low = 0;
	size_t high = space->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (space->slots[middle].region.end <= address)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static void remove_slots(struct cprof_space *space, size_t from, size_t to)
{
	memmove(space->slots + from, space->slots + to,
		(space->count - to) * sizeof(*space->slots));
	space->count -= to - from;
}

/* Cuts [start, end) out of the regions. There must be room for one more slot. */
static void cut(struct cprof_space *space, uint64_t start, uint64_t end)
{
	size_t from = lower_bound(space, start);
	size_t to;

	if (from < space->count && space->slots[from].region.start < start) {
		struct slot tail = space->slots[from];

		space->slots[from++].region.end = start;
		if (tail.region.end > end) { /* a hole in the middle */
			tail.region.offset += end - tail.region.start;
			tail.region.start = end;
			tail.region.id = ++space->next_id;
			memmove(space->slots + from + 1, space->slots + from,
				(space->count - from) * sizeof(*space->slots));
			space->slots[from] = tail;
			space->count++;
			return;
		}
	}
	for (to = from; to < space->count && space->slots[to].region.end <= end; to++)
		continue;
	remove_slots(space, from, to);
	if (from < space->count && space->slots[from].region.start < end) {
		struct cprof_region *region = &space->slots[from].region;

		region->offset += end - region->start;
		region->start = end;
	}
}

static struct cprof_error *insert(struct cprof_space *space, const struct slot *slot)
{
	size_t at;

	if (slot->region.start >= slot->region.end)
		return NULL;
	if (!cprof_grow(&space->slots, &space->capacity, space->count + 2, sizeof(*space->slots)))
		return cprof_error_nomem();
	cut(space, slot->region.start, slot->region.end);
	at = lower_bound(space, slot->region.start);
	memmove(space->slots + at + 1, space->slots + at,
		(space->count - at) * sizeof(*space->slots));
	space->slots[at] = *slot;
	space->slots[at].region.id = ++space->next_id;
	space->count++;
	space->last = 0;
	return NULL;
}

struct cprof_error *cprof_space_map(struct cprof_space *space, const struct cprof_mapping *mapping)
{
	struct slot slot = {
		.region = {.start = mapping->start, .end = mapping->end, .offset = mapping->offset},
		.dev = makedev(mapping->device_major, mapping->device_minor),
		.ino = mapping->inode,
	};
	size_t at;

	if (!(mapping->prot & PROT_EXEC))
		return NULL;
	slot.region.path = cprof_modules_keep(space->modules, mapping->path);
	if (!slot.region.path)
		return cprof_error_nomem();
	/*
	 * The same mapping told again keeps its region, and its id and module unless the file
	 * behind the same inode is another by now (a plugin built anew, then loaded again): see
	 * bind_slot().
	 */
	at = lower_bound(space, mapping->start);
	if (at < space->count) {
		struct slot *old = &space->slots[at];

		if (old->region.start == slot.region.start && old->region.end == slot.region.end &&
		    old->region.offset == slot.region.offset &&
		    old->region.path == slot.region.path && old->dev == slot.dev &&
		    old->ino == slot.ino) {
			old->region.bound = false;
			return NULL;
		}
	}
	return insert(space, &slot);
}

struct cprof_error *cprof_space_map_module(struct cprof_space *space, uint64_t start, uint64_t end,
					   uint64_t bias, struct cprof_module *module)
{
	struct slot slot = {.region = {.start = start,
				       .end = end,
				       .bias = bias,
				       .module = module,
				       .bound = true,
				       .path = ""}};

	return insert(space, &slot);
}

struct listing {
	struct cprof_space *space;
	uint64_t reached; /* everything below has been told */
};

static struct cprof_error *refresh_one(void *context, const struct cprof_mapping *mapping)
{
	struct listing *listing = context;
	struct cprof_space *space = listing->space;

	if (!(mapping->prot & PROT_EXEC))
		return NULL;
	if (mapping->start > listing->reached) {
		if (!cprof_grow(&space->slots, &space->capacity, space->count + 1,
				sizeof(*space->slots)))
			return cprof_error_nomem();
		cut(space, listing->reached, mapping->start);
	}
	listing->reached = mapping->end;
	return cprof_space_map(space, mapping);
}

struct cprof_error *cprof_space_refresh(struct cprof_space *space)
{
	struct listing listing = {.space = space};

	space->last = 0;
	CPROF_TRY(cprof_target_maps(space->target, refresh_one, &listing));
	if (listing.reached) /* nothing at all: the process is on its way out; keep what is known */
		remove_slots(space, lower_bound(space, listing.reached), space->count);
	return NULL;
}

/* --- binding ------------------------------------------------------------------------------- */

/* Whether a file that stands at the mapping's path is what is mapped: its build-id is in the
 * target's memory, or it has none and the inode number is right. */
static bool same_file(struct cprof_space *space, const struct slot *slot, int fd)
{
	const struct cprof_image_info *info;
	struct cprof_image *image = NULL;
	struct stat stat;
	bool same;

	if (fstat(fd, &stat) != 0)
		return false;
	cprof_error_destroy(cprof_image_create(fd, &image));
	if (!image)
		return false;
	info = cprof_image_info(image);
	if (info->build_id_length < 8) {
		same = stat.st_ino == slot->ino;
	} else {
		/* The notes are in the first page of the first segment. */
		uint64_t first = slot->region.start - slot->region.offset;
		uint8_t page[BUILD_ID_SCAN];
		size_t got = cprof_target_read(space->target, first, page, sizeof(page));

		same = memmem(page, got, info->build_id, info->build_id_length) != NULL;
	}
	cprof_image_destroy(image);
	return same;
}

static int open_slot(struct cprof_space *space, const struct slot *slot)
{
	struct cprof_mapping mapping = {
		.start = slot->region.start,
		.end = slot->region.end,
		.offset = slot->region.offset,
		.inode = slot->ino,
		.device_major = major(slot->dev),
		.device_minor = minor(slot->dev),
		.path = slot->region.path,
	};
	bool verified;
	int fd = cprof_target_open_file(space->target, &mapping, &verified);

	if (fd >= 0 && !verified && !same_file(space, slot, fd)) {
		close(fd);
		return -1;
	}
	return fd;
}

static struct cprof_module *bind_vdso(struct cprof_space *space, const struct slot *slot)
{
	struct cprof_module_key key = {.kind = CPROF_MODULE_VDSO};
	size_t length = CPROF_MIN(slot->region.end - slot->region.start, VDSO_MAX);
	CPROF_AUTO_FREE void *bytes = malloc(length);

	if (!bytes)
		return NULL;
	length = cprof_target_read(space->target, slot->region.start, bytes, length);
	if (!length)
		return NULL;
	return cprof_modules_get(space->modules, &key, space->target, "[vdso]", -1, bytes, length);
}

static struct cprof_module *bind_file(struct cprof_space *space, const struct slot *slot)
{
	struct cprof_module_key key = {
		.kind = CPROF_MODULE_FILE, .dev = slot->dev, .ino = slot->ino};
	int fd = open_slot(space, slot);
	struct stat stat;

	if (fd >= 0 && fstat(fd, &stat) == 0) {
		key.size = (uint64_t)stat.st_size;
		key.mtime_ns = (uint64_t)stat.st_mtim.tv_sec * 1000000000u +
			       (uint64_t)stat.st_mtim.tv_nsec;
	}
	return cprof_modules_get(space->modules, &key, space->target, slot->region.path, fd, NULL,
				 0);
}

static struct cprof_module *find_module(struct cprof_space *space, const struct slot *slot)
{
	struct cprof_module_key jit = {.kind = CPROF_MODULE_JIT, .owner = space->target};
	const char *path = slot->region.path;

	if (strcmp(path, "[vdso]") == 0)
		return bind_vdso(space, slot);
	if (slot->ino && path[0] == '/')
		return bind_file(space, slot);
	if (strcmp(path, "[vsyscall]") == 0)
		return NULL;
	return cprof_modules_get(space->modules, &jit, space->target, "[jit]", -1, NULL, 0);
}

static void bind_slot(struct cprof_space *space, struct slot *slot)
{
	struct cprof_region *region = &slot->region;
	struct cprof_module *module = find_module(space, slot);

	region->bound = true;
	if (region->module) { /* bound before: what cannot be opened any more is as it was */
		if (module == region->module || !module || !cprof_module_image(module))
			return;
		region->id = ++space->next_id;
	}
	region->bias = 0;
	region->module = module;
	if (!region->module || !cprof_module_image(region->module))
		return;
	if (!cprof_image_bias(cprof_module_image(region->module), region->start, region->offset,
			      &region->bias))
		region->module = NULL; /* no segment is mapped there: no rule would be right */
}

/* --- finding ------------------------------------------------------------------------------- */

const struct cprof_region *cprof_space_find(struct cprof_space *space, uint64_t address)
{
	size_t at = space->last;
	struct slot *slot;

	if (at >= space->count || address < space->slots[at].region.start ||
	    address >= space->slots[at].region.end) {
		at = lower_bound(space, address);
		if (at >= space->count || address < space->slots[at].region.start)
			return NULL;
		space->last = at;
	}
	slot = &space->slots[at];
	if (!slot->region.bound)
		bind_slot(space, slot);
	return &slot->region;
}

const struct cprof_region *cprof_space_main(struct cprof_space *space)
{
	const char *exe = space->target ? cprof_target_info(space->target)->exe : "";

	if (!*exe) /* it is ending: nothing can be read any more */
		return NULL;
	for (size_t i = 0; i < space->count; i++)
		if (strcmp(space->slots[i].region.path, exe) == 0)
			return cprof_space_find(space, space->slots[i].region.start);
	return NULL;
}

size_t cprof_space_usual(struct cprof_space *space, struct cprof_module *modules[2])
{
	const char *exe = cprof_target_info(space->target)->exe;
	size_t count = 0;

	for (size_t i = 0; i < space->count && count < 2; i++) {
		const char *path = space->slots[i].region.path;
		const char *slash = strrchr(path, '/');
		const struct cprof_region *region;

		if (strcmp(path, exe) != 0 &&
		    (!slash || (strncmp(slash, "/libc.so", 8) && strncmp(slash, "/libc-", 6))))
			continue;
		region = cprof_space_find(space, space->slots[i].region.start);
		if (region && region->module && (!count || modules[0] != region->module))
			modules[count++] = region->module;
	}
	return count;
}

const struct cprof_rule *cprof_space_rule(struct cprof_space *space,
					  const struct cprof_region *region, uint64_t address,
					  const struct cprof_rule_full **full)
{
	static const struct cprof_rule none = {.kind = CPROF_RULE_NONE};
	const struct cprof_rule *rule;

	(void)space;
	*full = NULL;
	if (!region->module)
		return &none;
	rule = cprof_module_rule(region->module, address - region->bias);
	if (rule->kind != CPROF_RULE_FULL || !cprof_module_image(region->module))
		return rule;
	*full = cprof_image_full_rule(cprof_module_image(region->module),
				      (uint32_t)rule->cfa_offset);
	return *full ? rule : &none;
}
