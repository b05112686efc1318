/* SPDX-License-Identifier: MIT
 *
 * A process with many modules that all allocate: loads so many copies of lib/alloc.so.
 * Prints "ready", runs until it is ended.
 *
 * usage: modules [COUNT [THREADS]]
 */
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void *(*functions[256])(size_t);
static int count;

static void copy(const char *from, const char *to)
{
	FILE *in = fopen(from, "rb");
	FILE *out = fopen(to, "wb");
	char bytes[65536];
	size_t length;

	if (!in || !out)
		exit(1);
	while ((length = fread(bytes, 1, sizeof(bytes), in)))
		fwrite(bytes, 1, length, out);
	fclose(in);
	fclose(out);
}

static void load(int which, const char *from)
{
	char path[64];
	void *library;

	snprintf(path, sizeof(path), "/tmp/modules.%d.%d.so", (int)getpid(), which);
	copy(from, path);
	library = dlopen(path, RTLD_NOW);
	unlink(path);
	if (!library)
		exit(2);
	functions[which] = (void *(*)(size_t))dlsym(library, "library_alloc");
}

static void *work(void *unused)
{
	for (;;) {
		for (int i = 0; i < count; i++)
			free(functions[i]((size_t)i * 10 + 1));
		usleep(200);
	}
	return unused;
}

int main(int argc, char **argv)
{
	int threads = argc > 2 ? atoi(argv[2]) : 4;
	char path[4096];
	pthread_t thread;
	ssize_t length = readlink("/proc/self/exe", path, sizeof(path) - 20);

	count = argc > 1 ? atoi(argv[1]) : 60;
	count = count < 256 ? count : 256;
	if (length <= 0)
		return 1;
	path[length] = '\0';
	strcpy(strrchr(path, '/'), "/lib/alloc.so");
	for (int i = 0; i < count; i++)
		load(i, path);
	for (int i = 0; i < threads; i++)
		pthread_create(&thread, NULL, work, NULL);
	puts("ready");
	fflush(stdout);
	pause();
	return 0;
}
