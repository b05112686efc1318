/* SPDX-License-Identifier: MIT
 *
 * The number of a tracepoint, which only tracefs tells. Where that is mounted nowhere and we may
 * mount, a mount that nobody else sees does.
 */
#include "private.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mount.h>

#define TRACING "/sys/kernel/tracing"

/* The directory of all events, or -1 with errno. */
static int open_mounted(void)
{
	static const char *const places[] = {TRACING "/events", "/sys/kernel/debug/tracing/events"};
	int errnum = ENOENT;

	for (size_t i = 0; i < CPROF_COUNT(places); i++) {
		int fd = open(places[i], O_PATH | O_DIRECTORY | O_CLOEXEC);

		if (fd >= 0)
			return fd;
		if (errnum == ENOENT)
			errnum = errno;
	}
	errno = errnum;
	return -1;
}

static int open_unmounted(void)
{
	int CPROF_AUTO_CLOSE context = fsopen("tracefs", FSOPEN_CLOEXEC);
	int CPROF_AUTO_CLOSE mount = -1;

	if (context < 0 || fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
		return -1;
	mount = fsmount(context, FSMOUNT_CLOEXEC, 0);
	return mount < 0 ? -1 : openat(mount, "events", O_PATH | O_DIRECTORY | O_CLOEXEC);
}

struct cprof_error *cprof_tracepoint_find(const char *name, uint64_t *id)
{
	int CPROF_AUTO_CLOSE events = open_mounted();
	int errnum = events < 0 ? errno : 0;
	CPROF_AUTO_FREE char *text = NULL;
	unsigned long long number;
	char path[128];

	if (errnum == ENOENT)
		events = open_unmounted();
	if (errnum == ENOENT && events < 0)
		return cprof_error_create(CPROF_DENIED,
					  "mount it: mount -t tracefs none " TRACING
					  "; or run as root, or with CAP_PERFMON and CAP_BPF",
					  "tracepoint %s: tracefs is not mounted", name);
	snprintf(path, sizeof(path), "%s/id", name);
	if (events >= 0) {
		text = cprof_read_file_at(events, path, 32, NULL);
		errnum = text ? 0 : errno;
	}
	if (errnum == ENOENT)
		return cprof_error_create(CPROF_DENIED, "use a kernel with CONFIG_FTRACE",
					  "this kernel has no tracepoint %s", name);
	if (errnum)
		return cprof_error_errno(CPROF_DENIED, errnum,
					 "run as root, or with CAP_PERFMON and CAP_BPF",
					 "tracepoint %s: " TRACING " may not be read", name);
	if (sscanf(text, "%llu", &number) != 1)
		return cprof_error_create(CPROF_FAILED, NULL, "tracepoint %s: its id is no number",
					  name);
	*id = number;
	return NULL;
}
