/* What a peer can put into a gRPC stream: frames cut anywhere, and the texts of its trailers.
 * Input: 1 byte size of the cuts, 1 byte length of the text, the text, the stream. */
#include "wire/frame.h"
#include "wire/status.h"
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <swarm/chain.h>
#include <swarm/grpc.h>

#define LIMIT (1u << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(int ok)
{
	if (!ok)
		abort();
}

static void texts(const char *s)
{
	char out[64], timeout[16];
	int code = grpc_status_parse(s);
	uint64_t n = 0;

	must(code >= 0 && code <= GRPC_UNAUTHENTICATED);
	must(grpc_code_class(code) == SW_OK ? code == 0 : code != 0);
	must(strcmp(grpc_code_name(code), "?") != 0);
	memset(out, 'x', sizeof(out));
	grpc_message_decode(out, sizeof(out), s);
	must(strlen(out) <= strlen(s) && strlen(out) < sizeof(out));
	for (const char *p = out; *p; p++)
		must((unsigned char)*p >= 0x20 && *p != 0x7f);
	(void)grpc_content_type_ok(s);
	memcpy(&n, s, strlen(s) < sizeof(n) ? strlen(s) : sizeof(n));
	grpc_timeout_format(timeout, n);
	must(strlen(timeout) >= 2 && strlen(timeout) <= 9);
	code = grpc_code_from_http((int)(n & 1023));
	must(code > 0 && code <= GRPC_UNAUTHENTICATED);
	code = grpc_code_from_reset((uint32_t)n);
	must(code > 0 && code <= GRPC_UNAUTHENTICATED);
}

static void frames(const uint8_t *p, size_t size, size_t cut)
{
	struct frame_reader r = {0};
	struct chain in = {0};
	enum frame_result res = FRAME_MORE;
	size_t eaten = 0, len;

	for (size_t off = 0; off < size && res == FRAME_MORE; off += cut) {
		must(chain_append(&in, p + off, cut < size - off ? cut : size - off) == 0);
		while ((res = frame_feed(&r, &in, LIMIT)) == FRAME_READY) {
			uint8_t *m = frame_take(&r, &len);

			/* the message is the input's bytes, after its prefix */
			must(len <= LIMIT && eaten + 5 + len <= size);
			must(memcmp(m, p + eaten + 5, len) == 0);
			eaten += 5 + len;
			free(m);
		}
		if (res == FRAME_MORE)
			must(chain_len(&in) == 0);
		must(r.room <= LIMIT && r.have <= r.room);
	}
	frame_done(&r);
	chain_done(&in);
	must(block_count() == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char text[256];
	size_t n;

	if (size < 2)
		return 0;
	n = data[1] < size - 2 ? data[1] : size - 2;
	memcpy(text, data + 2, n);
	text[n] = 0;
	texts(text);
	frames(data + 2 + n, size - 2 - n, data[0] ? data[0] : 1);
	return 0;
}
