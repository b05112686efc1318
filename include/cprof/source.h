/* SPDX-License-Identifier: MIT
 *
 * Where profiles come from: a live session or a saved file. The live view, HTTP and reports see
 * only this.
 */
#ifndef CPROF_SOURCE_H
#define CPROF_SOURCE_H

#include <cprof/error.h>
#include <cprof/profile.h>
#include <stdbool.h>

struct cprof_source;
struct cprof_source_ops {
	/* A copy of the profile of one kind ("cpu", "heap", …; NULL: the only or first one) as it
	 * stands now, named; the caller destroys it. */
	struct cprof_error *(*snapshot)(struct cprof_source *source, const char *kind,
					struct cprof_profile **profile);
	/* True while more data may come. */
	bool (*live)(struct cprof_source *source);
	void (*destroy)(struct cprof_source *source);
};
struct cprof_source {
	const struct cprof_source_ops *ops;
};

/* A saved profile. Takes the profile over. */
struct cprof_error *cprof_source_create_saved(struct cprof_profile *profile,
					      struct cprof_source **source);
static inline void cprof_source_destroy(struct cprof_source *source)
{
	if (source)
		source->ops->destroy(source);
}

#endif
