#include "fault.h"
#include <string.h>
#include <swarm/err.h>
#include <swarm/mem.h>

/* What a 500 says when the engine itself, not the task, is in trouble. */
static const char *const transport_texts[] = {
	"context canceled",
	"code = Unavailable",
	"transport is closing",
	"dial unix",
	"connection reset",
	"operation timed out",
	"context deadline exceeded",
};

bool fault_http(const struct sw_err *e, int status)
{
	return e && e->cls && e->domain == SW_E_HTTP && e->code == status;
}

bool fault_text(const struct sw_err *e, const char *part)
{
	return e && e->cls && strstr(e->msg, part);
}

static bool any_text(const struct sw_err *e, const char *const *texts, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (strcasestr(e->msg, texts[i]))
			return true;
	return false;
}

static bool engine_trouble(const struct sw_err *e)
{
	if (e->domain != SW_E_HTTP)
		return e->cls == SW_TEMPORARY;
	switch (e->code) {
	case 408:
	case 429:
	case 502:
	case 503:
	case 504:
		return true;
	default:
		return e->code >= 500 &&
		       any_text(e, transport_texts, SW_ARRAY_LEN(transport_texts));
	}
}

void fault_classify(struct sw_err *e, enum fault_step step)
{
	bool trouble;

	if (!e->cls || e->cls == SW_CANCELLED)
		return;
	trouble = engine_trouble(e);
	switch (step) {
	case FAULT_READ:
	case FAULT_STOP: /* a task must not be called dead while its process may live */
		trouble = trouble || (e->domain == SW_E_HTTP && e->code >= 500);
		e->cls = trouble ? SW_TEMPORARY : SW_FATAL;
		break;
	case FAULT_PREPARE:
		e->cls = trouble ? SW_TEMPORARY : SW_REJECTED;
		break;
	case FAULT_START:
		e->cls = trouble ? SW_TEMPORARY : SW_FATAL;
		break;
	case FAULT_REMOVE:
		e->cls = SW_TEMPORARY;
		break;
	}
}

bool fault_pull_retry(const struct sw_err *e)
{
	static const char *const never[] = {"unauthorized", "denied", "not found",
		"manifest unknown", "no matching manifest", "no basic auth",
		"authentication required", "invalid reference", "invalid tag",
		"verification failed"};
	static const char *const again[] = {"dial tcp", "no such host", "timeout", "timed out",
		"connection refused", "connection reset", "server misbehaving", "unexpected EOF",
		"TLS handshake", "unexpected HTTP status: 5", "unexpected HTTP status: 429",
		"toomanyrequests", "service unavailable", "bad gateway", "unreachable"};

	if (!e)
		return false;
	if (fault_http(e, 401) || fault_http(e, 403) || fault_http(e, 404) ||
		any_text(e, never, SW_ARRAY_LEN(never)))
		return false;
	return fault_http(e, 429) || any_text(e, again, SW_ARRAY_LEN(again));
}

bool fault_no_image(const struct sw_err *e)
{
	return fault_http(e, 404) && strcasestr(e->msg, "no such image");
}

bool fault_name_taken(const struct sw_err *e)
{
	return fault_http(e, 409) ||
	       (fault_http(e, 500) && fault_text(e, "name is already in use"));
}

bool fault_registry_away(const struct sw_err *e)
{
	static const char *const away[] = {"dial tcp", "no such host", "i/o timeout", "timed out",
		"connection refused", "connection reset", "server misbehaving", "name resolution",
		"TLS handshake timeout", "Client.Timeout", "while awaiting headers",
		"while waiting for connection", "unreachable", "proxyconnect"};

	return e && e->cls && e->domain == SW_E_HTTP && e->code >= 500 &&
	       any_text(e, away, SW_ARRAY_LEN(away)) && !strcasestr(e->msg, "dial unix");
}

bool fault_pull_refused(const struct sw_err *e)
{
	static const char *const refused[] = {"unauthorized", "denied", "no basic auth",
		"authentication required", "incorrect username or password", "401 ", "403 ",
		"token has expired", "token is expired", "expired token"};

	return e && e->cls && e->domain == SW_E_HTTP &&
	       (e->code == 401 || e->code == 403 || any_text(e, refused, SW_ARRAY_LEN(refused)));
}
