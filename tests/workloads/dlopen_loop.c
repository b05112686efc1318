/* SPDX-License-Identifier: MIT
 *
 * Loads a library, burns 50 ms in it, unloads it, for ever: code comes and goes, often at another
 * address. Prints the library's share of the CPU time.
 * usage: dlopen_loop [SECONDS]
 */
#include "workload.h"
#include <dlfcn.h>
#include <string.h>
#include <sys/mman.h>

#define BURN_NS 50000000u

/* The library lies in lib/ beside the program. */
static void library_path(char *path, size_t size)
{
	ssize_t length = readlink("/proc/self/exe", path, size - 32);

	path[length > 0 ? length : 0] = '\0';
	strcpy(strrchr(path, '/') + 1, "lib/burn.so");
}

int main(int argc, char **argv)
{
	uint64_t burnt = 0;
	char path[4096];

	workload_start(argc, argv);
	library_path(path, sizeof(path));
	for (unsigned round = 0; !stopping; round++) {
		/* Room of another size in between moves the library. */
		size_t room = (1 + round % 7) * 65536;
		void *wedge = mmap(NULL, room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		void *library = dlopen(path, RTLD_NOW);
		uint64_t (*burn)(uint64_t);

		if (!library) {
			fprintf(stderr, "%s\n", dlerror());
			return 1;
		}
		burn = (uint64_t(*)(uint64_t))dlsym(library, "library_burn");
		burnt += burn(BURN_NS);
		dlclose(library);
		munmap(wedge, room);
	}
	printf("library_burn %.4f\n", (double)burnt / (double)clock_ns(CLOCK_PROCESS_CPUTIME_ID));
	print_cpu();
	return 0;
}
