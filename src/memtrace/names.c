/* SPDX-License-Identifier: MIT
 *
 * The functions that work for memory, by name. Names stand for themselves, but those that end with
 * `*`: prefixes that no other program has.
 */
#include "private.h"

#include <cprof/agent_abi.h>
#include <cprof/util.h>
#include <string.h>

#define MALLOC  CPROF_MEMTRACE_MALLOC
#define FREE    CPROF_MEMTRACE_FREE
#define SLOW    CPROF_MEMTRACE_SLOW
#define WAIT    CPROF_MEMTRACE_WAIT
#define FOREIGN CPROF_MEMTRACE_FOREIGN
#define CALL    CPROF_MEMTRACE_CALL
#define FAULT   CPROF_MEMTRACE_FAULT
#define EITHER  (MALLOC | FREE) /* the rest of the name tells */

struct name {
	const char *text;
	unsigned class;
};

static const struct name functions[] = {
	/* C, whoever implements it */
	{"malloc", MALLOC},
	{"calloc", MALLOC},
	{"realloc", MALLOC},
	{"reallocarray", MALLOC},
	{"memalign", MALLOC},
	{"aligned_alloc", MALLOC},
	{"posix_memalign", MALLOC},
	{"valloc", MALLOC},
	{"pvalloc", MALLOC},
	{"free", FREE},
	{"cfree", FREE},
	{"free_sized", FREE},
	{"free_aligned_sized", FREE},
	{"malloc_trim", FREE},
	/* C++: operator new, new[], delete, delete[] of no class, all their variants */
	{"_Znwm*", MALLOC},
	{"_Znam*", MALLOC},
	{"_ZdlPv*", FREE},
	{"_ZdaPv*", FREE},
	/* Rust */
	{"__rust_alloc", MALLOC},
	{"__rust_alloc_zeroed", MALLOC},
	{"__rust_realloc", MALLOC},
	{"__rust_dealloc", FREE},
	{"__rdl_alloc", MALLOC},
	{"__rdl_alloc_zeroed", MALLOC},
	{"__rdl_realloc", MALLOC},
	{"__rdl_dealloc", FREE},
	/* glibc, musl and sanitizers inside */
	{"__libc_malloc", MALLOC},
	{"__libc_malloc2", MALLOC},
	{"__libc_calloc", MALLOC},
	{"__libc_calloc2", MALLOC},
	{"__libc_realloc", MALLOC},
	{"__libc_reallocarray", MALLOC},
	{"__libc_memalign", MALLOC},
	{"__libc_valloc", MALLOC},
	{"__libc_pvalloc", MALLOC},
	{"__posix_memalign", MALLOC},
	{"__libc_free", FREE},
	{"__malloc", MALLOC},
	{"__calloc", MALLOC},
	{"__realloc", MALLOC},
	{"__free", FREE},
	{"__cfree", FREE},
	{"_mid_memalign", MALLOC},
	{"_int_malloc", MALLOC | SLOW},
	{"_int_realloc", MALLOC},
	{"_int_memalign", MALLOC},
	{"sysmalloc", MALLOC},
	{"sysmalloc_mmap", MALLOC},
	{"arena_get2", MALLOC},
	{"arena_get_retry", MALLOC},
	{"tcache_init", MALLOC},
	{"ptmalloc_init", MALLOC},
	{"mremap_chunk", MALLOC},
	{"_int_free", FREE},
	{"_int_free_chunk", FREE},
	{"_int_free_merge_chunk", FREE},
	{"_int_free_create_chunk", FREE},
	{"_int_free_maybe_consolidate", FREE},
	{"_int_free_maybe_trim", FREE},
	{"malloc_consolidate", FREE},
	{"systrim", FREE},
	{"heap_trim", FREE},
	{"munmap_chunk", FREE},
	{"__malloc_arena_thread_freeres", FREE},
	{"__malloc_trim", FREE},
	{"__libc_malloc_impl", MALLOC},
	{"__malloc_alloc_meta", MALLOC},
	{"__malloc_donate", FREE},
	{"__interceptor_malloc", MALLOC},
	{"__interceptor_calloc", MALLOC},
	{"__interceptor_realloc", MALLOC},
	{"__interceptor_posix_memalign", MALLOC},
	{"__interceptor_free", FREE},
	/* jemalloc; the second prefix is what Rust's crate gives it */
	{"mallocx", MALLOC | FOREIGN},
	{"rallocx", MALLOC | FOREIGN},
	{"xallocx", MALLOC | FOREIGN},
	{"dallocx", FREE | FOREIGN},
	{"sdallocx", FREE | FOREIGN},
	{"je_malloc", MALLOC | FOREIGN},
	{"je_malloc_default", MALLOC | FOREIGN},
	{"je_calloc", MALLOC | FOREIGN},
	{"je_realloc", MALLOC | FOREIGN},
	{"je_mallocx", MALLOC | FOREIGN},
	{"je_rallocx", MALLOC | FOREIGN},
	{"je_xallocx", MALLOC | FOREIGN},
	{"je_posix_memalign", MALLOC | FOREIGN},
	{"je_aligned_alloc", MALLOC | FOREIGN},
	{"je_memalign", MALLOC | FOREIGN},
	{"je_valloc", MALLOC | FOREIGN},
	{"je_free", FREE | FOREIGN},
	{"je_free_default", FREE | FOREIGN},
	{"je_sdallocx_default", FREE | FOREIGN},
	{"je_dallocx", FREE | FOREIGN},
	{"je_sdallocx", FREE | FOREIGN},
	{"je_arena_*", EITHER | FOREIGN},
	{"je_tcache_*", EITHER | FOREIGN},
	{"je_large_*", EITHER | FOREIGN},
	{"je_extent_*", EITHER | FOREIGN},
	{"je_ecache_*", EITHER | FOREIGN},
	{"je_ehooks_*", EITHER | FOREIGN},
	{"je_pages_*", EITHER | FOREIGN},
	{"je_pac_*", EITHER | FOREIGN},
	{"je_pa_*", EITHER | FOREIGN},
	{"_rjem_*", EITHER | FOREIGN},
	/* tcmalloc */
	{"tc_malloc", MALLOC | FOREIGN},
	{"tc_malloc_skip_new_handler", MALLOC | FOREIGN},
	{"tc_calloc", MALLOC | FOREIGN},
	{"tc_realloc", MALLOC | FOREIGN},
	{"tc_memalign", MALLOC | FOREIGN},
	{"tc_posix_memalign", MALLOC | FOREIGN},
	{"tc_valloc", MALLOC | FOREIGN},
	{"tc_pvalloc", MALLOC | FOREIGN},
	{"tc_new", MALLOC | FOREIGN},
	{"tc_new_aligned*", MALLOC | FOREIGN},
	{"tc_new_nothrow", MALLOC | FOREIGN},
	{"tc_newarray*", MALLOC | FOREIGN},
	{"tc_free", FREE | FOREIGN},
	{"tc_free_sized", FREE | FOREIGN},
	{"tc_cfree", FREE | FOREIGN},
	{"tc_delete", FREE | FOREIGN},
	{"tc_delete_*", FREE | FOREIGN},
	{"tc_deletearray*", FREE | FOREIGN},
	{"_ZN8tcmalloc*", EITHER | FOREIGN},
	{"_ZNK8tcmalloc*", EITHER | FOREIGN},
	{"TCMallocInternal*", EITHER | FOREIGN},
	/* mimalloc; not `mi_*`, which is MyISAM's too */
	{"mi_malloc*", MALLOC | FOREIGN},
	{"mi_calloc*", MALLOC | FOREIGN},
	{"mi_zalloc*", MALLOC | FOREIGN},
	{"mi_realloc*", MALLOC | FOREIGN},
	{"mi_new*", MALLOC | FOREIGN},
	{"mi_heap_malloc*", MALLOC | FOREIGN},
	{"mi_posix_memalign", MALLOC | FOREIGN},
	{"mi_aligned_alloc", MALLOC | FOREIGN},
	{"mi_free", FREE | FOREIGN},
	{"mi_free_size*", FREE | FOREIGN},
	{"mi_free_aligned", FREE | FOREIGN},
	{"_mi_malloc_generic", MALLOC | FOREIGN},
	{"_mi_page_malloc*", MALLOC | FOREIGN},
	{"_mi_page_free*", FREE | FOREIGN},
	{"_mi_free_*", FREE | FOREIGN},
	{"_mi_segment_*", EITHER | FOREIGN},
	/* locks, where one of the above waits */
	{"__lll_lock_wait", WAIT},
	{"__lll_lock_wait_private", WAIT},
	{"__lll_lock_wake", WAIT},
	{"__lll_lock_wake_private", WAIT},
	{"__lock", WAIT},
	{"je_malloc_mutex_lock_slow", WAIT | MALLOC | FOREIGN},
	{"_ZN8SpinLock8SlowLockEv", WAIT},
	{"_ZN8SpinLock8SpinLoopEv", WAIT},
};

/* Of a name that may be on either side, what means the free side. */
static const char *const freeing[] = {
	"dalloc", "_free", "free_",   "Dealloc",  "Delete",      "delete",      "purge",
	"decay",  "flush", "Release", "Scavenge", "InsertRange", "ListTooLong", "FreePages",
};

static const struct name kernel[] = {
	{"sys_mmap", CALL},          {"sys_mmap_pgoff", CALL},
	{"sys_munmap", CALL},        {"sys_mremap", CALL},
	{"sys_brk", CALL},           {"sys_madvise", CALL},
	{"sys_mprotect", CALL},      {"ksys_mmap_pgoff", CALL},
	{"vm_mmap_pgoff", CALL},     {"__vm_munmap", CALL},
	{"do_brk_flags", CALL},      {"do_madvise", CALL},
	{"do_mprotect_pkey", CALL},  {"asm_exc_page_fault", FAULT},
	{"exc_page_fault", FAULT},   {"page_fault", FAULT},
	{"async_page_fault", FAULT}, {"do_page_fault", FAULT},
	{"__do_page_fault", FAULT},  {"do_user_addr_fault", FAULT},
	{"handle_mm_fault", FAULT},  {"do_mem_abort", FAULT},
	{"sys_futex", WAIT},         {"do_futex", WAIT},
};

static bool matches(const char *pattern, const char *name, size_t length)
{
	size_t known = strlen(pattern);

	if (pattern[known - 1] == '*')
		return length >= known - 1 && !strncmp(pattern, name, known - 1);
	return length == known && !strncmp(pattern, name, length);
}

static unsigned find(const struct name *names, size_t count, const char *name, size_t length)
{
	for (size_t i = 0; i < count; i++)
		if (names[i].text[0] == name[0] && matches(names[i].text, name, length))
			return names[i].class;
	return 0;
}

/* Without what compiler and linker append: `.part.0`, `@GLIBC_2.2.5`. */
static size_t plain_length(const char *name)
{
	return strcspn(name, ".@");
}

static bool is_freeing(const char *name)
{
	for (size_t i = 0; i < CPROF_COUNT(freeing); i++)
		if (strstr(name, freeing[i]))
			return true;
	return false;
}

static unsigned user_function(const char *name)
{
	static const char alias[] = "__GI_"; /* glibc's name for itself */
	unsigned class;

	if (!strncmp(name, alias, sizeof(alias) - 1))
		name += sizeof(alias) - 1;
	/* Placement new: nothing is allocated. */
	if (!strcmp(name, "_ZnwmPv") || !strcmp(name, "_ZnamPv") || !strcmp(name, "_ZdlPvS_") ||
	    !strcmp(name, "_ZdaPvS_"))
		return 0;
	class = find(functions, CPROF_COUNT(functions), name, plain_length(name));
	if ((class & EITHER) == EITHER)
		class &= ~(unsigned)(is_freeing(name) ? MALLOC : FREE);
	return class;
}

static unsigned kernel_function(const char *name)
{
	/* System calls are named by the instruction set. */
	static const char *const prefixes[] = {"__x64_", "__arm64_", "__ia32_", "__se_", "__do_"};

	for (size_t i = 0; i < CPROF_COUNT(prefixes); i++) {
		size_t length = strlen(prefixes[i]);

		if (!strncmp(name, prefixes[i], length) && !strncmp(name + length, "sys_", 4))
			return find(kernel, CPROF_COUNT(kernel), name + length,
				    plain_length(name + length));
	}
	return find(kernel, CPROF_COUNT(kernel), name, plain_length(name));
}

unsigned cprof_memtrace_function(enum cprof_memtrace_module module, const char *name)
{
	unsigned class;

	if (module == CPROF_MEMTRACE_KERNEL)
		return kernel_function(name);
	class = user_function(name);
	if (module != CPROF_MEMTRACE_ALLOCATOR)
		return class;
	if (!(class & EITHER) && is_freeing(name))
		class |= FREE;
	return class | FOREIGN;
}

enum cprof_memtrace_module cprof_memtrace_module(const char *path)
{
	static const struct {
		const char *prefix;
		enum cprof_memtrace_module module;
	} modules[] = {
		{"libc.so.6", CPROF_MEMTRACE_GLIBC},
		{"libc-2.", CPROF_MEMTRACE_GLIBC},
		{"libc_malloc_debug.so", CPROF_MEMTRACE_GLIBC},
		{"memfd:" CPROF_AGENT_MEMFD, CPROF_MEMTRACE_AGENT},
		{"libjemalloc", CPROF_MEMTRACE_ALLOCATOR},
		{"libtcmalloc", CPROF_MEMTRACE_ALLOCATOR},
		{"libmimalloc", CPROF_MEMTRACE_ALLOCATOR},
		{"libsnmalloc", CPROF_MEMTRACE_ALLOCATOR},
		{"librpmalloc", CPROF_MEMTRACE_ALLOCATOR},
		{"libscudo", CPROF_MEMTRACE_ALLOCATOR},
		{"libhoard", CPROF_MEMTRACE_ALLOCATOR},
	};
	const char *slash = strrchr(path, '/');

	if (!strncmp(path, "[kernel", 7))
		return CPROF_MEMTRACE_KERNEL;
	path = slash ? slash + 1 : path;
	for (size_t i = 0; i < CPROF_COUNT(modules); i++)
		if (!strncmp(path, modules[i].prefix, strlen(modules[i].prefix)))
			return modules[i].module;
	return CPROF_MEMTRACE_ANY;
}
