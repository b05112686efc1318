/* SPDX-License-Identifier: MIT
 *
 * The agent's text as it is planted: a hook ends with a jump through the config, which becomes a
 * direct one where the original is known by then and near enough. Written before the text is
 * mapped, and as long as the other, so that threads inside an adopted text find their way.
 */
#include "agentparts.h"

#include <string.h>

#define JUMP_SIZE 6u   /* ff 25 disp32, or e9 rel32 90 */
#define HOOK_MAX  128u /* bytes, more than any hook has */

/* The offset of the jump of a hook that reads the config there, 0: not found. */
static uint32_t find_jump(const uint8_t *text, uint32_t size, uint32_t hook, uint32_t config)
{
	for (uint32_t at = hook; at < hook + HOOK_MAX && at + JUMP_SIZE <= size; at++) {
		uint32_t target;

		memcpy(&target, text + at + 2, sizeof(target));
		if (text[at] == 0xff && text[at + 1] == 0x25 && at + JUMP_SIZE + target == config)
			return at;
	}
	return 0;
}

static void shorten(uint8_t *jump, uint64_t address, uint64_t original)
{
	int64_t distance = (int64_t)(original - (address + JUMP_SIZE - 1));
	int32_t relative = (int32_t)distance;

	if (relative != distance)
		return;
	jump[0] = 0xe9;
	memcpy(jump + 1, &relative, sizeof(relative));
	jump[5] = 0x90;
}

void cprof_agent_shorten(uint8_t *text, const struct cprof_agent_config *config, uint64_t base)
{
	struct cprof_agent_header header;

	memcpy(&header, text, sizeof(header));
	for (uint32_t i = 0; i < CPROF_AGENT_BANKS * CPROF_AGENT_FUNCTION_COUNT; i++) {
		uint32_t bank = i / CPROF_AGENT_FUNCTION_COUNT;
		uint32_t function = i % CPROF_AGENT_FUNCTION_COUNT;
		uint32_t at;

		if (!config->originals[bank][function])
			continue;
		at = find_jump(text, header.text_size, header.hooks[bank][function],
			       CPROF_AGENT_CONFIG + i * (uint32_t)sizeof(uint64_t));
		if (at)
			shorten(text + at, base + at, config->originals[bank][function]);
	}
}
