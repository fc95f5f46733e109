/* Join tokens: SWMTKN-1-<digest>-<secret>, SWMTKN-2-<fips>-<digest>-<secret>. The digest is the
 * SHA-256 of the root bundle as a number in base 36 (swarmkit ca/config.go). The text itself is a
 * secret: no message repeats any of it. */
#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/sha.h>
#include <string.h>
#include <swarm/mem.h>
#include <swarm/session.h>

#define DIGEST_CHARS 50 /* ceil(256 / log2(36)) */
#define SECRET_CHARS 25
#define PARTS_MAX    5

#define REMEDY "copy it again from \"docker swarm join-token worker\""

static int digit36(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	return c >= 'a' && c <= 'z' ? c - 'a' + 10 : -1;
}

static bool all_digits(const char *s, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (digit36(s[i]) < 0)
			return false;
	return true;
}

/* @s of @n digits as a big-endian number in @ret; false if it does not fit. */
static bool base36(const char *s, size_t n, uint8_t ret[32])
{
	memset(ret, 0, 32);
	for (size_t i = 0; i < n; i++) {
		unsigned carry = (unsigned)digit36(s[i]);

		for (int b = 31; b >= 0; b--) {
			carry += ret[b] * 36u;
			ret[b] = (uint8_t)carry;
			carry >>= 8;
		}
		if (carry)
			return false;
	}
	return true;
}

struct part {
	const char *s;
	size_t len;
};

static size_t split(const char *s, struct part *parts)
{
	size_t n = 0;

	for (;;) {
		size_t len = strcspn(s, "-");

		if (n < PARTS_MAX)
			parts[n] = (struct part){s, len};
		n++;
		if (!s[len])
			return n;
		s += len + 1;
	}
}

static bool is(const struct part *p, const char *text)
{
	return p->len == strlen(text) && memcmp(p->s, text, p->len) == 0;
}

static int bad(struct sw_err *err, const char *why)
{
	return sw_err_set(err, SW_REJECTED, -EINVAL, "invalid join token: %s; " REMEDY, why);
}

int join_token_parse(const char *token, struct join_token *ret, struct sw_err *err)
{
	struct part parts[PARTS_MAX];
	struct join_token t = {.version = 1};
	const struct part *digest, *secret;
	size_t n;

	if (sw_str_empty(token))
		return bad(err, "it is empty");
	n = split(token, parts);
	if (!is(&parts[0], "SWMTKN"))
		return bad(err, "it does not start with SWMTKN-");
	if (n < 2 || (!is(&parts[1], "1") && !is(&parts[1], "2")))
		return bad(err, "its version is neither 1 nor 2");
	if (is(&parts[1], "2"))
		t.version = 2;
	if (n != (t.version == 1 ? 4u : 5u))
		return sw_err_set(err, SW_REJECTED, -EINVAL,
			"invalid join token: %zu parts between dashes, a version %d token has "
			"%d; " REMEDY,
			n, t.version, t.version == 1 ? 4 : 5);
	if (t.version == 2) {
		if (!is(&parts[2], "0") && !is(&parts[2], "1"))
			return bad(err, "its FIPS part is neither 0 nor 1");
		t.fips = is(&parts[2], "1");
	}
	digest = &parts[n - 2];
	secret = &parts[n - 1];
	if (digest->len != DIGEST_CHARS || secret->len != SECRET_CHARS)
		return sw_err_set(err, SW_REJECTED, -EINVAL,
			"invalid join token: digest and secret have %zu and %zu characters, "
			"expected %d and "
			"%d; " REMEDY,
			digest->len, secret->len, DIGEST_CHARS, SECRET_CHARS);
	if (!all_digits(digest->s, digest->len) || !all_digits(secret->s, secret->len))
		return bad(err, "digest and secret may hold only 0-9 and a-z");
	if (!base36(digest->s, digest->len, t.digest))
		return bad(err, "its digest is larger than 256 bits");
	*ret = t;
	return 0;
}

int join_token_check(const struct join_token *t, const void *bundle, size_t len, struct sw_err *err)
{
	uint8_t digest[SHA256_DIGEST_LENGTH];

	SHA256(bundle, len, digest);
	if (CRYPTO_memcmp(digest, t->digest, sizeof(digest)) != 0)
		return sw_err_set(err, SW_REJECTED, -EACCES,
			"the root certificate that the manager offers is not the one the join "
			"token was "
			"made for: the token is of another swarm or from before a root rotation, "
			"or "
			"somebody stands in between; compare with \"docker swarm join-token "
			"worker\" on a "
			"manager");
	return 0;
}
