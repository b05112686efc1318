/* SPDX-License-Identifier: MIT
 *
 * dlspin LIBRARY: calls `spin` of a shared library for ever.
 */
#include <dlfcn.h>
#include <stdio.h>

int main(int argc, char **argv)
{
	void *library = argc > 1 ? dlopen(argv[1], RTLD_NOW) : NULL;
	void (*spin)(void) = library ? (void (*)(void))dlsym(library, "spin") : NULL;

	if (!spin) {
		fprintf(stderr, "dlspin: %s\n", dlerror());
		return 1;
	}
	for (;;)
		spin();
}
