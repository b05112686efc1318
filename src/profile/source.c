/* SPDX-License-Identifier: MIT */
#include <cprof/source.h>
#include <cprof/util.h>

struct saved {
	struct cprof_source base;
	struct cprof_profile *profile;
};

static struct cprof_error *saved_snapshot(struct cprof_source *source, const char *kind,
					  struct cprof_profile **profile)
{
	/* A file holds one profile, whatever it is called. */
	(void)kind;
	return cprof_profile_clone(((struct saved *)source)->profile, profile);
}

static bool saved_live(struct cprof_source *source)
{
	(void)source;
	return false;
}

static void saved_destroy(struct cprof_source *source)
{
	struct saved *saved = (struct saved *)source;

	cprof_profile_destroy(saved->profile);
	free(saved);
}

static const struct cprof_source_ops saved_ops = {
	.snapshot = saved_snapshot,
	.live = saved_live,
	.destroy = saved_destroy,
};

struct cprof_error *cprof_source_create_saved(struct cprof_profile *profile,
					      struct cprof_source **source)
{
	struct saved *saved = malloc(sizeof(*saved));

	*source = NULL;
	if (!saved) {
		cprof_profile_destroy(profile);
		return cprof_error_nomem();
	}
	*saved = (struct saved){.base.ops = &saved_ops, .profile = profile};
	*source = &saved->base;
	return NULL;
}
