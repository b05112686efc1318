/* SPDX-License-Identifier: MIT */
#include "private.h"

#include <stdlib.h>

struct cprof_error *cprof_symbols_create_perf_map(int fd, struct cprof_symbols **symbols)
{
	(void)fd;
	(void)symbols;
	return cprof_error_create(CPROF_FAILED, NULL, "not yet");
}

struct cprof_error *cprof_symbols_create_kallsyms(int fd, struct cprof_symbols **symbols)
{
	(void)fd;
	(void)symbols;
	return cprof_error_create(CPROF_FAILED, NULL, "not yet");
}

void cprof_symbols_destroy(struct cprof_symbols *symbols)
{
	free(symbols);
}
