/* SPDX-License-Identifier: MIT
 *
 * What is to be patched: found from outside, from maps, images and memory; nobody is stopped.
 */
#ifndef CPROF_ATTACH_PLAN_H
#define CPROF_ATTACH_PLAN_H

#include <cprof/attach.h>

struct cprof_plan;

/* `base` and `header`: where the hooks are (going to be); `kinds`: enum cprof_agent_kind. `kept`:
 * the config of an agent that was there before at the same base, whose originals stay; NULL: none.
 */
struct cprof_error *cprof_plan_create(struct cprof_target *target, uint64_t base, unsigned kinds,
				      const struct cprof_agent_header *header,
				      const struct cprof_agent_config *kept,
				      struct cprof_plan **plan);
void cprof_plan_destroy(struct cprof_plan *plan);

/*
 * An order is of one slot. It is used again in place (WANTED once more, with what the slot holds
 * now in `before`) when the slot no longer leads to its hook, and for another slot when its module
 * is gone. A slot that led to a hook before us gets an order that is DONE already. The config holds
 * the original of every hook that an order names, and of the variant its slow path calls.
 *
 * Reads maps; when they have changed since the last call, or `verify` is set, also the slots;
 * slots that are not bound yet are read every time.
 * Appends an order (state WANTED) for every slot that should lead to a hook and does not, and marks
 * those whose module is gone FAILED. `*fresh`: how many are WANTED now. Modules that are not
 * relocated yet (their PT_GNU_RELRO range is still writable) are left for a later call.
 *
 * Errors: CPROF_DENIED on the first call when there is nothing to patch: what the target allocates
 * with instead, by name.
 */
struct cprof_error *cprof_plan_update(struct cprof_plan *plan, bool verify, size_t *fresh);

/* Plans for more kinds: CPROF_DENIED when there is nothing to patch of them; then nothing has
 * changed. */
struct cprof_error *cprof_plan_add(struct cprof_plan *plan, unsigned kinds, size_t *fresh);

/* All orders ever made; their states are kept current by whoever carries them out. */
struct cprof_agent_order *cprof_plan_orders(struct cprof_plan *plan, size_t *count);
const struct cprof_agent_config *cprof_plan_config(const struct cprof_plan *plan);
const struct cprof_agent_module *cprof_plan_modules(const struct cprof_plan *plan, size_t *count);

#endif
