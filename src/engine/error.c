/* What the engine says when it says no: message and class. */
#include <string.h>
#include <swarm/mem.h>

#include "engine-internal.h"

/* Engines answer 500 for final and for passing troubles alike; these texts tell the latter. */
static const char *const transport_texts[] = {
	"context canceled",
	"code = Unavailable",
	"transport is closing",
	"connection reset",
	"operation timed out",
	"no space left on device",
};

enum sw_errclass engine_error_class(int status, const char *text)
{
	switch (status) {
	case 408:
	case 429:
	case 502:
	case 504:
		return SW_TEMPORARY;
	case 503:
		return strstr(text, "not a swarm manager") ? SW_REJECTED : SW_TEMPORARY;
	case 500:
		for (size_t i = 0; i < SW_ARRAY_LEN(transport_texts); i++)
			if (strstr(text, transport_texts[i]))
				return SW_TEMPORARY;
		if (strstr(text, "dial unix") && strstr(text, "containerd"))
			return SW_TEMPORARY;
		return SW_REJECTED;
	default:
		return SW_REJECTED;
	}
}

/* Bytes of the well-formed UTF-8 character at @s (RFC 3629: no surrogates, no overlong forms), or
 * 0. */
static size_t utf8_char(const unsigned char *s, size_t n)
{
	static const unsigned char first[] = {0xc2, 0xe0, 0xf0}, last[] = {0xdf, 0xef, 0xf4};
	size_t len = 0;

	if (s[0] < 0x80)
		return 1;
	for (size_t i = 0; i < 3; i++)
		if (s[0] >= first[i] && s[0] <= last[i])
			len = i + 2;
	if (!len || len > n)
		return 0;
	for (size_t i = 1; i < len; i++)
		if ((s[i] & 0xc0) != 0x80)
			return 0;
	if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) ||
		(s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f))
		return 0;
	return len;
}

void engine_clean_text(char *out, size_t max, const char *s, size_t n)
{
	const unsigned char *p = (const unsigned char *)s, *end = p + n;
	size_t len = 0;

	while (p < end && strchr(" \t\r\n", *p) && *p)
		p++;
	while (end > p && strchr(" \t\r\n", end[-1]) && end[-1])
		end--;
	while (p < end) {
		size_t k = utf8_char(p, (size_t)(end - p));
		const char *src = (const char *)p;
		size_t add = k;

		if (!k) {
			src = "\xef\xbf\xbd"; /* U+FFFD */
			add = 3;
			k = 1;
		} else if (*p < 0x20 || *p == 0x7f) {
			src = " ";
		}
		if (len + add + 4 > max) { /* room for the dots */
			memcpy(out + len, "...", 3);
			len += 3;
			break;
		}
		memcpy(out + len, src, add);
		len += add;
		p += k;
	}
	out[len] = '\0';
}

void engine_error(struct sw_err *err, int status, const char *body, size_t n)
{
	struct json_object *o = NULL;
	char text[SW_ERR_MSG_MAX] = "";
	const char *msg;

	if (n && json_parse_text(body, n, &o, NULL) == 0 &&
		json_object_is_type(o, json_type_object)) {
		msg = js_str(o, "message");
		if (!*msg)
			msg = js_str(o, "cause");
		engine_clean_text(text, sizeof(text), msg, strlen(msg));
	} else {
		engine_clean_text(text, sizeof(text), body, n);
	}
	json_object_put(o);
	if (!*text)
		snprintf(text, sizeof(text), "the engine answered with status %d and no message",
			status);
	sw_err_setd(err, engine_error_class(status, text), SW_E_HTTP, status, "%s", text);
}
