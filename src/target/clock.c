/* SPDX-License-Identifier: MIT
 *
 * Clocks as the target sees them: time_namespaces(7).
 */
#include "private.h"

#include <cprof/util.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Of CLOCK_MONOTONIC to that of the first namespace. The file speaks of what children will have:
 * another only between unshare and fork. */
static int64_t read_offset(int procfd)
{
	CPROF_AUTO_FREE char *text = cprof_read_file_at(procfd, "timens_offsets", 4096, NULL);
	const char *line = text ? strstr(text, "monotonic ") : NULL;
	long long seconds;
	long nanoseconds;

	if (!line || sscanf(line, "monotonic %lld %ld", &seconds, &nanoseconds) != 2)
		return 0;
	return seconds * 1000000000ll + nanoseconds;
}

int64_t cprof_target_read_clock_offset(int procfd)
{
	struct stat theirs;
	struct stat ours;
	int64_t offset;
	int self;

	if (fstatat(procfd, "ns/time", &theirs, 0) != 0 || stat("/proc/self/ns/time", &ours) != 0 ||
	    (theirs.st_dev == ours.st_dev && theirs.st_ino == ours.st_ino))
		return 0;
	self = open("/proc/self", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (self < 0)
		return 0;
	offset = read_offset(procfd) - read_offset(self);
	close(self);
	return offset;
}

uint64_t cprof_target_time_ns(const struct cprof_target *target, uint64_t ns)
{
	return ns + (uint64_t)(target ? cprof_target_info(target)->clock_offset_ns : 0);
}
