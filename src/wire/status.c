#include "status.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <swarm/grpc.h>
#include <swarm/mem.h>

const char *grpc_code_name(int code)
{
	static const char *const names[] = {"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT",
		"DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED",
		"RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE",
		"UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"};

	return code >= 0 && (size_t)code < SW_ARRAY_LEN(names) ? names[code] : "?";
}

int grpc_status_parse(const char *s)
{
	int n = 0;

	if (!*s)
		return GRPC_UNKNOWN;
	for (; *s; s++) {
		if (*s < '0' || *s > '9')
			return GRPC_UNKNOWN;
		n = n * 10 + (*s - '0');
		if (n > GRPC_UNAUTHENTICATED)
			return GRPC_UNKNOWN;
	}
	return n;
}

int grpc_code_from_http(int status)
{
	switch (status) {
	case 400:
		return GRPC_INTERNAL;
	case 401:
		return GRPC_UNAUTHENTICATED;
	case 403:
		return GRPC_PERMISSION_DENIED;
	case 404:
		return GRPC_UNIMPLEMENTED;
	case 429:
	case 502:
	case 503:
	case 504:
		return GRPC_UNAVAILABLE;
	default:
		return GRPC_UNKNOWN;
	}
}

int grpc_code_from_reset(uint32_t h2_error)
{
	switch (h2_error) { /* RFC 9113, section 7 */
	case 3:             /* FLOW_CONTROL_ERROR */
	case 11:            /* ENHANCE_YOUR_CALM */
		return GRPC_RESOURCE_EXHAUSTED;
	case 7: /* REFUSED_STREAM */
		return GRPC_UNAVAILABLE;
	case 8: /* CANCEL */
		return GRPC_CANCELLED;
	case 12: /* INADEQUATE_SECURITY */
		return GRPC_PERMISSION_DENIED;
	default:
		return GRPC_INTERNAL;
	}
}

enum sw_errclass grpc_code_class(int code)
{
	switch (code) {
	case GRPC_OK:
		return SW_OK;
	case GRPC_CANCELLED:
	case GRPC_UNKNOWN:
	case GRPC_DEADLINE_EXCEEDED:
	case GRPC_RESOURCE_EXHAUSTED:
	case GRPC_ABORTED:
	case GRPC_INTERNAL:
	case GRPC_UNAVAILABLE:
		return SW_TEMPORARY;
	default:
		return SW_REJECTED;
	}
}

static int hex(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

void grpc_message_decode(char *dst, size_t room, const char *src)
{
	size_t n = 0;

	for (; *src && n + 1 < room; src++) {
		int c = (unsigned char)*src;

		if (c == '%' && hex(src[1]) >= 0 && hex(src[2]) >= 0) {
			c = hex(src[1]) * 16 + hex(src[2]);
			src += 2;
		}
		dst[n++] = (char)(c < 0x20 || c == 0x7f ? ' ' : c);
	}
	dst[n] = 0;
}

void grpc_timeout_format(char *dst, uint64_t timeout_ns)
{
	static const struct {
		uint64_t ns;
		char unit;
	} units[] = {{1, 'n'}, {1000, 'u'}, {1000000, 'm'}, {1000000000, 'S'}, {60000000000, 'M'},
		{3600000000000, 'H'}};
	size_t i;

	/* coarser while nothing is lost or there is no other way */
	for (i = 0; i + 1 < SW_ARRAY_LEN(units); i++)
		if (timeout_ns % units[i + 1].ns != 0 && timeout_ns / units[i].ns < 99999999)
			break;
	snprintf(dst, 16, "%" PRIu64 "%c",
		timeout_ns / units[i].ns + (timeout_ns % units[i].ns ? 1 : 0), units[i].unit);
}

bool grpc_content_type_ok(const char *s)
{
	static const char want[] = "application/grpc";

	if (strncasecmp(s, want, sizeof(want) - 1) != 0)
		return false;
	s += sizeof(want) - 1;
	return *s == 0 || *s == '+' || *s == ';' || *s == ' ';
}
