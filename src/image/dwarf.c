/* SPDX-License-Identifier: MIT */
#include "private.h"

#include <stdlib.h>

void cprof_dwarf_destroy(struct cprof_dwarf *dwarf)
{
	free(dwarf);
}
