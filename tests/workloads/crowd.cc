// SPDX-License-Identifier: MIT
//
// A crowd of threads with many different stacks, for the live view: each builds and walks trees,
// sorts and formats, at ever different depths.
// usage: crowd [THREADS [SECONDS]]
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <pthread.h>
#include <string>
#include <thread>
#include <vector>
#include <unistd.h>

namespace crowd
{

struct Random {
	uint32_t state;
	uint32_t next(uint32_t below)
	{
		state ^= state << 13;
		state ^= state >> 17;
		state ^= state << 5;
		return state % below;
	}
};

struct Node {
	int key;
	std::unique_ptr<Node> left, right;
};

__attribute__((noinline)) void insert(std::unique_ptr<Node> &node, int key)
{
	if (!node) {
		node = std::make_unique<Node>();
		node->key = key;
	} else {
		insert(key < node->key ? node->left : node->right, key);
	}
}

__attribute__((noinline)) long sum(const Node *node)
{
	return node ? node->key + sum(node->left.get()) + sum(node->right.get()) : 0;
}

template <int kind> struct Work {
	__attribute__((noinline)) static long run(Random &random, int depth)
	{
		if (depth > 0) {
			long result = random.next(2) ? Work<(kind * 5 + 1) % 16>::run(random, depth - 1)
						     : Work<(kind * 3 + 2) % 16>::run(random, depth - 1);
			return result + kind;
		}
		if (kind % 4 == 0) {
			std::unique_ptr<Node> root;
			for (int i = 0; i < 200; i++)
				insert(root, static_cast<int>(random.next(100000)));
			return sum(root.get());
		}
		if (kind % 4 == 1) {
			std::vector<uint32_t> values(600);
			for (auto &value : values)
				value = random.next(1u << 30);
			std::sort(values.begin(), values.end());
			return values[7];
		}
		std::map<std::string, int> words;
		for (int i = 0; i < 60; i++)
			words[std::to_string(random.next(500))] += kind;
		return static_cast<long>(words.size());
	}
};

} // namespace crowd

int main(int argc, char **argv)
{
	int count = argc > 1 ? atoi(argv[1]) : 100;
	unsigned seconds = argc > 2 ? static_cast<unsigned>(atoi(argv[2])) : 3600;

	for (int i = 0; i < count; i++) {
		std::thread thread([i] {
			crowd::Random random = {static_cast<uint32_t>(i) * 7919 + 1};
			volatile long total = 0;
			char name[16];

			snprintf(name, sizeof(name), "crowd-%d", i);
			pthread_setname_np(pthread_self(), name);
			for (;;)
				total = total + crowd::Work<0>::run(random, static_cast<int>(random.next(24)));
		});
		thread.detach();
	}
	puts("ready");
	fflush(stdout);
	sleep(seconds);
	_exit(0);
}
