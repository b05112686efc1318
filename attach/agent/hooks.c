/* SPDX-License-Identifier: MIT
 *
 * The header, the hooks and the way from them to the slow path. One hook for each bank and
 * function, made by the assembler's macros. A hook leaves no frame, and touches rax, r10 and r11
 * only, which are dead at a call of these functions.
 */
#include "agent.h"

_Static_assert(CPROF_AGENT_MAGIC == 0x746e656761667063, "asm");
_Static_assert(CPROF_AGENT_VERSION == 2, "asm");
_Static_assert(CPROF_AGENT_HASH == 0x9e3779b97f4a7c15, "asm");
_Static_assert(CPROF_AGENT_SHARD_BITS == 12 && sizeof(struct cprof_agent_shard) == 64, "asm");
_Static_assert(CPROF_AGENT_FILTER == 1 << 16 && CPROF_AGENT_FILTER_SHIFT == 10, "asm");
_Static_assert(offsetof(struct cprof_agent_private, filter) == 0x40000, "asm");
_Static_assert(offsetof(struct cprof_agent_shard, countdown) == 0, "asm");
_Static_assert(offsetof(struct cprof_agent_control, on) == 0, "asm");
_Static_assert(CPROF_AGENT_BANKS == 4, "asm");
_Static_assert(CPROF_AGENT_LAYOUTS == 2 && CPROF_AGENT_GLIBC == 0, "asm");
/* One index for the originals of both. */
_Static_assert(offsetof(struct cprof_agent_config, lock_originals) ==
		       CPROF_AGENT_BANKS * CPROF_AGENT_FUNCTION_COUNT * 8,
	       "asm");
_Static_assert(CPROF_AGENT_LOCK_BUCKETS == 0x200 && CPROF_AGENT_LOCK_SHIFT == 4, "asm");
_Static_assert(CPROF_AGENT_SHARED - CPROF_AGENT_PRIVATE +
			       offsetof(struct cprof_agent_shared, waiting) ==
		       0x51000,
	       "asm");
_Static_assert(offsetof(struct frame, index) == 88 && offsetof(struct frame, result) == 96, "asm");
_Static_assert(offsetof(struct frame, above) == 128, "asm");

_Static_assert(CPROF_AGENT_CONFIG == 0xc000 && CPROF_AGENT_CONTROL == 0xe000, "agent.ld");
_Static_assert(CPROF_AGENT_PRIVATE == 0x10000 && CPROF_AGENT_SHARED == 0x60000, "agent.ld");

/* clang-format off */
#define OFFSET_OF(id, symbol, shape, variant) ".long hook_\\bank\\()_" #id " - cprof_agent_base\n"
#define HOOK_OF(id, symbol, shape, variant)   "hook_" #shape " \\bank, " #id "\n"
#define LOCK_OFFSET_OF(id, symbol, shape)     ".long hook_\\bank\\()_" #id " - cprof_agent_base\n"
#define LOCK_HOOK_OF(id, symbol, shape)       "hook_\\bank\\()_" #shape " \\bank, " #id "\n"

__asm__(
".section .text.first, \"ax\", @progbits\n"
".globl cprof_agent_base\n.hidden cprof_agent_base\n"
".hidden cprof_agent_text_end, cprof_agent_run, cprof_agent_swap, cprof_agent_skip\n"
".hidden cprof_agent_config_page, cprof_agent_control_page, cprof_agent_slow\n"
"cprof_agent_base:\n"
".quad 0x746e656761667063\n"
".long 2, cprof_agent_text_end - cprof_agent_base\n"
".quad 0\n"
".long cprof_agent_run - cprof_agent_base\n"
".long cprof_agent_swap - cprof_agent_base\n"
".long cprof_agent_skip - cprof_agent_base\n"
".long 0\n"
".macro offsets bank\n"
CPROF_AGENT_FUNCTIONS(OFFSET_OF)
".endm\n"
"offsets 0\n offsets 1\n offsets 2\n offsets 3\n"
".macro lock_offsets bank\n"
CPROF_AGENT_LOCKS(LOCK_OFFSET_OF)
".endm\n"
"lock_offsets glibc\n lock_offsets musl\n"

/* r11 = PRIVATE, or on to the original when switched off */
".macro begin bank, id\n"
"	.p2align 4\n"
"hook_\\bank\\()_\\id:\n"
"	endbr64\n"
"	mov cprof_agent_control_page(%rip), %r11\n"
"	test %r11, %r11\n"
"	jz 1f\n"
".endm\n"

/* The filter entry of a pointer. */
".macro filter address\n"
"	mov \\address, %rax\n"
"	shr $10, %rax\n"
"	movzwl %ax, %eax\n"
"	cmpb $0, 0x40000(%r11,%rax)\n"
"	jne 2f\n"
".endm\n"

/* r11 = the shard, which begins with its countdown */
".macro shard\n"
"	movabs $0x9e3779b97f4a7c15, %r10\n"
"	imul %fs:0, %r10\n"
"	shr $52, %r10\n"
"	shl $6, %r10\n"
"	add %r10, %r11\n"
".endm\n"

/* Takes size + 1 from the countdown. One that does not suffice is not written: at rate 1 it must
 * be 0 for whoever shares it. */
".macro count size\n"
"	mov (%r11), %r10\n"
"	sub \\size, %r10\n"
"	jbe 2f\n"
"	dec %r10\n"
"	mov %r10, (%r11)\n"
".endm\n"

/* An overflow is the original's to refuse. */
".macro product first, second\n"
"	mov \\first, %rax\n"
"	imul \\second, %rax\n"
"	jo 1f\n"
".endm\n"

".set hook_index, 0\n"
".macro end\n"
"1:	jmp *cprof_agent_config_page+8*hook_index(%rip)\n"
"2:	mov $hook_index, %eax\n"
"	jmp hook_slow\n"
"	.set hook_index, hook_index + 1\n"
".endm\n"

".macro hook_SIZE1 bank, id\n begin \\bank, \\id\n shard\n count %rdi\n end\n .endm\n"
".macro hook_SIZE2 bank, id\n begin \\bank, \\id\n shard\n count %rsi\n end\n .endm\n"
".macro hook_POSIX bank, id\n begin \\bank, \\id\n shard\n count %rdx\n end\n .endm\n"
".macro hook_COUNT bank, id\n begin \\bank, \\id\n shard\n"
"	product %rdi, %rsi\n count %rax\n end\n .endm\n"
".macro hook_RESIZE bank, id\n begin \\bank, \\id\n filter %rdi\n shard\n"
"	count %rsi\n end\n .endm\n"
".macro hook_RECOUNT bank, id\n begin \\bank, \\id\n filter %rdi\n shard\n"
"	product %rsi, %rdx\n count %rax\n end\n .endm\n"
".macro hook_FREE bank, id\n begin \\bank, \\id\n filter %rdi\n end\n .endm\n"

".macro hooks bank\n"
CPROF_AGENT_FUNCTIONS(HOOK_OF)
".endm\n"
"hooks 0\n hooks 1\n hooks 2\n hooks 3\n"

/*
 * Locks: one look at the word, then on, unless it is taken. glibc: a mutex's word is 0 when it is
 * free; bit 1 of a rwlock's says that a writer has it, bit 0 alone that the last one was a writer;
 * a spin lock's is 1 when it is free. musl: a mutex's word is the second; a rwlock counts readers,
 * all bits but the highest for a writer; a spin lock's is 0 when it is free.
 */
".macro peek bank, id, look:vararg\n"
"	begin \\bank, \\id\n"
"	\\look\n"
"	jnz 2f\n"
"	end\n"
".endm\n"
".macro hook_glibc_MUTEX bank, id\n peek \\bank, \\id, cmpl $0, (%rdi)\n .endm\n"
".macro hook_glibc_READ bank, id\n peek \\bank, \\id, testl $2, (%rdi)\n .endm\n"
".macro hook_glibc_WRITE bank, id\n peek \\bank, \\id, testl $-2, (%rdi)\n .endm\n"
".macro hook_glibc_SPIN bank, id\n peek \\bank, \\id, cmpl $1, (%rdi)\n .endm\n"
".macro hook_musl_MUTEX bank, id\n peek \\bank, \\id, cmpl $0, 4(%rdi)\n .endm\n"
".macro hook_musl_READ bank, id\n peek \\bank, \\id, testl $0x40000000, (%rdi)\n .endm\n"
".macro hook_musl_WRITE bank, id\n peek \\bank, \\id, cmpl $0, (%rdi)\n .endm\n"
".macro hook_musl_SPIN bank, id\n peek \\bank, \\id, cmpl $0, (%rdi)\n .endm\n"

/* Whether anybody who is timed waits in the lock's bucket. Whoever has been charged for already is
 * of interest only while somebody sleeps: glibc's plain mutexes are 1 while nobody does. */
".macro let_go bank, id, lock, awake\n"
"	begin \\bank, \\id\n"
"	mov \\lock, %rax\n"
"	shr $4, %rax\n"
"	and $0x1ff, %eax\n"
"	movzwl 0x51000(%r11,%rax,2), %eax\n"
"	test %eax, %eax\n"
"	jne 3f\n"
"1:	jmp *cprof_agent_config_page+8*hook_index(%rip)\n"
"3:	test %al, %al\n"
"	jne 2f\n"
"	cmpl $\\awake, (\\lock)\n"
"	je 1b\n"
"2:	mov $hook_index, %eax\n"
"	jmp hook_slow\n"
"	.set hook_index, hook_index + 1\n"
".endm\n"
".macro hook_glibc_UNLOCK bank, id\n let_go \\bank, \\id, %rdi, 1\n .endm\n"
".macro hook_glibc_COND bank, id\n let_go \\bank, \\id, %rsi, 1\n .endm\n"
/* musl's first word is a mutex's type, a rwlock's count, a spin lock's 1 */
".macro hook_musl_UNLOCK bank, id\n let_go \\bank, \\id, %rdi, -1\n .endm\n"
".macro hook_musl_COND bank, id\n let_go \\bank, \\id, %rsi, -1\n .endm\n"

".macro lock_hooks bank\n"
CPROF_AGENT_LOCKS(LOCK_HOOK_OF)
".endm\n"
"lock_hooks glibc\n lock_hooks musl\n"

/* struct frame. The chain of frame pointers leads through it for unwinders without CFI. */
"	.p2align 4\n"
"hook_slow:\n"
"	push %rbp\n"
"	mov %rsp, %rbp\n"
"	push %rax\n"
"	push %rax\n"
"	push %rax\n"
"	push %r15\n"
"	push %r14\n"
"	push %r13\n"
"	push %r12\n"
"	push %rbx\n"
"	push %r9\n"
"	push %r8\n"
"	push %rcx\n"
"	push %rdx\n"
"	push %rsi\n"
"	push %rdi\n"
"	mov %rsp, %rdi\n"
"	call cprof_agent_slow\n"
"	test %al, %al\n"
"	jz 1f\n"
"	mov 96(%rsp), %rax\n"
"	leave\n"
"	ret\n"
"1:	mov 0(%rsp), %rdi\n"
"	mov 8(%rsp), %rsi\n"
"	mov 16(%rsp), %rdx\n"
"	mov 24(%rsp), %rcx\n"
"	mov 32(%rsp), %r8\n"
"	mov 40(%rsp), %r9\n"
"	mov 88(%rsp), %eax\n"
"	leave\n"
"	lea cprof_agent_config_page(%rip), %r11\n"
"	jmp *(%r11,%rax,8)\n"
".text\n"
);
/* clang-format on */
