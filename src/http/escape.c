/* Percent-encoding (RFC 3986, unreserved characters stay). */
#include <string.h>
#include <swarm/http.h>
#include <swarm/mem.h>

static bool plain(unsigned char c, bool slashes)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       (c != '\0' && strchr("-._~", c)) || (slashes && c == '/');
}

char *http_escape(const char *s, bool slashes)
{
	static const char hex[] = "0123456789ABCDEF";
	char *ret = xcalloc(1, 3 * strlen(s) + 1), *p = ret;

	for (; *s; s++) {
		unsigned char c = (unsigned char)*s;

		if (plain(c, slashes)) {
			*p++ = (char)c;
		} else {
			*p++ = '%';
			*p++ = hex[c >> 4];
			*p++ = hex[c & 15];
		}
	}
	*p = '\0';
	return ret;
}
