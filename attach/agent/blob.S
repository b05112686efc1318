/* SPDX-License-Identifier: MIT
 *
 * The blob inside the profiler.
 */
	.section .rodata
	.globl cprof_agent_blob, cprof_agent_blob_end
	.balign 16
cprof_agent_blob:
	.incbin CPROF_AGENT_BLOB
cprof_agent_blob_end:
	.section .note.GNU-stack, "", @progbits
