/* SPDX-License-Identifier: MIT
 *
 * The remote call alone, with a routine that does nothing: `remote PID COUNT` plants and calls so
 * many times, prints figures as JSON; exit status is the error's.
 */
#include "../../attach/remote.h"

#include <cprof/util.h>
#include <string.h>
#include <sys/mman.h>

/* Closes the memfd of a START, says so, waits for about 100 ms, and goes back by rt_sigreturn. */
__asm__(".pushsection .rodata\n"
	"stub: mov %rdi, %rbx\n"
	"movslq 64(%rbx), %rdi\n"
	"test %edi, %edi\n"
	"js 1f\n"
	"mov $3, %eax\n"
	"syscall\n"
	"1: mov 96(%rbx), %rax\n" /* reserved: nonzero, a crash */
	"test %rax, %rax\n"
	"jz 2f\n"
	"swap: mov %rax, (%rax)\n"
	"skip: incq 56(%rbx)\n"
	"2: movq $1, (%rbx)\n"
	"mov $2000000, %ecx\n"
	"3: pause\n"
	"dec %ecx\n"
	"jnz 3b\n"
	"mov 32(%rbx), %rsp\n"
	"mov $15, %eax\n"
	"syscall\n"
	"stub_end:\n"
	".popsection\n");
extern const uint8_t stub[], stub_end[], swap[], skip[];

#define STUB 1024

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a;
	uint64_t y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static void prepare(struct cprof_remote *remote)
{
	struct cprof_agent_header *header =
		(struct cprof_agent_header *)cprof_remote_area(remote)->text;

	*header = (struct cprof_agent_header){
		.magic = CPROF_AGENT_MAGIC,
		.run = STUB,
		.swap = STUB + (uint32_t)(swap - stub),
		.skip = STUB + (uint32_t)(skip - stub),
	};
	memcpy((uint8_t *)header + STUB, stub, (size_t)(stub_end - stub));
	remote->plant = true;
	remote->replace = true;
	remote->base = 0x600000000000;
	remote->call_count = 1;
	remote->memfd_flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
}

int main(int argc, char **argv)
{
	size_t count = argc > 2 ? strtoul(argv[2], NULL, 10) : 1;
	uint64_t *held = calloc(count + 1, sizeof(*held));
	uint64_t stops = 0;
	uint64_t stops_max = 0;
	uint64_t skipped = 0;
	struct cprof_target *target;
	struct cprof_remote *remote;
	struct cprof_error *error = cprof_target_create(atoi(argv[1]), &target);

	if (!error)
		error = cprof_remote_create(&remote);
	for (size_t i = 0; !error && i < count; i++) {
		prepare(remote);
		memset(remote->calls, 0, sizeof(remote->calls));
		remote->calls[0].reserved[0] = argc > 3 ? 8 : 0; /* an address to fault at */
		error = cprof_remote_run(target, remote);
		if (error)
			break;
		close(remote->memfd);
		held[i] = remote->held_ns;
		stops += remote->stops;
		stops_max = CPROF_MAX(stops_max, remote->stops);
		skipped += remote->calls[0].failed;
	}
	if (error) {
		cprof_error_print(error, stderr);
		return (int)error->status;
	}
	qsort(held, count, sizeof(*held), compare);
	printf("{\"count\": %zu, \"held_ns_p50\": %lu, \"held_ns_p99\": %lu, \"held_ns_max\": %lu, "
	       "\"stops\": %.2f, \"stops_max\": %lu, \"skipped\": %lu}\n",
	       count, held[count / 2], held[count * 99 / 100], held[count - 1],
	       (double)stops / (double)count, stops_max, skipped);
	return 0;
}
