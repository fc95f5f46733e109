/* Engine addresses, as DOCKER_HOST has them. */
#include <errno.h>
#include <string.h>
#include <swarm/mem.h>

#include "engine-internal.h"

#define ALLOWED "use unix:///PATH or tcp://HOST:PORT"

static int parse_tcp(const char *host, const char *rest, bool tls, struct engine_address *ret,
	struct sw_err *err)
{
	size_t n = strcspn(rest, "/");
	sw_auto_free char *authority = xstrndup(rest, n);
	const char *port = NULL;
	char *end;
	long v;

	if (strpbrk(rest, " \t\r\n?#@\\"))
		return sw_err_set(err, SW_REJECTED, -EINVAL,
			"engine address \"%s\" has a character that does not belong there: "
			"use tcp://HOST:PORT[/BASE]",
			host);
	if (authority[0] == '[') { /* [::1]:2376 */
		const char *close = strchr(authority, ']');

		if (close && close[1] == ':')
			port = close + 2;
	} else if (strchr(authority, ':') == strrchr(authority, ':') && authority[0] != ':') {
		port = strchr(authority, ':');
		port = port ? port + 1 : NULL;
	}
	v = port && *port >= '0' && *port <= '9' ? strtol(port, &end, 10) : 0;
	if (v <= 0 || v > 65535 || *end)
		return sw_err_set(err, SW_REJECTED, -EINVAL,
			"engine address \"%s\" needs a host and a port from 1 to 65535: "
			"use tcp://HOST:PORT[/BASE]",
			host);
	ret->base_url = xasprintf("%s://%s", tls ? "https" : "http", rest);
	return 0;
}

int engine_address_parse(const char *host, bool tls, struct engine_address *ret, struct sw_err *err)
{
	const char *sep = host ? strstr(host, "://") : NULL;
	sw_auto_free char *scheme = NULL;

	*ret = (struct engine_address){0};
	if (!sep || !sep[3])
		return sw_err_set(err, SW_REJECTED, -EINVAL,
			"engine address \"%s\" is none: " ALLOWED, host ? host : "");
	scheme = xstrndup(host, (size_t)(sep - host));
	if (strcmp(scheme, "unix") == 0) {
		if (sep[3] != '/')
			return sw_err_set(err, SW_REJECTED, -EINVAL,
				"engine address \"%s\" has a relative path: use unix:///PATH",
				host);
		ret->unix_path = xstrdup(sep + 3);
		ret->base_url = xstrdup("http://localhost"); /* a path as Host header is refused */
		return 0;
	}
	if (strcmp(scheme, "tcp") == 0)
		return parse_tcp(host, sep + 3, tls, ret, err);
	return sw_err_set(err, SW_REJECTED, -EPROTONOSUPPORT,
		"engine address \"%s\": scheme \"%s\" is not supported: " ALLOWED, host, scheme);
}

void engine_address_done(struct engine_address *a)
{
	free(take(a->unix_path));
	free(take(a->base_url));
}
