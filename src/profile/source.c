/* SPDX-License-Identifier: MIT */
#include <cprof/source.h>
#include <cprof/util.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

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

/* Go's mutex and block profiles have the same types. Ours have labels; otherwise a mutex profile is
 * one whose stacks end where locks are given back. */
static bool is_mutex(const struct cprof_profile *profile)
{
	for (size_t i = 0; i < profile->label_item_count; i++) {
		const char *key = profile->strings[profile->label_items[i].key];

		if (!strcmp(key, "lock") || !strcmp(key, "wait"))
			return key[0] == 'l';
	}
	for (size_t i = 1; i < profile->stack_count; i++) {
		const struct cprof_profile_span *stack = &profile->stacks[i];
		const struct cprof_profile_location *leaf =
			&profile->locations[profile->stack_items[stack->first]];
		const char *name;

		if (!stack->count || !leaf->line_count)
			continue;
		name = profile->strings
			       [profile->functions[profile->lines[leaf->first_line].function].name];
		return strstr(name, "nlock");
	}
	return false;
}

/* What a file is of, by its value types; one that is of nothing known is shown as CPU is. */
static const char *kind_of(const struct cprof_profile *profile)
{
	if (cprof_profile_find_type(profile, "cpu") >= 0)
		return "cpu";
	if (cprof_profile_find_type(profile, "cycles") >= 0)
		return "cycles";
	if (cprof_profile_find_type(profile, "inuse_space") >= 0 ||
	    cprof_profile_find_type(profile, "alloc_space") >= 0)
		return "heap";
	if (cprof_profile_find_type(profile, "contentions") >= 0 ||
	    cprof_profile_find_type(profile, "delay") >= 0)
		return is_mutex(profile) ? "mutex" : "block";
	if (cprof_profile_find_type(profile, "threads") >= 0 ||
	    cprof_profile_find_type(profile, "goroutine") >= 0)
		return "threads";
	if (cprof_profile_find_type(profile, "threadcreate") >= 0)
		return "threadcreate";
	return "cpu";
}

static void saved_kind(struct cprof_source *source, const char *kind,
		       struct cprof_source_kind *result)
{
	const char *own = kind_of(((struct saved *)source)->profile);

	*result = (struct cprof_source_kind){.state = CPROF_SOURCE_ABSENT};
	if (!strcmp(kind, own))
		result->state = CPROF_SOURCE_ENDED;
	else
		snprintf(result->detail, sizeof(result->detail),
			 "this file holds another kind of profile (%s)", own);
}

/* Regular files only: a device or a pipe could hang us. */
static int saved_open(struct cprof_source *source, const char *path)
{
	CPROF_AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct stat stat;
	int result = fd;

	(void)source;
	if (fd < 0 || fstat(fd, &stat))
		return -1;
	if (!S_ISREG(stat.st_mode)) {
		errno = EINVAL;
		return -1;
	}
	fd = -1;
	return result;
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
	.kind = saved_kind,
	.open = saved_open,
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
