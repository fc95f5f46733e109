/* A log stream: the first byte says TTY, details and how to split; any split gives the same
 * records, and a record is never longer than what came. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <swarm/mem.h>

#include "engine/engine-internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct sum {
	uint64_t hash;
	size_t n, bytes;
};

static void mix(struct sum *s, const void *p, size_t n)
{
	const uint8_t *b = p;

	for (size_t i = 0; i < n; i++)
		s->hash = (s->hash ^ b[i]) * 0x100000001b3ull;
}

static int feed(
	const uint8_t *data, size_t size, size_t piece, bool tty, bool details, struct sum *s)
{
	struct logdemux d;
	struct chain in = {0};
	struct engine_log_record rec;
	struct sw_err err;
	int r = 0;

	logdemux_init(&d, tty, details);
	for (size_t off = 0; r >= 0; off += piece) {
		bool end = off + piece >= size;

		if (off < size)
			chain_append_static(&in, data + off, end ? size - off : piece);
		while ((r = logdemux_next(&d, &in, end, &rec, &err)) == 1) {
			size_t n = chain_len(rec.data);

			mix(s, chain_pullup(rec.data, n), n);
			mix(s, &rec.time_ns, sizeof(rec.time_ns));
			for (size_t i = 0; i < rec.n_attrs; i++)
				mix(s, rec.attrs[i].key, strlen(rec.attrs[i].key));
			s->n++;
			s->bytes += n;
			logdemux_release(&rec);
		}
		if (end)
			break;
	}
	chain_done(&in);
	logdemux_done(&d);
	return r < 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct sum whole = {0}, pieces = {0};
	int a, b;

	if (!size)
		return 0;
	a = feed(data + 1, size - 1, size, data[0] & 1, data[0] & 2, &whole);
	b = feed(data + 1, size - 1, 1u + (data[0] >> 2), data[0] & 1, data[0] & 2, &pieces);
	if (a != b || whole.n != pieces.n || whole.hash != pieces.hash || whole.bytes > size)
		abort();
	return 0;
}
