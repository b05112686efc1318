/* SPDX-License-Identifier: MIT
 *
 * Runs beside others.
 *
 * What memtrace knows: names of functions and modules, files of procfs and the cgroup tree.
 */
#include "../../src/memtrace/private.h"

#include <cprof/util.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

/* --- names --------------------------------------------------------------------------------- */

static void expect_bits(enum cprof_memtrace_module module, const char *name, unsigned bits)
{
	unsigned got = cprof_memtrace_function(module, name);

	if (got != bits)
		fail_msg("%s in %d: %u, not %u", name, (int)module, got, bits);
}

/* The same of names separated by blanks. */
static void expect_all(enum cprof_memtrace_module module, const char *names, unsigned bits)
{
	char *text = strdup(names);
	char *save = NULL;

	for (char *name = strtok_r(text, " ", &save); name; name = strtok_r(NULL, " ", &save))
		expect_bits(module, name, bits);
	free(text);
}

static void test_allocators(void **state)
{
	static const char mallocs[] =
		"malloc calloc realloc reallocarray memalign aligned_alloc posix_memalign "
		"valloc pvalloc __libc_malloc __GI___libc_malloc malloc@@GLIBC_2.2.5 "
		"malloc.part.0 sysmalloc _int_realloc _Znwm _Znam _ZnwmRKSt9nothrow_t "
		"_ZnwmSt11align_val_t __libc_malloc_impl tcache_init.part.0 __rust_alloc "
		"__interceptor_malloc";
	static const char frees[] =
		"free cfree __libc_free __GI___libc_free _int_free _int_free.isra.0 "
		"systrim.constprop.0 munmap_chunk _ZdlPv _ZdaPv _ZdlPvm _ZdlPvSt11align_val_t "
		"malloc_consolidate __rust_dealloc";
	static const char foreign_mallocs[] =
		"je_malloc je_arena_malloc_hard je_tcache_alloc_small_hard mallocx _rjem_malloc "
		"_rjem_je_arena_palloc tc_malloc tc_new tc_newarray_nothrow "
		"_ZN8tcmalloc15CentralFreeList11RemoveRangeEiPPvS2_ mi_malloc mi_malloc_aligned "
		"_mi_malloc_generic _mi_page_malloc";
	static const char foreign_frees[] =
		"je_free je_sdallocx je_arena_dalloc_small je_tcache_bin_flush_small "
		"je_arena_decay _rjem_sdallocx tc_free tc_delete tc_deletearray_sized "
		"_ZN8tcmalloc11ThreadCache8ScavengeEv _ZN8tcmalloc8PageHeap6DeleteEPNS_4SpanE "
		"mi_free _mi_free_generic _mi_page_free_collect";
	/* What only looks like it: classes' own operators, placement new, other libraries. */
	static const char others[] =
		"main free_list malloc_stats_of my_malloc xmalloc freeaddrinfo _ZN3Foo4freeEv "
		"_ZN3FoonwEm _ZN3FoodlEPv _ZnwmPv _ZnamPv _ZdlPvS_ mi_open mi_create mi_write "
		"mi_freeze je_suis je_ tc_open tc_mallocator mallocs Free FREE _Znwo _ZN4tcma "
		"freelance __x64_sys_munmap handle_mm_fault malloc_usable_size mallinfo2 memcpy";

	(void)state;
	expect_all(CPROF_MEMTRACE_ANY, mallocs, CPROF_MEMTRACE_MALLOC);
	expect_all(CPROF_MEMTRACE_ANY, frees, CPROF_MEMTRACE_FREE);
	expect_all(CPROF_MEMTRACE_ANY, foreign_mallocs,
		   CPROF_MEMTRACE_MALLOC | CPROF_MEMTRACE_FOREIGN);
	expect_all(CPROF_MEMTRACE_ANY, foreign_frees, CPROF_MEMTRACE_FREE | CPROF_MEMTRACE_FOREIGN);
	expect_all(CPROF_MEMTRACE_ANY, others, 0);
	expect_bits(CPROF_MEMTRACE_ANY, "_int_malloc", CPROF_MEMTRACE_MALLOC | CPROF_MEMTRACE_SLOW);
	expect_bits(CPROF_MEMTRACE_GLIBC, "__lll_lock_wait_private", CPROF_MEMTRACE_WAIT);
	/* Everything in an allocator's library is the allocator's. */
	expect_bits(CPROF_MEMTRACE_ALLOCATOR, "background_thread_entry", CPROF_MEMTRACE_FOREIGN);
	expect_bits(CPROF_MEMTRACE_ALLOCATOR, "arena_dalloc_bin",
		    CPROF_MEMTRACE_FREE | CPROF_MEMTRACE_FOREIGN);
	expect_bits(CPROF_MEMTRACE_ALLOCATOR, "free", CPROF_MEMTRACE_FREE | CPROF_MEMTRACE_FOREIGN);
	expect_bits(CPROF_MEMTRACE_ALLOCATOR, "", CPROF_MEMTRACE_FOREIGN);
}

static void test_kernel(void **state)
{
	static const char calls[] =
		"__x64_sys_mmap __x64_sys_munmap __x64_sys_mremap __x64_sys_brk __do_sys_brk "
		"__arm64_sys_madvise __x64_sys_mprotect ksys_mmap_pgoff __vm_munmap "
		"__se_sys_madvise";
	static const char faults[] =
		"asm_exc_page_fault exc_page_fault do_user_addr_fault handle_mm_fault "
		"handle_mm_fault.constprop.0 __do_page_fault";
	static const char others[] =
		"do_syscall_64 __x64_sys_read malloc entry_SYSCALL_64_after_hwframe sys_mmaps "
		"__x64_sys_mlock free";

	(void)state;
	expect_all(CPROF_MEMTRACE_KERNEL, calls, CPROF_MEMTRACE_CALL);
	expect_all(CPROF_MEMTRACE_KERNEL, faults, CPROF_MEMTRACE_FAULT);
	expect_all(CPROF_MEMTRACE_KERNEL, others, 0);
	expect_bits(CPROF_MEMTRACE_ANY, "", 0);
	expect_bits(CPROF_MEMTRACE_KERNEL, "", 0);
	expect_bits(CPROF_MEMTRACE_KERNEL, "__x64_sys_futex", CPROF_MEMTRACE_WAIT);
}

static void test_modules(void **state)
{
	(void)state;
	assert_int_equal(cprof_memtrace_module("[kernel.kallsyms]"), CPROF_MEMTRACE_KERNEL);
	assert_int_equal(cprof_memtrace_module("/usr/lib/x86_64-linux-gnu/libc.so.6"),
			 CPROF_MEMTRACE_GLIBC);
	assert_int_equal(cprof_memtrace_module("/lib/libc-2.31.so"), CPROF_MEMTRACE_GLIBC);
	assert_int_equal(cprof_memtrace_module("/usr/lib/libjemalloc.so.2"),
			 CPROF_MEMTRACE_ALLOCATOR);
	assert_int_equal(cprof_memtrace_module("libtcmalloc_minimal.so.4 (deleted)"),
			 CPROF_MEMTRACE_ALLOCATOR);
	assert_int_equal(cprof_memtrace_module("/home/libjemalloc/server"), CPROF_MEMTRACE_ANY);
	assert_int_equal(cprof_memtrace_module("/lib/libcrypto.so.3"), CPROF_MEMTRACE_ANY);
	assert_int_equal(cprof_memtrace_module("/lib/ld-musl-x86_64.so.1"), CPROF_MEMTRACE_ANY);
	assert_int_equal(cprof_memtrace_module(""), CPROF_MEMTRACE_ANY);
	assert_int_equal(cprof_memtrace_module("/"), CPROF_MEMTRACE_ANY);
}

/* --- files --------------------------------------------------------------------------------- */

static char tree[] = "/tmp/cprof-test-XXXXXX";

static int make_tree(void **state)
{
	(void)state;
	return mkdtemp(tree) ? 0 : -1;
}

static int remove_tree(void **state)
{
	char command[64];

	(void)state;
	snprintf(command, sizeof(command), "rm -rf %s", tree);
	return system(command) ? -1 : 0;
}

/* "a/b/file" with that text, in the tree. */
static void put(const char *path, const char *text)
{
	char full[512];
	FILE *file;

	snprintf(full, sizeof(full), "%s/%s", tree, path);
	for (char *slash = full + strlen(tree) + 1; (slash = strchr(slash, '/')); slash++) {
		*slash = '\0';
		mkdir(full, 0700);
		*slash = '/';
	}
	file = fopen(full, "w");
	assert_non_null(file);
	fputs(text, file);
	fclose(file);
}

static void expect_limit(const char *groups, uint64_t limit)
{
	CPROF_AUTO_CLOSE int rootfd = open(tree, O_PATH | O_DIRECTORY | O_CLOEXEC);
	uint64_t got = cprof_memtrace_limit(rootfd, groups);

	if (got != limit)
		fail_msg("%s: %llu, not %llu", groups, (unsigned long long)got,
			 (unsigned long long)limit);
}

static void test_limits(void **state)
{
	char *deep = malloc(100000);

	(void)state;
	put("a/memory.max", "max\n");
	put("a/memory.high", "max\n");
	put("a/b/memory.max", "1000000\n");
	put("a/b/memory.high", "max\n");
	put("a/b/c/memory.max", "2000000\n");
	put("a/b/c/memory.high", "900000\n");
	put("bad/memory.max", "-5\n");
	put("bad/memory.high", "99999999999999999999999\n");
	put("bad/empty/memory.max", "");
	put("out/memory.max", "1\n");
	put("..odd/memory.max", "77\n");
	put("memory/x/memory.limit_in_bytes", "9223372036854771712\n");
	put("memory/x/y/memory.limit_in_bytes", "4096000\n");
	put("unified/u/memory.max", "5000\n");

	expect_limit("0::/\n", UINT64_MAX);
	expect_limit("0::/a\n", UINT64_MAX);
	expect_limit("0::/a/b\n", 1000000);
	expect_limit("0::/a/b/c\n", 900000);
	expect_limit("0::/a/b/c", 900000);
	expect_limit("0::/a/b/gone (deleted)\n", 1000000);
	expect_limit("0::/bad/empty\n", UINT64_MAX);
	expect_limit("0::/..odd\n", 77);
	expect_limit("0::/u\n", 5000);
	/* out of what we see: another group of that name says nothing */
	expect_limit("0::/../out\n", UINT64_MAX);
	expect_limit("0::/a/../out\n", UINT64_MAX);
	expect_limit("0::/..\n", UINT64_MAX);
	/* v1 */
	expect_limit("4:memory:/x\n", UINT64_MAX);
	expect_limit("4:memory:/x/y\n", 4096000);
	expect_limit("12:cpu,memory:/x/y\n", 4096000);
	expect_limit("12:cpu:/x/y\n3:mem:/x/y\n2:name=memory:/x/y\n", UINT64_MAX);
	expect_limit("9:pids:/\n4:memory:/x/y\n0::/u\n", 5000);
	/* nonsense */
	expect_limit("", UINT64_MAX);
	expect_limit("\n\n::\n:\n0:\n0::\n0::a/b\nmemory:/x/y", UINT64_MAX);
	put("memory.max", "300000\n"); /* of a container: its own group is on top */
	expect_limit("0::/elsewhere/deep\n", 300000);
	expect_limit("0::/../../x\n", 300000);
	memset(deep, 'd', 99999);
	memcpy(deep, "0::/", 4);
	deep[99999] = '\0';
	expect_limit(deep, UINT64_MAX); /* longer than a path can be */
	free(deep);
}

static void test_process(void **state)
{
	struct cprof_memtrace_process process;
	struct cprof_target *target;
	uint64_t own = cprof_own_rss();
	cpu_set_t allowed;

	(void)state;
	assert_int_equal(cprof_memtrace_count_cpus("\tff,ffffffff\n"), 40);
	assert_int_equal(cprof_memtrace_count_cpus("3\nFF\n"), 2);
	assert_int_equal(cprof_memtrace_count_cpus("zz0\n"), 0);
	assert_int_equal(cprof_memtrace_count_cpus(""), 0);
	assert_null(cprof_target_create(getpid(), &target));
	cprof_memtrace_process(target, &process);
	assert_true(process.rss_bytes > own / 2 && process.rss_bytes < own * 2 + (64u << 20));
	assert_true(process.threads >= 1 && process.threads < 10);
	assert_int_equal(sched_getaffinity(0, sizeof(allowed), &allowed), 0);
	assert_int_equal(process.cpus, CPU_COUNT(&allowed));
	assert_true(process.held_bytes < 0);
	cprof_target_destroy(target);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_allocators), cmocka_unit_test(test_kernel),
		cmocka_unit_test(test_modules),    cmocka_unit_test(test_limits),
		cmocka_unit_test(test_process),
	};

	return cmocka_run_group_tests(tests, make_tree, remove_tree);
}
