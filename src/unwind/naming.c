/* SPDX-License-Identifier: MIT
 *
 * Naming of a module's addresses: opens its image and debug files when first asked.
 */
#include "naming.h"

#include <cprof/util.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

void cprof_naming_init(struct cprof_naming *naming)
{
	*naming = (struct cprof_naming){.fd = -1};
	pthread_mutex_init(&naming->lock, NULL);
}

void cprof_naming_deinit(struct cprof_naming *naming)
{
	cprof_image_destroy(naming->image);
	free(naming->bytes);
	if (naming->fd >= 0)
		close(naming->fd);
	pthread_mutex_destroy(&naming->lock);
}

void cprof_naming_use_image(struct cprof_naming *naming, struct cprof_target *target,
			    const char *debug_dir, const char *path, int fd, const void *bytes,
			    size_t length)
{
	naming->source = CPROF_NAMING_ELF;
	naming->target = target;
	naming->debug_dir = debug_dir;
	naming->path = path;
	naming->fd = fd;
	if (bytes && (naming->bytes = malloc(length))) {
		memcpy(naming->bytes, bytes, length);
		naming->length = length;
	}
}

void cprof_naming_use_perf_map(struct cprof_naming *naming, struct cprof_target *target)
{
	naming->source = target ? CPROF_NAMING_PERF_MAP : CPROF_NAMING_NONE;
	naming->target = target;
}

void cprof_naming_use_kernel(struct cprof_naming *naming)
{
	naming->source = CPROF_NAMING_KERNEL;
}

/* --- separate debug files ------------------------------------------------------------------ */

/* Tries a path inside the target's root, then in ours: the image decides whether it fits. */
static bool try_debug_file(struct cprof_naming *naming, const char *path)
{
	int fds[2] = {-1, -1};
	bool added = false;

	if (naming->target)
		fds[0] = cprof_target_open_path(naming->target, path, true);
	fds[1] = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	for (size_t i = 0; i < CPROF_COUNT(fds); i++) {
		struct stat stat;

		if (fds[i] < 0)
			continue;
		added = added || (fstat(fds[i], &stat) == 0 && S_ISREG(stat.st_mode) &&
				  cprof_image_add_debug(naming->image, fds[i]));
		close(fds[i]);
	}
	return added;
}

/* The two conventions of gdb's manual, "Debugging Information in Separate Files". */
static void load_debug(struct cprof_naming *naming)
{
	const struct cprof_image_info *info = cprof_image_info(naming->image);
	const char *slash = naming->path ? strrchr(naming->path, '/') : NULL;
	int directory = slash ? (int)(slash - naming->path) : 0;
	char id[2 * CPROF_BUILD_ID_MAX + 1] = "";
	char path[8192];

	for (uint32_t i = 0; i < info->build_id_length; i++)
		snprintf(id + 2 * i, 3, "%02x", info->build_id[i]);
	if (info->build_id_length > 1) {
		snprintf(path, sizeof(path), "%s/.build-id/%.2s/%s.debug", naming->debug_dir, id,
			 id + 2);
		if (try_debug_file(naming, path))
			return;
	}
	if (!info->debug_link[0] || strchr(info->debug_link, '/') || !slash)
		return;
	snprintf(path, sizeof(path), "%.*s/%s", directory, naming->path, info->debug_link);
	if (strcmp(path, naming->path) != 0 && try_debug_file(naming, path))
		return;
	snprintf(path, sizeof(path), "%.*s/.debug/%s", directory, naming->path, info->debug_link);
	if (try_debug_file(naming, path))
		return;
	snprintf(path, sizeof(path), "%s%.*s/%s", naming->debug_dir, directory, naming->path,
		 info->debug_link);
	try_debug_file(naming, path);
}

/* --- opening ------------------------------------------------------------------------------- */

static struct cprof_error *open_elf(struct cprof_naming *naming)
{
	struct cprof_error *error;

	if (naming->fd < 0 && !naming->bytes)
		return NULL;
	if (naming->fd >= 0)
		error = cprof_image_create(naming->fd, &naming->image);
	else
		error = cprof_image_create_memory(naming->bytes, naming->length, &naming->image);
	if (naming->fd >= 0)
		close(naming->fd);
	naming->fd = -1;
	if (!error && !cprof_image_info(naming->image)->has_debug_info)
		load_debug(naming);
	return error;
}

/* The map grows while the JIT works: read again whenever it has changed. Only a regular file of
 * the target's user is believed. */
static struct cprof_error *open_perf_map(struct cprof_naming *naming)
{
	CPROF_AUTO_CLOSE int fd = -1;
	uint64_t mtime;
	struct stat stat;
	char path[64];

	snprintf(path, sizeof(path), "/tmp/perf-%d.map",
		 (int)cprof_target_info(naming->target)->inner_pid);
	fd = cprof_target_open_path(naming->target, path, false);
	if (fd < 0 || fstat(fd, &stat) != 0 || stat.st_uid != cprof_target_uid(naming->target))
		return NULL;
	mtime = (uint64_t)stat.st_mtim.tv_sec * 1000000000u + (uint64_t)stat.st_mtim.tv_nsec;
	if (naming->image && naming->map_size == (uint64_t)stat.st_size &&
	    naming->map_mtime_ns == mtime)
		return NULL;
	cprof_image_destroy(cprof_take(naming->image));
	naming->map_size = (uint64_t)stat.st_size;
	naming->map_mtime_ns = mtime;
	return cprof_image_create_perf_map(fd, &naming->image);
}

static struct cprof_error *open_kernel(struct cprof_naming *naming)
{
	CPROF_AUTO_CLOSE int fd = open("/proc/kallsyms", O_RDONLY | O_CLOEXEC);

	return fd >= 0 ? cprof_image_create_kallsyms(fd, &naming->image) : NULL;
}

static void open_source(struct cprof_naming *naming)
{
	struct cprof_error *error = NULL;

	if (naming->source == CPROF_NAMING_PERF_MAP)
		error = open_perf_map(naming);
	else if (!naming->opened && naming->source == CPROF_NAMING_ELF)
		error = open_elf(naming);
	else if (!naming->opened && naming->source == CPROF_NAMING_KERNEL)
		error = open_kernel(naming);
	naming->opened = true;
	cprof_error_destroy(error); /* what cannot be opened leaves its addresses unnamed */
}

/* --- asking -------------------------------------------------------------------------------- */

static void learn(bool *fact, bool true_now)
{
	if (true_now)
		__atomic_store_n(fact, true, __ATOMIC_RELAXED);
}

static void learn_facts(struct cprof_naming *naming, const struct cprof_names *names)
{
	for (size_t i = 0; i < names->count; i++) {
		learn(&naming->has_symbols, names->names[i].name != 0);
		learn(&naming->has_lines, names->names[i].line != 0);
		learn(&naming->has_inlines, names->names[i].inlined != 0);
	}
}

struct cprof_error *cprof_naming_names(struct cprof_naming *naming, const uint64_t *addresses,
				       size_t count, unsigned flags, struct cprof_names *names)
{
	struct cprof_error *error = NULL;

	pthread_mutex_lock(&naming->lock);
	open_source(naming);
	if (naming->image) {
		error = cprof_image_names(naming->image, addresses, count, flags, names);
		if (!error)
			learn_facts(naming, names);
	} else {
		*names = (struct cprof_names){.addresses = count};
		names->first = calloc(count + 1, sizeof(*names->first));
		names->strings = calloc(1, 1);
		if (!names->first || !names->strings) {
			cprof_names_deinit(names);
			error = cprof_error_nomem();
		}
	}
	pthread_mutex_unlock(&naming->lock);
	return error;
}

bool cprof_naming_variable(struct cprof_naming *naming, uint64_t address, char *name, size_t size,
			   uint64_t *start)
{
	bool found = false;

	pthread_mutex_lock(&naming->lock);
	if (naming->source == CPROF_NAMING_ELF) {
		open_source(naming);
		found = naming->image &&
			cprof_image_variable(naming->image, address, name, size, start);
	}
	pthread_mutex_unlock(&naming->lock);
	return found;
}

/* Without the lock: who asks must not wait while debug information is being read. */
void cprof_naming_facts(const struct cprof_naming *naming, struct cprof_module_facts *facts)
{
	facts->has_symbols = __atomic_load_n(&naming->has_symbols, __ATOMIC_RELAXED);
	facts->has_lines = __atomic_load_n(&naming->has_lines, __ATOMIC_RELAXED);
	facts->has_inlines = __atomic_load_n(&naming->has_inlines, __ATOMIC_RELAXED);
}
