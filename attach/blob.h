/* SPDX-License-Identifier: MIT
 *
 * The agent as built from attach/agent/: a flat image for CPROF_AGENT_TEXT, which begins with a
 * struct cprof_agent_header whose `build` is 0.
 */
#ifndef CPROF_ATTACH_BLOB_H
#define CPROF_ATTACH_BLOB_H

#include <stdint.h>

extern const uint8_t cprof_agent_blob[];
extern const uint8_t cprof_agent_blob_end[];

#endif
