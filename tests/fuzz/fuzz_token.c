/* Join tokens: never crashes, never says more about a token than what is wrong with it. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <swarm/session.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1);
	struct join_token t;
	struct sw_err err = SW_ERR_NONE;

	if (!text)
		return 0;
	memcpy(text, data, size);
	text[size] = 0;
	if (join_token_parse(text, &t, &err) == 0) {
		if (strncmp(text, "SWMTKN-", 7) != 0 || (t.version != 1 && t.version != 2))
			abort();
		(void)join_token_check(&t, data, size, &err);
	} else if (!err.cls || (strlen(text) > 24 && strstr(err.msg, text))) {
		abort();
	}
	free(text);
	return 0;
}
