/* SPDX-License-Identifier: MIT
 *
 * What a remote call needs to know of the target beforehand, from outside: instructions that can be
 * borrowed, where stacks are; and why a target is refused before it is touched.
 */
#include "remote.h"

#include <cprof/util.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#define TEXT_MAX (64u << 20) /* of one mapping, looked through */

/* Any place where such bytes stand will do, whatever the compiler meant by them. */
static const uint8_t call_code[] = {0x0f, 0x05, 0xc3};                /* syscall; ret */
static const uint8_t return_code[] = {0xb8, 15, 0, 0, 0, 0x0f, 0x05}; /* mov $15,%eax */
static const uint8_t return_code2[] = {0x48, 0xc7, 0xc0, 15, 0, 0, 0, 0x0f, 0x05}; /* … %rax */

struct survey {
	const struct cprof_target *target;
	struct cprof_remote *remote;
	bool libraries; /* this pass looks at C libraries only */
};

static uint64_t find_code(const uint8_t *text, size_t length, uint64_t address, const uint8_t *code,
			  size_t size)
{
	const uint8_t *at = memmem(text, length, code, size);

	return at ? address + (uint64_t)(at - text) : 0;
}

static bool is_libc(const char *path)
{
	const char *name = strrchr(path, '/');

	return name && (strncmp(name, "/libc.", 6) == 0 || strncmp(name, "/libc-", 6) == 0 ||
			strncmp(name, "/ld-", 4) == 0);
}

static struct cprof_error *look_through(const struct survey *survey,
					const struct cprof_mapping *mapping)
{
	struct cprof_remote *remote = survey->remote;
	size_t length = CPROF_MIN(mapping->end - mapping->start, TEXT_MAX);
	CPROF_AUTO_FREE uint8_t *text = malloc(length);

	if (!text)
		return cprof_error_nomem();
	length = cprof_target_read(survey->target, mapping->start, text, length);
	if (!remote->syscall_gadget)
		remote->syscall_gadget =
			find_code(text, length, mapping->start, call_code, sizeof(call_code));
	if (!remote->restorer)
		remote->restorer =
			find_code(text, length, mapping->start, return_code2, sizeof(return_code2));
	if (!remote->restorer)
		remote->restorer =
			find_code(text, length, mapping->start, return_code, sizeof(return_code));
	return NULL;
}

static struct cprof_error *see_code(void *context, const struct cprof_mapping *mapping)
{
	const struct survey *survey = context;

	if (!(mapping->prot & PROT_EXEC) || (mapping->prot & PROT_WRITE) || !*mapping->path ||
	    strcmp(mapping->path, "[vsyscall]") == 0 ||
	    strstr(mapping->path, "/memfd:" CPROF_AGENT_MEMFD) ||
	    is_libc(mapping->path) != survey->libraries)
		return NULL;
	if (survey->remote->syscall_gadget && survey->remote->restorer)
		return NULL;
	return look_through(survey, mapping);
}

static struct cprof_error *see_stack(void *context, const struct cprof_mapping *mapping)
{
	struct survey *survey = context;
	struct cprof_remote *remote = survey->remote;
	struct cprof_remote_area *area = cprof_remote_area(remote);
	struct cprof_mapped_range range = {.start = mapping->start, .end = mapping->end};

	if (!(mapping->prot & PROT_WRITE) || (mapping->prot & PROT_EXEC && mapping->inode))
		return NULL;
	if (strcmp(mapping->path, "[stack]") == 0)
		remote->main_stack = range;
	if (remote->range_count < CPROF_REMOTE_RANGES)
		area->ranges[remote->range_count++] = range;
	return NULL;
}

/* Whether what was found before is still there: mappings may have changed. */
static bool still_there(const struct survey *survey)
{
	const struct cprof_remote *remote = survey->remote;
	uint8_t call[sizeof(call_code)];
	uint8_t back[sizeof(return_code)];

	return remote->syscall_gadget && remote->restorer &&
	       cprof_target_read(survey->target, remote->syscall_gadget, call, sizeof(call)) ==
		       sizeof(call) &&
	       memcmp(call, call_code, sizeof(call)) == 0 &&
	       cprof_target_read(survey->target, remote->restorer, back, sizeof(back)) ==
		       sizeof(back) &&
	       (memcmp(back, return_code, sizeof(back)) == 0 ||
		memcmp(back, return_code2, sizeof(back)) == 0);
}

struct cprof_error *cprof_remote_survey(const struct cprof_target *target,
					struct cprof_remote *remote)
{
	struct survey survey = {.target = target, .remote = remote, .libraries = true};

	if (!still_there(&survey)) {
		remote->syscall_gadget = 0;
		remote->restorer = 0;
		CPROF_TRY(cprof_target_maps(target, see_code, &survey));
		survey.libraries = false;
		CPROF_TRY(cprof_target_maps(target, see_code, &survey));
	}
	if (!remote->syscall_gadget || !remote->restorer)
		return cprof_error_create(CPROF_DENIED, NULL,
					  "pid %d: its code has no instructions that could be "
					  "borrowed (%s)",
					  (int)cprof_target_info(target)->pid,
					  remote->syscall_gadget ? "rt_sigreturn" : "syscall; ret");
	remote->range_count = 0;
	return cprof_target_maps(target, see_stack, &survey);
}

/* --- refusals ------------------------------------------------------------------------------ */

static struct cprof_error *check_seccomp(const struct cprof_target *target,
					 struct cprof_remote *remote)
{
	CPROF_AUTO_FREE pid_t *tids = NULL;
	size_t count;
	unsigned mode;
	unsigned filters;

	remote->filters = 0;
	CPROF_TRY(cprof_target_threads(target, &tids, &count));
	for (size_t i = 0; i < count; i++) {
		if (!cprof_procfs_seccomp(remote->procfd, tids[i], &mode, &filters))
			continue;
		if (mode == 1)
			return cprof_error_create(CPROF_DENIED, NULL,
						  "pid %d: thread %d is in seccomp's strict mode, "
						  "which kills for any further system call",
						  (int)remote->pid, (int)tids[i]);
		remote->filters = CPROF_MAX(remote->filters, filters);
	}
	return NULL;
}

static bool has_shadow_stack(const struct cprof_target *target)
{
	CPROF_AUTO_FREE char *status =
		cprof_read_file_at(cprof_target_procfd(target), "status", 1 << 16, NULL);
	const char *line = status ? strstr(status, "\nx86_Thread_features:") : NULL;

	return line && memmem(line + 1, strcspn(line + 1, "\n"), "shstk", 5);
}

struct cprof_error *cprof_remote_check(const struct cprof_target *target,
				       struct cprof_remote *remote)
{
	int pid = (int)remote->pid;
	char state = cprof_target_state(target);

	if (!remote->owned)
		CPROF_TRY(cprof_tracer_check(target));
	if (state == 'T')
		return cprof_error_create(CPROF_DENIED, "continue it first: kill -CONT",
					  "pid %d: stopped by a signal", pid);
	if (cprof_procfs_dumping_core(cprof_target_procfd(target)))
		return cprof_error_create(
			CPROF_DENIED, "read its core dump, or use `threads`",
			"pid %d: it has crashed and its core dump is being written", pid);
	if (has_shadow_stack(target))
		return cprof_error_create(CPROF_DENIED,
					  "start it with GLIBC_TUNABLES=glibc.cpu.x86_shstk=off",
					  "pid %d: it uses a shadow stack, which no call can be "
					  "inserted into",
					  pid);
	return check_seccomp(target, remote);
}
