// SPDX-License-Identifier: MIT
//
// A stack 200 calls deep and more, through plain functions, virtual ones and std::function, built
// without frame pointers. No call is a tail call.
// usage: deep [SECONDS [DEPTH]]
#include "workload.h"
#include <functional>
#include <memory>

struct Step {
	virtual ~Step() = default;
	virtual uint64_t descend(int depth) = 0;
};

static uint64_t descend_plain(int depth);

// Keeps the caller's frame: something is done with the result.
#define NOINLINE __attribute__((noinline))
static inline uint64_t after(uint64_t value)
{
	__asm__ volatile("" : "+r"(value));
	return value + 1;
}

struct Virtual : Step {
	NOINLINE uint64_t descend(int depth) override
	{
		volatile char room[48];
		room[depth % 48] = 1;
		return after(descend_plain(depth - 1)) + static_cast<uint64_t>(room[depth % 48]);
	}
};

static std::unique_ptr<Step> step = std::make_unique<Virtual>();

static NOINLINE uint64_t bottom()
{
	return work(20000);
}

static NOINLINE uint64_t descend_function(int depth, const std::function<uint64_t(int)> &next)
{
	return after(next(depth - 1));
}

static NOINLINE uint64_t descend_plain(int depth)
{
	if (depth <= 0)
		return after(bottom());
	switch (depth % 3) {
	case 0:
		return after(step->descend(depth));
	case 1: {
		uint64_t extra = static_cast<uint64_t>(depth);
		return after(descend_function(
			depth, [extra](int next) { return after(descend_plain(next)) + extra; }));
	}
	default:
		return after(descend_plain(depth - 1));
	}
}

int main(int argc, char **argv)
{
	int depth = argc > 2 ? atoi(argv[2]) : 200;
	volatile uint64_t sink = 0;

	workload_start(argc, argv);
	while (!stopping)
		sink = sink + descend_plain(depth);
	return 0;
}
