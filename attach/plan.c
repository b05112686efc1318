/* SPDX-License-Identifier: MIT
 *
 * The plan: what is mapped, what its slots hold, what they should hold.
 */
#include "planparts.h"

#include <cprof/util.h>
#include <string.h>

struct cprof_error *cprof_plan_create(struct cprof_target *target, uint64_t base, unsigned kinds,
				      const struct cprof_agent_header *header,
				      const struct cprof_agent_config *kept,
				      struct cprof_plan **result)
{
	struct cprof_plan *plan = calloc(1, sizeof(*plan));

	if (plan)
		plan->orders = calloc(CPROF_AGENT_ORDERS, sizeof(*plan->orders));
	if (!plan || !plan->orders) {
		free(plan);
		return cprof_error_nomem();
	}
	plan->target = target;
	plan->base = base;
	plan->kinds = kinds;
	plan->header = *header;
	if (kept)
		plan->config = *kept;
	*result = plan;
	return NULL;
}

void cprof_plan_destroy(struct cprof_plan *plan)
{
	if (!plan)
		return;
	cprof_plan_forget(plan);
	free(plan->orders);
	free(plan->released);
	free(plan->told);
	free(plan);
}

/* Looks at the slots of all modules, or (`pending`) of those that were not ready only. */
static void look(struct cprof_plan *plan, bool pending)
{
	for (size_t i = 0; i < plan->module_count; i++) {
		struct cprof_plan_module *module = plan->modules[i];

		if (module->relocated && (!pending || module->pending || module->fresh))
			cprof_plan_read_slots(plan, module);
	}
	cprof_plan_choose_bank(plan);
	for (size_t i = 0; i < plan->module_count; i++) {
		struct cprof_plan_module *module = plan->modules[i];

		if (module->relocated && (!pending || module->pending || module->fresh))
			cprof_plan_decide(plan, module);
	}
}

/* Whether maps are as they were, told without reading them. A module that is being relocated
 * changes protections of its data, which this does not see. */
static bool is_unchanged(struct cprof_plan *plan)
{
	uint64_t code;
	bool known = cprof_target_code_fingerprint(plan->target, &code);
	bool same = known && plan->code_known && code == plan->code;

	/* Taken before maps are read: what comes in between is seen the next time. */
	plan->code_known = known;
	plan->code = code;
	for (size_t i = 0; i < plan->module_count; i++)
		same &= plan->modules[i]->relocated || !plan->modules[i]->known;
	return same;
}

struct cprof_error *cprof_plan_update(struct cprof_plan *plan, bool verify, size_t *fresh)
{
	bool changed = false;
	bool first = !plan->begun;

	if (!is_unchanged(plan))
		CPROF_TRY(cprof_plan_read_maps(plan, &changed));
	if (changed)
		CPROF_TRY(cprof_plan_find_modules(plan));
	look(plan, !changed && !verify);
	plan->begun = true;
	CPROF_TRY(cprof_plan_tell(plan));
	if (first)
		CPROF_TRY(cprof_plan_check(plan));
	*fresh = 0;
	for (size_t i = 0; i < plan->order_count; i++)
		*fresh += plan->orders[i].state == CPROF_AGENT_ORDER_WANTED;
	return NULL;
}

struct cprof_error *cprof_plan_add(struct cprof_plan *plan, unsigned kinds, size_t *fresh)
{
	unsigned before = plan->kinds;
	struct cprof_error *error;

	plan->kinds |= kinds;
	error = cprof_plan_update(plan, true, fresh);
	if (!error)
		error = cprof_plan_check(plan);
	if (error)
		plan->kinds = before;
	return error;
}

struct cprof_agent_order *cprof_plan_orders(struct cprof_plan *plan, size_t *count)
{
	*count = plan->order_count;
	return plan->orders;
}

const struct cprof_agent_config *cprof_plan_config(const struct cprof_plan *plan)
{
	return &plan->config;
}

const struct cprof_agent_module *cprof_plan_modules(const struct cprof_plan *plan, size_t *count)
{
	*count = plan->told_count;
	return plan->told;
}
