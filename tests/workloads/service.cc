// SPDX-License-Identifier: MIT
//
// A small sample service for `make demo` and the tests: two named worker threads parse, index and
// render made-up orders; the small functions are inlined by the compiler.
// usage: service SECONDS
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <pthread.h>
#include <thread>

namespace shop
{

using Clock = std::chrono::steady_clock;

constexpr int kItems = 24;
constexpr int kCustomers = 512;

struct Order {
	uint32_t customer;
	uint32_t items[kItems];
};

inline uint32_t next_random(uint32_t &state)
{
	state ^= state << 13;
	state ^= state >> 17;
	return state ^= state << 5;
}

inline uint32_t checksum(const char *text, size_t length)
{
	uint32_t sum = 2166136261u;
	for (size_t i = 0; i < length; i++)
		sum = (sum ^ static_cast<unsigned char>(text[i])) * 16777619u;
	return sum;
}

inline char *put_number(char *at, uint32_t number)
{
	char digits[12];
	int count = 0;
	do
		digits[count++] = static_cast<char>('0' + number % 10);
	while (number /= 10);
	while (count)
		*at++ = digits[--count];
	return at;
}

inline uint32_t take_number(const char *&at)
{
	uint32_t number = 0;
	while (*at >= '0' && *at <= '9')
		number = number * 10 + static_cast<uint32_t>(*at++ - '0');
	return number;
}

__attribute__((noinline)) void receive(uint32_t &state, char *request)
{
	char *at = put_number(request, next_random(state) % kCustomers);
	for (int i = 0; i < kItems; i++) {
		*at++ = ',';
		at = put_number(at, next_random(state) % 100000);
	}
	*at = '\0';
}

__attribute__((noinline)) Order parse_order(const char *request)
{
	Order order;
	order.customer = take_number(request);
	for (uint32_t &item : order.items)
		item = *request == ',' ? take_number(++request) : 0;
	return order;
}

class Index
{
      public:
	// Keeps each customer's largest items in order.
	__attribute__((noinline)) void add(const Order &order)
	{
		uint32_t *best = best_[order.customer];
		for (uint32_t item : order.items)
			insert(best, item);
	}
	__attribute__((noinline)) uint64_t rank(uint32_t customer) const
	{
		uint64_t sum = 0;
		for (uint32_t item : best_[customer])
			sum = sum * 31 + item;
		return sum;
	}

      private:
	static void insert(uint32_t *best, uint32_t item)
	{
		int at = kItems - 1;
		if (best[at] >= item)
			item = best[at] / 2; // old entries fade, so that new ones find a place
		for (; at > 0 && best[at - 1] < item; at--)
			best[at] = best[at - 1];
		best[at] = item;
	}
	uint32_t best_[kCustomers][kItems] = {};
};

__attribute__((noinline)) size_t render(const Order &order, uint64_t rank, char *page)
{
	char *at = page;
	for (uint32_t item : order.items) {
		memcpy(at, "<li>", 4);
		at = put_number(at + 4, static_cast<uint32_t>(item + rank));
	}
	return static_cast<size_t>(at - page);
}

volatile uint32_t sink;

__attribute__((noinline)) void handle(Index &index, uint32_t &state)
{
	char request[512], page[1024];
	receive(state, request);
	Order order = parse_order(request);
	index.add(order);
	sink = checksum(page, render(order, index.rank(order.customer), page));
}

void serve(const char *name, uint32_t state, Clock::time_point end)
{
	auto index = std::make_unique<Index>();
	pthread_setname_np(pthread_self(), name);
	while (Clock::now() < end)
		for (int i = 0; i < 1000; i++)
			handle(*index, state);
}

} // namespace shop

int main(int argc, char **argv)
{
	auto end = shop::Clock::now() + std::chrono::seconds(argc > 1 ? std::atoi(argv[1]) : 10);
	std::thread north(shop::serve, "worker-north", 1, end);
	std::thread south(shop::serve, "worker-south", 2, end);
	north.join();
	south.join();
	return 0;
}
