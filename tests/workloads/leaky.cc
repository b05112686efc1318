// SPDX-License-Identifier: MIT
//
// Allocates in known places: one thread keeps what it takes, another gives all back.
// usage: leaky SECONDS            until then, 100 sessions of 16 KB a second are kept
//        leaky exact COUNT        COUNT blocks of 100 bytes are kept, COUNT of 200 given back
//        leaky exec SECONDS ARG…  keeps some, sleeps, becomes another program
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <pthread.h>
#include <thread>
#include <unistd.h>
#include <vector>

namespace store
{

std::vector<char *> sessions;

__attribute__((noinline)) void keep_session()
{
	char *session = new char[16 << 10];
	memset(session, 1, 16 << 10);
	sessions.push_back(session);
}

__attribute__((noinline)) void *render_page(size_t size)
{
	void *page = malloc(size);
	memset(page, 2, size);
	return page;
}

__attribute__((noinline)) void serve_page()
{
	free(render_page(32 << 10));
}

void keeper(double seconds)
{
	pthread_setname_np(pthread_self(), "keeper");
	for (int i = 0; i < seconds * 100; i++) {
		keep_session();
		std::this_thread::sleep_for(std::chrono::milliseconds(10));
	}
}

void server(double seconds)
{
	pthread_setname_np(pthread_self(), "server");
	for (int i = 0; i < seconds * 200; i++) {
		for (int j = 0; j < 10; j++)
			serve_page();
		std::this_thread::sleep_for(std::chrono::milliseconds(5));
	}
}

void *kept[1 << 20];

__attribute__((noinline)) void exact_keep(int i)
{
	kept[i] = malloc(100);
}

__attribute__((noinline)) void exact_drop()
{
	void *volatile block = malloc(200);
	free(block);
}

} // namespace store

int main(int argc, char **argv)
{
	if (argc > 2 && !strcmp(argv[1], "exact")) {
		for (int i = 0; i < atoi(argv[2]); i++) {
			store::exact_keep(i);
			store::exact_drop();
		}
		return 0;
	}
	if (argc > 3 && !strcmp(argv[1], "exec")) {
		for (int i = 0; i < 1000; i++)
			store::keep_session();
		usleep(static_cast<useconds_t>(atof(argv[2]) * 1e6));
		execv(argv[3], argv + 3);
		return 1;
	}
	double seconds = argc > 1 ? atof(argv[1]) : 10;
	std::thread keeper(store::keeper, seconds);
	std::thread server(store::server, seconds);
	keeper.join();
	server.join();
	printf("kept %zu\n", store::sessions.size());
	return 0;
}
