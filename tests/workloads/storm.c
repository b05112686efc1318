/* SPDX-License-Identifier: MIT
 *
 * An allocator storm that checks itself: every block carries a pattern that is looked at before it
 * is freed or moved, and everything that can go on around an allocation goes on as well. Prints
 * "ready", runs until SIGTERM, then "ok OPERATIONS" with status 0, or says what was wrong and
 * aborts.
 *
 * storm [THREADS] [MODE...]: fork vfork spawn dlopen signals threads cancel stopcont closefds locks
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define BLOCKS 64

static atomic_bool over;
static atomic_ulong operations;

static void __attribute__((noreturn, format(printf, 1, 2))) wrong(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	fprintf(stdout, "WRONG ");
	vfprintf(stdout, format, arguments);
	fprintf(stdout, "\n");
	fflush(stdout);
	abort();
}

static uint64_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

/* --- blocks -------------------------------------------------------------------------------- */

struct block {
	uint8_t *bytes;
	size_t size;
	uint8_t pattern;
};

static void fill(struct block *block)
{
	if (!block->bytes)
		wrong("allocation of %zu bytes failed", block->size);
	memset(block->bytes, block->pattern, block->size);
}

static void look(const struct block *block, size_t length)
{
	for (size_t i = 0; i < length; i++)
		if (block->bytes[i] != block->pattern)
			wrong("block of %zu bytes changed at %zu", block->size, i);
}

static size_t any_size(uint64_t *state)
{
	uint64_t r = next_random(state);

	switch (r % 16) {
	case 0:
		return 1 + (r >> 8) % 300000;
	case 1:
		return 0;
	default:
		return (r >> 8) % 400;
	}
}

static void allocate(struct block *block, uint64_t *state)
{
	size_t size = any_size(state);
	void *memory = NULL;

	errno = 4711;
	switch (next_random(state) % 6) {
	case 0:
		block->bytes = calloc(size / 8 + 1, 8);
		size = (size / 8 + 1) * 8;
		for (size_t i = 0; i < size; i++)
			if (block->bytes[i])
				wrong("calloc did not clear");
		break;
	case 1:
		if (posix_memalign(&memory, 64, size + 1))
			wrong("posix_memalign");
		if ((uintptr_t)memory % 64)
			wrong("posix_memalign: not aligned");
		block->bytes = memory;
		size++;
		break;
	case 2:
		block->bytes = aligned_alloc(32, (size + 32) / 32 * 32);
		break;
	case 3:
		block->bytes = reallocarray(NULL, size + 1, 1);
		size++;
		break;
	default:
		block->bytes = malloc(size + 1);
		size++;
		break;
	}
	if (errno != 4711)
		wrong("errno became %d", errno);
	block->size = size;
	block->pattern = (uint8_t)next_random(state);
	fill(block);
}

static void resize(struct block *block, uint64_t *state)
{
	size_t size = any_size(state) + 1;
	uint8_t *bytes;

	if (next_random(state) % 32 == 0) { /* must fail and leave the block alone */
		size = (size_t)PTRDIFF_MAX + 100;
		__asm__("" : "+r"(size)); /* the compiler would warn */
		bytes = realloc(block->bytes, size);
		if (bytes)
			wrong("a huge realloc worked");
		look(block, block->size);
		return;
	}
	bytes = realloc(block->bytes, size);
	if (!bytes)
		wrong("realloc");
	block->bytes = bytes;
	look(block, size < block->size ? size : block->size);
	block->size = size;
	fill(block);
}

static __attribute__((noinline)) void work(uint64_t *state, unsigned count)
{
	struct block blocks[BLOCKS] = {{0}};

	for (unsigned i = 0; i < count && !over; i++) {
		struct block *block = &blocks[next_random(state) % BLOCKS];

		if (!block->bytes) {
			allocate(block, state);
		} else if (next_random(state) % 4 == 0) {
			resize(block, state);
		} else {
			look(block, block->size);
			free(block->bytes);
			block->bytes = NULL;
		}
	}
	for (unsigned i = 0; i < BLOCKS; i++) {
		if (!blocks[i].bytes)
			continue;
		look(&blocks[i], blocks[i].size);
		free(blocks[i].bytes);
	}
	operations += count;
}

static void *storm_thread(void *argument)
{
	uint64_t state = (uintptr_t)argument * 0x9e3779b97f4a7c15ull + 1;

	while (!over)
		work(&state, 2000);
	return NULL;
}

/* --- what goes on around it ---------------------------------------------------------------- */

static void await_child(pid_t pid)
{
	int status;

	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			wrong("waitpid: %d", errno);
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 7)
		wrong("a child ended with status %#x", status);
}

static void *fork_mode(void *unused)
{
	uint64_t state = 99;

	while (!over) {
		pid_t pid = fork();

		if (pid == 0) {
			work(&state, 3000);
			_exit(7);
		}
		if (pid < 0)
			wrong("fork: %d", errno);
		await_child(pid);
	}
	return unused;
}

static void *vfork_mode(void *unused)
{
	while (!over) {
		pid_t pid = vfork();

		if (pid == 0) {
			execl("/bin/sh", "sh", "-c", "exit 7", NULL);
			_exit(8);
		}
		if (pid < 0)
			wrong("vfork: %d", errno);
		await_child(pid);
	}
	return unused;
}

static void *spawn_mode(void *unused)
{
	char *arguments[] = {"sh", "-c", "exit 7", NULL};
	char *environment[] = {NULL};

	while (!over) {
		pid_t pid;

		if (posix_spawn(&pid, "/bin/sh", NULL, NULL, arguments, environment))
			wrong("posix_spawn");
		await_child(pid);
	}
	return unused;
}

static char library[4096];

static void *dlopen_mode(void *unused)
{
	static const char *const others[] = {"libm.so.6", "libutil.so.1", "libresolv.so.2",
					     "libstdc++.so.6"};
	uint64_t state = 5;

	while (!over) {
		void *own = library[0] ? dlopen(library, RTLD_NOW) : NULL;
		void *other = dlopen(others[next_random(&state) % 4],
				     next_random(&state) % 2 ? RTLD_NOW : RTLD_LAZY);

		work(&state, 200);
		if (own)
			dlclose(own);
		if (other)
			dlclose(other);
		usleep(next_random(&state) % 3000);
	}
	return unused;
}

static _Thread_local sigjmp_buf back;
/* Set only around code that holds no lock of the allocator's. */
static _Thread_local volatile sig_atomic_t outside;
static atomic_ulong signals_seen;

static void on_signal(int signal)
{
	int before = errno;
	void *memory;

	(void)signal;
	signals_seen++;
	if (outside) {
		uint64_t state = signals_seen + 1;

		outside = 0;
		work(&state, 20);
		if (signals_seen % 2)
			siglongjmp(back, 1);
		outside = 1;
	}
	memory = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory != MAP_FAILED)
		munmap(memory, 4096);
	errno = before;
}

static void *signal_victim(void *unused)
{
	stack_t stack = {.ss_sp = malloc(65536), .ss_size = 65536};
	uint64_t state = 77;

	sigaltstack(&stack, NULL);
	while (!over) {
		work(&state, 500);
		if (!sigsetjmp(back, 1)) {
			outside = 1;
			for (volatile int i = 0; i < 20000; i++)
				;
			outside = 0;
		}
	}
	return unused;
}

static void *signals_mode(void *unused)
{
	struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_ONSTACK | SA_RESTART};
	pthread_t victims[4];

	sigaction(SIGUSR1, &action, NULL);
	for (int i = 0; i < 4; i++)
		pthread_create(&victims[i], NULL, signal_victim, NULL);
	while (!over) {
		for (int i = 0; i < 4; i++)
			pthread_kill(victims[i], SIGUSR1);
		usleep(200);
	}
	for (int i = 0; i < 4; i++)
		pthread_join(victims[i], NULL);
	return unused;
}

static void *short_thread(void *argument)
{
	uint64_t state = (uintptr_t)argument + 3;

	work(&state, 300);
	return NULL;
}

static void *threads_mode(void *unused)
{
	for (uintptr_t i = 0; !over; i++) {
		pthread_t thread;

		if (pthread_create(&thread, NULL, short_thread, (void *)i) == 0)
			pthread_join(thread, NULL);
	}
	return unused;
}

static void *cancelled_thread(void *unused)
{
	uint64_t state = 12345;

	for (;;) {
		pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
		work(&state, 100);
		pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, NULL);
		pthread_testcancel();
	}
	return unused;
}

static void *cancel_mode(void *unused)
{
	while (!over) {
		pthread_t thread;
		void *result;

		if (pthread_create(&thread, NULL, cancelled_thread, NULL))
			continue;
		usleep(500);
		pthread_cancel(thread);
		pthread_join(thread, &result);
		if (result != PTHREAD_CANCELED)
			wrong("a thread was not cancelled");
	}
	return unused;
}

/* A helper process stops and continues us. */
static void *stopcont_mode(void *unused)
{
	pid_t self = getpid();
	pid_t pid = fork();

	if (pid == 0) {
		while (getppid() == self) {
			kill(self, SIGSTOP);
			usleep(2000);
			kill(self, SIGCONT);
			usleep(5000);
		}
		_exit(7);
	}
	while (!over)
		usleep(10000);
	kill(pid, SIGKILL);
	kill(self, SIGCONT);
	return unused;
}

static void *closefds_mode(void *unused)
{
	while (!over) {
		syscall(SYS_close_range, 3u, ~0u, 0);
		usleep(50);
	}
	return unused;
}

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_rwlock_t rwlock = PTHREAD_RWLOCK_INITIALIZER;
static int inside;
static char *shared;

/* Alone with the mutex; readers see what the last writer left, whole. */
static void *take_locks(void *argument)
{
	uint64_t state = (uintptr_t)argument + 7;

	while (!over) {
		pthread_mutex_lock(&mutex);
		if (inside++)
			wrong("two have the mutex");
		work(&state, 5);
		inside--;
		pthread_mutex_unlock(&mutex);
		if (next_random(&state) % 4) {
			pthread_rwlock_rdlock(&rwlock);
			if (shared && strlen(shared) != (size_t)(shared[0] - 'a') + 1)
				wrong("a reader sees half a text");
		} else {
			pthread_rwlock_wrlock(&rwlock);
			free(shared);
			shared = calloc(1, 32);
			memset(shared, 'a' + (int)(next_random(&state) % 26), 1);
			memset(shared + 1, 'x', (size_t)(shared[0] - 'a'));
		}
		pthread_rwlock_unlock(&rwlock);
	}
	return NULL;
}

static void *locks_mode(void *unused)
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, take_locks, &mutex))
		wrong("no thread for locks");
	take_locks(NULL);
	pthread_join(thread, NULL);
	return unused;
}

static const struct {
	const char *name;
	void *(*run)(void *);
} modes[] = {
	{"fork", fork_mode},     {"vfork", vfork_mode},       {"spawn", spawn_mode},
	{"dlopen", dlopen_mode}, {"signals", signals_mode},   {"threads", threads_mode},
	{"cancel", cancel_mode}, {"stopcont", stopcont_mode}, {"closefds", closefds_mode},
	{"locks", locks_mode},
};

int main(int argc, char **argv)
{
	uintptr_t count = argc > 1 ? (uintptr_t)atoi(argv[1]) : 4;
	pthread_t threads[256];
	char *slash;
	sigset_t set;
	int signal;

	count = count < 200 ? count : 200;
	if (readlink("/proc/self/exe", library, sizeof(library) - 20) > 0 &&
	    (slash = strrchr(library, '/')))
		memcpy(slash, "/lib/burn.so", sizeof("/lib/burn.so"));
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	for (uintptr_t i = 0; i < count; i++)
		pthread_create(&threads[i], NULL, storm_thread, (void *)(i + 1));
	for (int i = 2; i < argc; i++)
		for (size_t m = 0; m < sizeof(modes) / sizeof(modes[0]); m++)
			if (!strcmp(argv[i], modes[m].name))
				pthread_create(&threads[count++], NULL, modes[m].run, NULL);
	puts("ready");
	fflush(stdout);
	sigwait(&set, &signal);
	over = true;
	for (uintptr_t i = 0; i < count; i++)
		pthread_join(threads[i], NULL);
	printf("ok %lu\n", (unsigned long)operations);
	return 0;
}
