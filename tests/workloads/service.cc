// SPDX-License-Identifier: MIT
//
// A small sample service for `make demo`: named worker threads that parse, index and render
// made-up requests, with small functions that the compiler inlines.
// usage: service SECONDS
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <pthread.h>
#include <string>
#include <thread>
#include <vector>

namespace shop
{

using Clock = std::chrono::steady_clock;

struct Order {
	std::string customer;
	std::vector<uint32_t> items;
};

static inline uint32_t next_random(uint32_t &state)
{
	state ^= state << 13;
	state ^= state >> 17;
	return state ^= state << 5;
}

static inline uint32_t checksum(const std::string &text)
{
	uint32_t sum = 2166136261u;
	for (unsigned char c : text)
		sum = (sum ^ c) * 16777619u;
	return sum;
}

__attribute__((noinline)) static std::string make_request(uint32_t &state)
{
	std::string text = "customer-" + std::to_string(next_random(state) % 5000);
	for (int i = 0; i < 24; i++)
		text += "," + std::to_string(next_random(state) % 1000);
	return text;
}

__attribute__((noinline)) static Order parse_order(const std::string &text)
{
	Order order;
	size_t at = text.find(',');
	order.customer = text.substr(0, at);
	while (at != std::string::npos) {
		order.items.push_back(std::strtoul(text.c_str() + at + 1, nullptr, 10));
		at = text.find(',', at + 1);
	}
	return order;
}

class Index
{
      public:
	__attribute__((noinline)) void add(const Order &order)
	{
		auto &entry = entries_[order.customer];
		entry.insert(entry.end(), order.items.begin(), order.items.end());
		if (entry.size() > 400)
			entry.resize(40);
	}
	__attribute__((noinline)) uint64_t rank(const std::string &customer)
	{
		auto &entry = entries_[customer];
		std::sort(entry.begin(), entry.end());
		uint64_t sum = checksum(customer);
		for (uint32_t item : entry)
			sum = sum * 31 + item;
		return sum;
	}

      private:
	std::map<std::string, std::vector<uint32_t>> entries_;
};

__attribute__((noinline)) static std::string render(const Order &order, uint64_t rank)
{
	std::string page = "<h1>" + order.customer + "</h1>";
	for (uint32_t item : order.items)
		page += "<li>" + std::to_string(item ^ rank) + "</li>";
	return page;
}

static volatile uint32_t sink;

static void serve(const char *name, uint32_t state, Clock::time_point end)
{
	Index index;
	pthread_setname_np(pthread_self(), name);
	while (Clock::now() < end) {
		for (int i = 0; i < 200; i++) {
			Order order = parse_order(make_request(state));
			index.add(order);
			sink = checksum(render(order, index.rank(order.customer)));
		}
		std::this_thread::sleep_for(std::chrono::milliseconds(1));
	}
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
