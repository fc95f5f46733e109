#include <captured.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

uint8_t *captured_bytes(const char *hex, size_t *len)
{
	size_t n = strlen(hex) / 2;
	uint8_t *p = malloc(n + 1);

	for (size_t i = 0; p && i < n; i++) {
		unsigned byte = 0;

		if (sscanf(hex + 2 * i, "%2x", &byte) != 1)
			abort();
		p[i] = (uint8_t)byte;
	}
	*len = n;
	return p;
}
