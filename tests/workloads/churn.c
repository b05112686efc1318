/* SPDX-License-Identifier: MIT
 *
 * Threads that allocate, fill, check and free; usage: churn [THREADS [MODE]]. At SIGTERM prints
 * "ok ALLOCATIONS"; status 9 when a block was not what it had been. MODE: `fds` closes all
 * descriptors every ms, `mdwe`, `strict`, `kill`, `refuse` and `allow` restrict the process
 * first.
 */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define BLOCKS      64
#define THREADS_MAX 256

static atomic_int stopping;
static atomic_ulong total;

static void on_term(int signal)
{
	(void)signal;
	stopping = 1;
}

static void check(const unsigned char *block, size_t size, unsigned char value)
{
	for (size_t i = 0; i < size; i += 61) {
		if (block[i] != value) {
			puts("corrupt");
			_exit(9);
		}
	}
}

static void *churn(void *argument)
{
	uint64_t random = (uintptr_t)argument + 1;
	unsigned char *blocks[BLOCKS] = {NULL};
	size_t sizes[BLOCKS] = {0};
	unsigned long count = 0;

	while (!stopping) {
		unsigned i;

		random = random * 6364136223846793005ull + 1442695040888963407ull;
		i = (unsigned)(random >> 58);
		if (blocks[i])
			check(blocks[i], sizes[i], (unsigned char)i);
		free(blocks[i]);
		sizes[i] = (random >> 20) % 2000 + 1;
		blocks[i] = malloc(sizes[i]);
		memset(blocks[i], (int)i, sizes[i]);
		if (++count % 1024 == 0)
			usleep(500);
	}
	for (unsigned i = 0; i < BLOCKS; i++)
		free(blocks[i]);
	total += count;
	return NULL;
}

static void *close_all(void *argument)
{
	while (!stopping) {
		syscall(SYS_close_range, 3, ~0u, 0);
		usleep(1000);
	}
	return argument;
}

/* Says `action` to that call, allows all else. */
static void filter(uint32_t number, uint32_t action)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, action),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {.len = 4, .filter = code};

	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
		exit(2);
}

static void restrict_self(const char *mode)
{
	if (strcmp(mode, "mdwe") == 0 && prctl(65 /* PR_SET_MDWE */, 1, 0, 0, 0) != 0)
		exit(2);
	if (strcmp(mode, "kill") == 0)
		filter(SYS_memfd_create, SECCOMP_RET_KILL_PROCESS);
	if (strcmp(mode, "refuse") == 0)
		filter(SYS_mprotect, SECCOMP_RET_ERRNO | EPERM);
	if (strcmp(mode, "allow") == 0)
		filter(SYS_reboot, SECCOMP_RET_KILL_PROCESS);
}

int main(int argc, char **argv)
{
	int count = argc > 1 ? atoi(argv[1]) : 4;
	const char *mode = argc > 2 ? argv[2] : "";
	pthread_t threads[THREADS_MAX + 1];
	struct sigaction action = {.sa_handler = on_term};

	sigaction(SIGTERM, &action, NULL);
	for (int i = 0; i < count; i++)
		if (pthread_create(&threads[i], NULL, churn, (void *)(uintptr_t)i))
			return 2;
	if (strcmp(mode, "fds") == 0)
		pthread_create(&threads[count++], NULL, close_all, NULL);
	restrict_self(mode);
	puts("ready");
	fflush(stdout);
	if (strcmp(mode, "strict") == 0) {
		prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT);
		for (;;)
			__builtin_ia32_pause();
	}
	while (!stopping)
		usleep(10000);
	for (int i = 0; i < count; i++)
		pthread_join(threads[i], NULL);
	printf("ok %lu\n", (unsigned long)total);
	return 0;
}
