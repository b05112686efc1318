/* SPDX-License-Identifier: MIT
 *
 * Private to the unwind floor: the naming half of a module, with an image, separate debug files
 * and a lock of its own.
 */
#ifndef CPROF_UNWIND_NAMING_H
#define CPROF_UNWIND_NAMING_H

#include <cprof/space.h>
#include <pthread.h>

enum cprof_naming_source {
	CPROF_NAMING_NONE,
	CPROF_NAMING_ELF,
	CPROF_NAMING_PERF_MAP,
	CPROF_NAMING_KERNEL
};

struct cprof_naming {
	pthread_mutex_t lock; /* for all below */
	enum cprof_naming_source source;
	struct cprof_target *target; /* whose perf map; in whose root debug files may be */
	struct cprof_image *image;
	const char *debug_dir;
	const char *path;
	int fd;      /* the file, until its image is created */
	void *bytes; /* the vDSO's, until then */
	size_t length;
	bool opened;
	uint64_t map_size; /* of the perf map read last */
	uint64_t map_mtime_ns;
	bool has_symbols; /* these three are only ever set, and may be read without the lock */
	bool has_lines;
	bool has_inlines;
};

void cprof_naming_init(struct cprof_naming *naming);
void cprof_naming_deinit(struct cprof_naming *naming);
/* Takes `fd` over; copies `bytes`; `path` and `debug_dir` must outlive it. */
void cprof_naming_use_image(struct cprof_naming *naming, struct cprof_target *target,
			    const char *debug_dir, const char *path, int fd, const void *bytes,
			    size_t length);
void cprof_naming_use_perf_map(struct cprof_naming *naming, struct cprof_target *target);
void cprof_naming_use_kernel(struct cprof_naming *naming);
void cprof_naming_facts(const struct cprof_naming *naming, struct cprof_module_facts *facts);
struct cprof_error *cprof_naming_names(struct cprof_naming *naming, const uint64_t *addresses,
				       size_t count, unsigned flags, struct cprof_names *names);
bool cprof_naming_variable(struct cprof_naming *naming, uint64_t address, char *name, size_t size,
			   uint64_t *start);

#endif
