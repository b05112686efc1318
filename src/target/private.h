/* SPDX-License-Identifier: MIT */
#ifndef CPROF_TARGET_PRIVATE_H
#define CPROF_TARGET_PRIVATE_H

#include <cprof/target.h>

struct cprof_target {
	struct cprof_target_info info;
	int pidfd;
	int procfd; /* /proc/PID: refers to this very process, whatever happens to the number */
	int rootfd; /* its root directory; stays usable after its end */
	int exefd;  /* its program, opened at once: deleted and replaced binaries work */
	uint64_t exe_dev;
	uint64_t exe_ino;
};

/* clock.c: reads `clock_offset_ns`. */
int64_t cprof_target_read_clock_offset(int procfd);

#endif
