/* SPDX-License-Identifier: MIT
 *
 * What procfs and the cgroup tree say of a process's memory.
 */
#include "private.h"

#include <cprof/util.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>

#define STATUS_LIMIT (1 << 16)
#define GROUPS_LIMIT (1 << 16)
/* cgroup v1 says "no limit" by the largest number of whole pages. */
#define NO_LIMIT_V1 (INT64_MAX - 0xffff)

/* --- status -------------------------------------------------------------------------------- */

/* The text behind a "Key:" at the start of a line, or NULL. */
static const char *find_field(const char *status, const char *key)
{
	size_t length = strlen(key);

	for (const char *line = status; line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (!strncmp(line, key, length) && line[length] == ':')
			return line + length + 1;
	}
	return NULL;
}

/* A decimal number after blanks; UINT64_MAX if there is none. */
static uint64_t read_number(const char *text)
{
	unsigned long long value;
	char *end;

	if (!text)
		return UINT64_MAX;
	text += strspn(text, " \t");
	if (*text < '0' || *text > '9')
		return UINT64_MAX;
	errno = 0;
	value = strtoull(text, &end, 10);
	return errno ? UINT64_MAX : value;
}

uint32_t cprof_memtrace_count_cpus(const char *mask)
{
	uint32_t count = 0;

	for (; *mask && *mask != '\n'; mask++) {
		char digit[2] = {*mask, '\0'};

		if (strspn(digit, "0123456789abcdefABCDEF"))
			count += (uint32_t)__builtin_popcountl(strtoul(digit, NULL, 16));
	}
	return count;
}

static void read_status(const struct cprof_target *target, struct cprof_memtrace_process *process)
{
	CPROF_AUTO_FREE char *status =
		cprof_read_file_at(cprof_target_procfd(target), "status", STATUS_LIMIT, NULL);
	uint64_t rss = read_number(find_field(status, "VmRSS"));
	uint64_t threads = read_number(find_field(status, "Threads"));
	const char *cpus = find_field(status, "Cpus_allowed");

	process->rss_bytes = rss < UINT64_MAX / 1024 ? rss * 1024 : UINT64_MAX;
	process->threads = threads < UINT32_MAX ? (uint32_t)threads : 0;
	process->cpus = cpus ? cprof_memtrace_count_cpus(cpus) : 0;
}

/* --- the cgroup tree ------------------------------------------------------------------------- */

static uint64_t read_limit(int rootfd, const char *directory, const char *file)
{
	CPROF_AUTO_FREE char *text = NULL;
	char path[PATH_MAX];
	uint64_t limit;

	if ((size_t)snprintf(path, sizeof(path), "%s/%s", directory, file) >= sizeof(path))
		return UINT64_MAX;
	text = cprof_read_file_at(rootfd, path, 64, NULL);
	limit = read_number(text); /* "max" is no number */
	return limit < NO_LIMIT_V1 ? limit : UINT64_MAX;
}

static bool leads_out(const char *path)
{
	for (; (path = strstr(path, "/..")); path++)
		if (path[3] == '/' || !path[3])
			return true;
	return false;
}

/* From a group up to the top of the tree that is mounted at `mount`. A path that leads out of what
 * we see (`/../other`) says nothing about what is there by the same name: only the top is asked. */
static uint64_t walk(int rootfd, const char *mount, const char *group, size_t length,
		     const char *const *files)
{
	uint64_t limit = UINT64_MAX;
	char directory[PATH_MAX];
	size_t top = strlen(mount);
	int used;

	if (length > INT_MAX)
		return limit;
	used = snprintf(directory, sizeof(directory), "%s%.*s", mount, (int)length, group);
	if (used < 0 || (size_t)used >= sizeof(directory))
		return limit;
	if (leads_out(directory + top))
		directory[top] = '\0';
	for (;;) {
		char *slash;

		for (const char *const *file = files; *file; file++)
			limit = CPROF_MIN(limit, read_limit(rootfd, directory, *file));
		slash = strrchr(directory + top, '/');
		if (!slash)
			return limit;
		*slash = '\0';
	}
}

/* Whether a list like "cpu,memory" holds this word. */
static bool lists(const char *list, size_t length, const char *word)
{
	size_t wanted = strlen(word);

	for (size_t at = 0; at < length;) {
		size_t next = strcspn(list + at, ",:");

		if (next == wanted && !strncmp(list + at, word, wanted))
			return true;
		at += next + 1;
	}
	return false;
}

uint64_t cprof_memtrace_limit(int rootfd, const char *groups)
{
	static const char *const files_v2[] = {"memory.high", "memory.max", NULL};
	static const char *const files_v1[] = {"memory.limit_in_bytes", NULL};
	uint64_t limit = UINT64_MAX;

	/* "0::/group" is v2's line, "4:memory:/group" one of v1; the kernel allows no newline in a
	 * group's name. */
	for (const char *line = groups; *line; line += strcspn(line, "\n"), line += *line == '\n') {
		size_t length = strcspn(line, "\n");
		const char *list = memchr(line, ':', length);
		const char *group =
			list ? memchr(list + 1, ':', length - (size_t)(list + 1 - line)) : NULL;
		size_t rest;

		if (!group || group[1] != '/')
			continue;
		list++;
		rest = length - (size_t)(++group - line);
		if (group - 1 == list) {
			limit = CPROF_MIN(limit, walk(rootfd, ".", group, rest, files_v2));
			limit = CPROF_MIN(limit, walk(rootfd, "unified", group, rest, files_v2));
		} else if (lists(list, (size_t)(group - 1 - list), "memory")) {
			limit = CPROF_MIN(limit, walk(rootfd, "memory", group, rest, files_v1));
		}
	}
	return limit;
}

static uint64_t find_limit(const struct cprof_target *target)
{
	CPROF_AUTO_FREE char *groups =
		cprof_read_file_at(cprof_target_procfd(target), "cgroup", GROUPS_LIMIT, NULL);
	CPROF_AUTO_CLOSE int rootfd = open("/sys/fs/cgroup", O_PATH | O_DIRECTORY | O_CLOEXEC);

	return groups && rootfd >= 0 ? cprof_memtrace_limit(rootfd, groups) : UINT64_MAX;
}

void cprof_memtrace_process(const struct cprof_target *target,
			    struct cprof_memtrace_process *process)
{
	*process = (struct cprof_memtrace_process){
		.limit_bytes = find_limit(target),
		.cpu_ns = cprof_target_cpu_ns(target),
		/* Allocators keep these to themselves, in layouts that no one promises. */
		.held_bytes = -1,
		.in_use_bytes = -1,
	};
	read_status(target, process);
}
