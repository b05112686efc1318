/* SPDX-License-Identifier: MIT
 *
 * One ring buffer shared with the kernel: it moves data_head, we move data_tail.
 */
#include "private.h"
#include <errno.h>
#include <sys/mman.h>

#define RECORD_MAX 65536 /* record sizes are 16 bits */

int cprof_ring_map(struct cprof_ring *ring, size_t size)
{
	size_t page_size = (size_t)sysconf(_SC_PAGESIZE);
	void *memory =
		mmap(NULL, page_size + size, PROT_READ | PROT_WRITE, MAP_SHARED, ring->fd, 0);

	if (memory == MAP_FAILED)
		return -errno;
	ring->page = memory;
	ring->data = (uint8_t *)memory + page_size;
	ring->size = size;
	ring->head = ring->tail = 0;
	return 0;
}

void cprof_ring_unmap(struct cprof_ring *ring)
{
	if (ring->page)
		munmap(ring->page, (size_t)sysconf(_SC_PAGESIZE) + ring->size);
	ring->page = NULL;
}

void cprof_ring_deinit(struct cprof_ring *ring)
{
	cprof_ring_unmap(ring);
	free(ring->scratch);
	if (ring->fd >= 0)
		close(ring->fd);
	if (ring->waits >= 0)
		close(ring->waits);
	*ring = (struct cprof_ring){.fd = -1, .waits = -1};
}

void cprof_ring_refresh(struct cprof_ring *ring)
{
	/* Pairs with the kernel's barrier between writing a record and moving the head. */
	ring->head = __atomic_load_n(&ring->page->data_head, __ATOMIC_ACQUIRE);
}

static void tail_move(struct cprof_ring *ring, uint64_t tail)
{
	ring->tail = tail;
	/* All reads of the record come before this. */
	__atomic_store_n(&ring->page->data_tail, tail, __ATOMIC_RELEASE);
}

/* `length` bytes at the tail, in one piece; NULL without memory for a wrapped record. */
static const uint8_t *bytes_at_tail(struct cprof_ring *ring, size_t length)
{
	size_t start = ring->tail & (ring->size - 1);
	size_t first = CPROF_MIN(length, ring->size - start);

	if (first == length)
		return ring->data + start;
	if (!ring->scratch)
		ring->scratch = malloc(RECORD_MAX);
	if (!ring->scratch)
		return NULL;
	memcpy(ring->scratch, ring->data + start, first);
	memcpy(ring->scratch + first, ring->data, length - first);
	return ring->scratch;
}

bool cprof_ring_next(struct cprof_ring *ring, const struct cprof_perf_format *format)
{
	while (!ring->pending) {
		uint64_t left = ring->head - ring->tail;
		struct perf_event_header header;
		const uint8_t *bytes;

		if (!left)
			return false;
		/* Records are multiples of 8 bytes, as is the ring: a header never wraps. */
		memcpy(&header, ring->data + (ring->tail & (ring->size - 1)), sizeof(header));
		if (left > ring->size || header.size < sizeof(header) || header.size % 8 ||
		    header.size > left) {
			ring->malformed++;
			tail_move(ring, ring->head);
			return false;
		}
		bytes = bytes_at_tail(ring, header.size);
		ring->record_length = header.size;
		ring->pending =
			bytes && cprof_perf_parse(format, bytes, header.size, &ring->record);
		if (!ring->pending) {
			ring->malformed++;
			tail_move(ring, ring->tail + header.size);
		}
	}
	return true;
}

void cprof_ring_consume(struct cprof_ring *ring)
{
	tail_move(ring, ring->tail + ring->record_length);
	ring->pending = false;
}
