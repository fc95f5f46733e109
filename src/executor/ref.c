#include "ref.h"
#include <ctype.h>
#include <string.h>
#include <swarm/mem.h>

#define DEFAULT_DOMAIN "docker.io"

struct ref {
	char *domain, *path, *tag, *digest; /* tag and digest may be NULL */
};

static void ref_done(struct ref *r)
{
	free(r->domain);
	free(r->path);
	free(r->tag);
	free(r->digest);
}

static bool is_hex(const char *s, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (!isdigit((unsigned char)s[i]) && !(s[i] >= 'a' && s[i] <= 'f'))
			return false;
	return true;
}

bool ref_is_id(const char *image)
{
	return strlen(image) == 71 && sw_starts_with(image, "sha256:") && is_hex(image + 7, 64);
}

bool ref_has_digest(const char *image)
{
	return strchr(image, '@') != NULL;
}

static bool tag_valid(const char *s)
{
	size_t n = strlen(s);

	if (n < 1 || n > 128 || *s == '.' || *s == '-')
		return false;
	for (; *s; s++)
		if (!isalnum((unsigned char)*s) && !strchr("_.-", *s))
			return false;
	return true;
}

static bool digest_valid(const char *s)
{
	const char *colon = strchr(s, ':');

	return colon && colon > s && strlen(colon + 1) >= 32 &&
	       is_hex(colon + 1, strlen(colon + 1));
}

static bool path_valid(const char *s)
{
	char prev = '/';

	for (; *s; prev = *s++) {
		if (*s == '/' ? !isalnum((unsigned char)prev)
			      : !islower((unsigned char)*s) && !isdigit((unsigned char)*s) &&
					!(strchr("._-", *s) && prev != '/'))
			return false;
	}
	return isalnum((unsigned char)prev) != 0;
}

static bool ref_parse(struct ref *r, const char *image)
{
	sw_auto_free char *rest = xstrdup(image);
	char *p, *path = rest;

	memset(r, 0, sizeof(*r));
	if (ref_is_id(image) || (strlen(image) == 64 && is_hex(image, 64)))
		return false; /* reads as an id everywhere */
	if ((p = strchr(rest, '@'))) {
		*p = '\0';
		if (!digest_valid(p + 1))
			return false;
		r->digest = xstrdup(p + 1);
	}
	p = strrchr(rest, ':');
	if (p && !strchr(p, '/')) { /* a colon before a slash is a port */
		*p = '\0';
		if (!tag_valid(p + 1))
			return false;
		r->tag = xstrdup(p + 1);
	}
	p = strchr(rest, '/');
	/* "reg.example/a", "reg:5000/a" and "localhost/a" name a registry, "user/a" does not */
	if (p) {
		bool upper = false;

		*p = '\0';
		for (const char *q = rest; *q; q++)
			upper |= isupper((unsigned char)*q) != 0;
		if (strpbrk(rest, ".:") || sw_streq(rest, "localhost") || upper) {
			r->domain =
				xstrdup(sw_streq(rest, "index.docker.io") ? DEFAULT_DOMAIN : rest);
			path = p + 1;
		} else {
			*p = '/';
		}
	}
	if (!path_valid(path))
		return false;
	if (!r->domain)
		r->domain = xstrdup(DEFAULT_DOMAIN);
	if (sw_streq(r->domain, DEFAULT_DOMAIN) && !strchr(path, '/'))
		r->path = xasprintf("library/%s", path);
	else
		r->path = xstrdup(path);
	return true;
}

static char *ref_join(const struct ref *r, const char *prefix, const char *path)
{
	const char *tag = r->tag;

	if (!tag && !r->digest)
		tag = "latest";
	return xasprintf("%s%s%s%s%s%s%s", prefix, *prefix ? "/" : "", path, tag ? ":" : "",
		tag ? tag : "", r->digest ? "@" : "", r->digest ? r->digest : "");
}

char *ref_familiar(const char *image)
{
	struct ref r;
	char *s;

	if (!ref_parse(&r, image)) {
		s = xstrdup(image);
	} else if (!sw_streq(r.domain, DEFAULT_DOMAIN)) {
		s = ref_join(&r, r.domain, r.path);
	} else {
		const char *path = r.path;

		if (sw_starts_with(path, "library/") && !strchr(path + 8, '/'))
			path += 8;
		s = ref_join(&r, "", path);
	}
	ref_done(&r);
	return s;
}

char *ref_canonical(const char *image)
{
	struct ref r;
	char *s = ref_parse(&r, image) ? ref_join(&r, r.domain, r.path) : xstrdup(image);

	ref_done(&r);
	return s;
}

char *ref_domain(const char *image)
{
	struct ref r;
	char *s = ref_parse(&r, image) ? take(r.domain) : NULL;

	ref_done(&r);
	return s;
}
