/* SPDX-License-Identifier: MIT
 *
 * Threads created in known numbers from known stacks: by main, by a thread of a name, by clone()
 * itself, from a deep recursion; then as fast as it goes. Children that are no threads, and what
 * they create, are beside it. Prints the numbers.
 * usage: creators [THREADS of the fast ones [FIFO to read a byte of before it begins]]
 */
#include "workload.h"
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define BY_MAIN     37
#define BY_POOL     101
#define BY_CLONE    64
#define BY_DEEP     3
#define DEPTH       200
#define DEEP_NAP_US 300000
#define FORKS       20

static char stacks[BY_CLONE][4096] __attribute__((aligned(16)));
static unsigned raw_done;

static void *nothing(void *unused)
{
	return unused;
}

static void create(void)
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, nothing, NULL) || pthread_join(thread, NULL))
		exit(1);
}

__attribute__((noinline)) static void create_workers(unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		create();
	__asm__ volatile("" ::"r"(__LINE__));
}

__attribute__((noinline)) static void grow_pool(unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		create();
	__asm__ volatile("" ::"r"(__LINE__));
}

__attribute__((noinline)) static void create_fast(unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		create();
	__asm__ volatile("" ::"r"(__LINE__));
}

static void *pool(void *unused)
{
	pthread_setname_np(pthread_self(), "pool");
	grow_pool(BY_POOL);
	return unused;
}

/* More than the first stack dumps hold. */
__attribute__((noinline)) static unsigned create_deep(unsigned depth)
{
	volatile char room[200];

	memset((char *)room, (int)depth, sizeof(room));
	if (depth)
		return create_deep(depth - 1) + (unsigned)room[depth % sizeof(room)];
	create();
	return (unsigned)room[0];
}

/* It shares its creator's thread-local storage: nothing of libc in it. */
static int raw_thread(void *unused)
{
	long result;

	(void)unused;
	__atomic_add_fetch(&raw_done, 1, __ATOMIC_SEQ_CST);
	__asm__ volatile("syscall" : "=a"(result) : "a"(SYS_exit), "D"(0) : "rcx", "r11", "memory");
	return (int)result;
}

__attribute__((noinline)) static void create_raw(void)
{
	for (unsigned i = 0; i < BY_CLONE; i++)
		if (clone(raw_thread, stacks[i] + sizeof(stacks[i]),
			  CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD |
				  CLONE_SYSVSEM,
			  NULL) < 0)
			exit(1);
	while (__atomic_load_n(&raw_done, __ATOMIC_SEQ_CST) < BY_CLONE)
		sched_yield();
}

/* None of them is a thread of this process. */
__attribute__((noinline)) static void fork_children(void)
{
	for (unsigned i = 0; i < FORKS; i++) {
		pid_t pid = i % 2 ? vfork() : fork();

		if (!pid && i % 2)
			_exit(0);
		if (!pid) {
			create_workers(5);
			_exit(0);
		}
		if (pid < 0 || waitpid(pid, NULL, 0) != pid)
			exit(1);
	}
}

int main(int argc, char **argv)
{
	unsigned fast = argc > 1 ? (unsigned)atoi(argv[1]) : 0;
	unsigned deep = 0;
	pthread_t thread;
	uint64_t begin;
	double seconds;

	if (argc > 2 && !freopen(argv[2], "r", stdin))
		return 1;
	if (argc > 2)
		getchar();
	create_workers(BY_MAIN);
	for (unsigned i = 0; i < BY_DEEP; i++) {
		usleep(DEEP_NAP_US); /* not in a burst: there deep stacks may be cut off */
		deep += create_deep(DEPTH);
	}
	create_raw();
	fork_children();
	if (pthread_create(&thread, NULL, pool, NULL))
		return 1;
	pthread_join(thread, NULL);
	begin = clock_ns(CLOCK_MONOTONIC);
	create_fast(fast);
	seconds = (double)(clock_ns(CLOCK_MONOTONIC) - begin) / 1e9;
	printf("create_workers %d\ngrow_pool %d\ncreate_raw %d\ncreate_deep %d\ncreate_fast %u\n",
	       BY_MAIN, BY_POOL, BY_CLONE, BY_DEEP, fast);
	printf("all %u\nrate %.0f\nsum %u\n", BY_MAIN + BY_POOL + BY_CLONE + BY_DEEP + 1 + fast,
	       seconds > 0 ? fast / seconds : 0, deep);
	return 0;
}
