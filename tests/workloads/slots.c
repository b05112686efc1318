/* SPDX-License-Identifier: MIT
 *
 * Uses the allocator's functions in all the ways that make slots, says where they are, and obeys
 * standard input: `bind` calls what was not called yet; `open PATH`, `call` and `close` load a
 * library, call it, unload it.
 */
#include <dlfcn.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void *(*volatile kept)(size_t) = malloc; /* a slot in data */
/* One that does not lie as an atomic change needs it. */
struct __attribute__((packed)) {
	char before;
	void *(*volatile malloc)(size_t);
} crooked __attribute__((aligned(64))) = {1, malloc};
void *volatile sink;

static const char *const names[] = {
	"malloc",        "calloc",   "realloc", "reallocarray", "free",   "posix_memalign",
	"aligned_alloc", "memalign", "valloc",  "_Znwm",        "_ZdlPv", "_ZnamRKSt9nothrow_t",
};

static void bind_all(void)
{
	void *memory = NULL;

	sink = calloc(3, 5);
	free(sink);
	sink = reallocarray(NULL, 3, 5);
	sink = aligned_alloc(64, 128);
	sink = memalign(64, 128);
	sink = valloc(100);
	if (posix_memalign(&memory, 64, 128) == 0)
		sink = memory;
	sink = strdup("copy"); /* by the C library's own slot */
}

int main(void)
{
	void *(*volatile address)(void *, size_t) = realloc; /* not PIE: a PLT entry */
	void *library = NULL;
	char line[4096];

	free(crooked.malloc(5));
	sink = kept(10);
	sink = address(sink, 20);
	free(sink);
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
		if (dlsym(RTLD_DEFAULT, names[i]))
			printf("sym %s %lx\n", names[i],
			       (unsigned long)dlsym(RTLD_DEFAULT, names[i]));
	printf("ready\n");
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin)) {
		line[strcspn(line, "\n")] = '\0';
		if (strcmp(line, "bind") == 0)
			bind_all();
		else if (strcmp(line, "close") == 0 && library)
			dlclose(library);
		else if (strcmp(line, "call") == 0 && library)
			sink = ((void *(*)(int))dlsym(library, "part"))(0);
		else if (strncmp(line, "open ", 5) == 0)
			library = dlopen(line + 5, RTLD_LAZY);
		printf("done %s%s\n", line, strncmp(line, "open ", 5) || library ? "" : " not");
		fflush(stdout);
	}
	return 0;
}
