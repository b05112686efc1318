/* SPDX-License-Identifier: MIT
 *
 * Gaps between samples: geometric, so that every byte is the one that is sampled with the same
 * probability, whatever came before. floor() of an exponential with mean T is exactly that:
 * P(gap >= k) = e^(-k/T), and a block of S bytes, which takes S + 1, is sampled with
 * 1 - e^(-(S + 1)/T).
 */
#include "agent.h"

#define FRACTION 40                    /* bits of a logarithm behind the point */
#define LN2      0xb17217f7d1cf79abull /* ln 2 * 2^64 */
#define LONGEST  (1ull << 62)

/* The finalizer of splitmix64 (Steele, Lea, Flood 2014). */
static uint64_t mix(uint64_t x)
{
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	return x ^ x >> 31;
}

/* log2 of x > 0, bit by bit: the square of a mantissa of 2 or more means a one. */
static uint64_t logarithm(uint64_t x)
{
	int zeros = __builtin_clzll(x);
	uint64_t mantissa = x << zeros;
	uint64_t result = 63 - (uint64_t)zeros;

	for (int i = 0; i < FRACTION; i++) {
		unsigned __int128 square = (unsigned __int128)mantissa * mantissa;
		bool one = square >> 127;

		mantissa = (uint64_t)(square >> (one ? 64 : 63));
		result = result << 1 | one;
	}
	return result;
}

uint64_t cprof_agent_random(struct cprof_agent_shard *shard, uint32_t index)
{
	if (!shard->random)
		shard->random = mix(CONTROL->seed + mix(index + 1));
	shard->random += CPROF_AGENT_HASH;
	return mix(shard->random);
}

uint64_t cprof_agent_gap_draw(struct cprof_agent_shard *shard, uint32_t index, uint64_t rate)
{
	uint64_t uniform;
	uint64_t exponential;
	unsigned __int128 gap;

	if (rate <= 1)
		return 0;
	uniform = cprof_agent_random(shard, index);
	exponential = (64ull << FRACTION) - logarithm(uniform ? uniform : 1);
	exponential = (uint64_t)((unsigned __int128)exponential * LN2 >> 64);
	gap = (unsigned __int128)exponential * rate >> FRACTION;
	return gap < LONGEST ? (uint64_t)gap : LONGEST;
}
