/* regconf.c - docker's config.json and the answers of credential helpers (docker/cli,
 * docker/docker-credential-helpers). Pure. */
#include "regauth.h"
#include <ctype.h>
#include <errno.h>
#include <json-c/json.h>
#include <openssl/evp.h>
#include <string.h>
#include <swarm/mem.h>

/* Docker Hub's key in the file is the URL of its first API. */
#define HUB_HOST   "docker.io"
#define HUB_SERVER "https://index.docker.io/v1/"
#define MAX_DEPTH  16
#define MAX_FIELD  (64 * 1024)

void regconf_done(struct regconf *r)
{
	free(r->helper);
	free(r->server);
	sw_wipe_str(r->header);
	*r = (struct regconf){0};
}

/* ---- base64, as RFC 4648: "auth" comes in the standard alphabet, the header goes in the URL one,
 * padded (the engine ignores anything else) */

static char *base64url(const char *s, size_t n)
{
	char *out = xcalloc(1, 4 * (n / 3 + 1) + 1);

	EVP_EncodeBlock((unsigned char *)out, (const unsigned char *)s, (int)n);
	for (char *p = out; *p; p++)
		*p = *p == '+' ? '-' : *p == '/' ? '_' : *p;
	return out;
}

/* NULL if it is no base64. */
static char *base64_text(const char *s)
{
	size_t n = strlen(s), pad = 0;
	char *out;
	int got;

	if (!n || n % 4 || n > MAX_FIELD)
		return NULL;
	pad = (s[n - 1] == '=') + (size_t)(s[n - 2] == '=');
	out = xcalloc(1, n / 4 * 3 + 1);
	got = EVP_DecodeBlock((unsigned char *)out, (const unsigned char *)s, (int)n);
	if (got < (int)pad) {
		sw_wipe_str(out);
		return NULL;
	}
	out[(size_t)got - pad] = '\0';
	return out;
}

/* ---- one set of credentials to a header */

struct creds {
	const char *username, *password, *identity_token, *registry_token;
};

static void put(struct json_object *o, const char *key, const char *value)
{
	if (!sw_str_empty(value))
		json_object_object_add(o, key, json_object_new_string(value));
}

static char *header_of(const struct creds *c, const char *server)
{
	struct json_object *o = json_object_new_object();
	const char *text;
	size_t len;
	char *header;

	put(o, "username", c->username);
	put(o, "password", c->password);
	put(o, "identitytoken", c->identity_token);
	put(o, "registrytoken", c->registry_token);
	put(o, "serveraddress", server);
	text = json_object_to_json_string_length(o, JSON_C_TO_STRING_PLAIN, &len);
	header = base64url(text, len);
	json_object_put(o);
	return header;
}

/* ---- the file */

static int parse(struct json_object **ret, const char *text, size_t len)
{
	struct json_tokener *t = json_tokener_new_ex(MAX_DEPTH);
	struct json_object *o;

	if (!t || len > INT32_MAX) {
		json_tokener_free(t);
		return -ENOMEM;
	}
	o = json_tokener_parse_ex(t, text, (int)len);
	if (json_tokener_get_error(t) != json_tokener_success ||
		!json_object_is_type(o, json_type_object)) {
		json_object_put(o);
		o = NULL;
	}
	json_tokener_free(t);
	*ret = o;
	return o ? 0 : -EINVAL;
}

static struct json_object *field(struct json_object *o, const char *key)
{
	struct json_object *v = NULL;

	if (!o || !json_object_is_type(o, json_type_object))
		return NULL;
	json_object_object_get_ex(o, key, &v);
	return v;
}

static const char *text_of(struct json_object *o, const char *key)
{
	struct json_object *v = field(o, key);

	return json_object_is_type(v, json_type_string) ? json_object_get_string(v) : "";
}

/* "https://reg:5000/v2/" is "reg:5000"; all of Hub's names are one. */
static char *host_of(const char *key)
{
	const char *p = strstr(key, "://");
	char *host;

	p = p ? p + 3 : key;
	host = xstrndup(p, strcspn(p, "/"));
	for (char *q = host; *q; q++)
		*q = (char)tolower((unsigned char)*q);
	if (sw_streq(host, "index.docker.io") || sw_streq(host, "registry-1.docker.io")) {
		free(host);
		host = xstrdup(HUB_HOST);
	}
	return host;
}

static struct json_object *entry_of(struct json_object *o, const char *host, const char **key_ret)
{
	sw_auto_free char *want = host_of(host);

	if (!o || !json_object_is_type(o, json_type_object))
		return NULL;
	json_object_object_foreach(o, key, val)
	{
		sw_auto_free char *have = host_of(key);

		if (sw_streq(have, want)) {
			*key_ret = key;
			return val;
		}
	}
	return NULL;
}

static bool name_valid(const char *s)
{
	size_t n = strlen(s);

	if (n < 1 || n > 128)
		return false;
	for (; *s; s++) /* becomes part of a program's name, looked up in PATH */
		if (!isalnum((unsigned char)*s) && !strchr("._-", *s))
			return false;
	return true;
}

static int from_auths(struct regconf *r, struct json_object *entry, const char *key,
	const char *server, struct sw_err *err)
{
	struct creds c = {
		.username = text_of(entry, "username"),
		.password = text_of(entry, "password"),
		.identity_token = text_of(entry, "identitytoken"),
		.registry_token = text_of(entry, "registrytoken"),
	};
	const char *auth = text_of(entry, "auth");
	char *plain = NULL, *colon;

	if (*auth) {
		plain = base64_text(auth);
		colon = plain ? strchr(plain, ':') : NULL;
		if (!colon) {
			sw_wipe_str(plain);
			return sw_err_set(err, SW_REJECTED, -EINVAL,
				"auths: \"%s\": auth is not base64 of user:password; log in again",
				key);
		}
		*colon = '\0';
		c.username = plain;
		c.password = colon + 1;
	}
	/* an entry without anything says that a helper holds the rest */
	if (*c.username || *c.password || *c.identity_token || *c.registry_token)
		r->header = header_of(&c, server);
	if (plain)
		sw_wipe(plain, strlen(plain) + 1 + strlen(c.password));
	free(plain);
	return 0;
}

int regconf_parse(
	struct regconf *ret, const char *text, size_t len, const char *host, struct sw_err *err)
{
	struct json_object *o = NULL, *entry;
	const char *key = "", *helper = "";
	int r = 0;

	*ret = (struct regconf){0};
	if (parse(&o, text, len) < 0)
		return sw_err_set(err, SW_REJECTED, -EINVAL, "not a JSON object");
	ret->server = xstrdup(sw_streq(host, HUB_HOST) ? HUB_SERVER : host);
	entry = entry_of(field(o, "credHelpers"), host, &key);
	if (json_object_is_type(entry, json_type_string))
		helper = json_object_get_string(entry);
	else
		helper = text_of(o, "credsStore");
	if (*helper && !name_valid(helper))
		r = sw_err_set(err, SW_REJECTED, -EINVAL,
			"credential helper \"%s\" is no name; letters, digits, '.', '_' and '-' "
			"are "
			"allowed",
			helper);
	else if (*helper)
		ret->helper = xstrdup(helper);
	entry = r < 0 ? NULL : entry_of(field(o, "auths"), host, &key);
	if (entry)
		r = from_auths(ret, entry, key, ret->server, err);
	json_object_put(o);
	if (r < 0)
		regconf_done(ret);
	return r;
}

/* ---- helpers */

int regconf_helper(
	char **ret, int code, const char *text, size_t len, const char *server, struct sw_err *err)
{
	struct json_object *o = NULL;
	struct creds c = {0};
	int r = 0;

	*ret = NULL;
	if (code != 0) {
		/* the words every helper uses for "I know nothing about it" */
		if (len && memmem(text, len, "credentials not found", 21))
			return 0;
		len = strcspn(text, "\r\n");
		return sw_err_set(err, SW_REJECTED, -EIO, "exit code %d%s%.*s", code,
			len ? ": " : "", (int)(len < 200 ? len : 200), text);
	}
	if (parse(&o, text, len) < 0)
		return sw_err_set(err, SW_REJECTED, -EINVAL, "its answer is not a JSON object");
	c.username = text_of(o, "Username");
	if (sw_streq(c.username, "<token>")) {
		c.username = "";
		c.identity_token = text_of(o, "Secret");
	} else {
		c.password = text_of(o, "Secret");
	}
	if (sw_str_empty(c.password) && sw_str_empty(c.identity_token))
		r = sw_err_set(err, SW_REJECTED, -EINVAL, "its answer holds no Secret");
	else
		*ret = header_of(&c, server);
	json_object_put(o);
	return r;
}
