/* Chains and keys as managers and Docker write them. */
#include <openssl/pem.h>
#include <openssl/sha.h>
#include <openssl/x509.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "testca.h"
#include <cmocka.h>
#include <swarm/err.h>
#include <swarm/mem.h>
#include <swarm/tls.h>

struct rotation {
	struct testca *old, *new;
	char *leaf, *key, *cross, *chain;
};

static struct rotation rotate(void)
{
	struct rotation r = {.old = testca_new(NULL), .new = testca_new(NULL)};

	r.leaf = testca_manager(r.new, "cluster", "node", &r.key);
	r.cross = testca_cross(r.new, r.old);
	r.chain = testca_concat(r.leaf, r.cross);
	return r;
}

static void rotation_done(struct rotation *r)
{
	testca_free(r->old);
	testca_free(r->new);
	free(r->leaf);
	free(r->key);
	free(r->cross);
	free(r->chain);
}

/* The chain of a root rotation: proves that it is one that OpenSSL alone refuses. */
static int plain_openssl(const char *root, const char *leaf, const char *mid)
{
	BIO *b = BIO_new_mem_buf(root, -1), *l = BIO_new_mem_buf(leaf, -1),
	    *m = BIO_new_mem_buf(mid, -1);
	X509 *xr = PEM_read_bio_X509(b, NULL, NULL, NULL);
	X509 *xl = PEM_read_bio_X509(l, NULL, NULL, NULL);
	X509 *xm = PEM_read_bio_X509(m, NULL, NULL, NULL);
	X509_STORE *store = X509_STORE_new();
	X509_STORE_CTX *ctx = X509_STORE_CTX_new();
	STACK_OF(X509) *sk = sk_X509_new_null();
	int code;

	X509_STORE_add_cert(store, xr);
	sk_X509_push(sk, xm);
	X509_STORE_CTX_init(ctx, store, xl, sk);
	X509_verify_cert(ctx);
	code = X509_STORE_CTX_get_error(ctx);
	X509_STORE_CTX_free(ctx);
	X509_STORE_free(store);
	sk_X509_free(sk);
	X509_free(xr);
	X509_free(xl);
	X509_free(xm);
	BIO_free(b);
	BIO_free(l);
	BIO_free(m);
	return code;
}

static void cross_signed_chain_is_accepted(void **state)
{
	struct rotation r = rotate();
	struct sw_err err = SW_ERR_NONE;
	char *both = testca_concat(testca_pem(r.old), testca_pem(r.new));

	(void)state;
	assert_int_equal(plain_openssl(testca_pem(r.old), r.leaf, r.cross),
		X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN);
	assert_int_equal(tls_verify_chain(testca_pem(r.old), r.chain, 0, &err), 0);
	assert_int_equal(tls_verify_chain(testca_pem(r.new), r.chain, 0, &err), 0);
	assert_int_equal(tls_verify_chain(testca_pem(r.new), r.leaf, 0, &err), 0);
	assert_int_equal(tls_verify_chain(both, r.chain, 0, &err), 0);
	/* without the intermediate the old root does not help */
	assert_true(tls_verify_chain(testca_pem(r.old), r.leaf, 0, &err) < 0);
	assert_int_equal(err.domain, SW_E_TLS);
	assert_true(sw_err_is(&err, SW_FATAL));
	free(both);
	rotation_done(&r);
}

/* An intermediate called like the root but signed by somebody else stays a stranger. */
static void foreign_intermediate_is_refused(void **state)
{
	struct rotation r = rotate();
	struct testca *evil = testca_new(NULL);
	char *cross = testca_cross(r.new, evil);
	char *chain = testca_concat(r.leaf, cross);
	struct sw_err err = SW_ERR_NONE;

	(void)state;
	assert_true(tls_verify_chain(testca_pem(r.old), chain, 0, &err) < 0);
	assert_int_equal(err.domain, SW_E_TLS);
	assert_true(err.code > 0);
	free(cross);
	free(chain);
	testca_free(evil);
	rotation_done(&r);
}

/* A leaf that a root certified is no CA: it cannot vouch for others. */
static void leaf_is_no_issuer(void **state)
{
	struct testca *ca = testca_new(NULL), *other = testca_new("node");
	char *key1, *key2;
	char *leaf = testca_worker(ca, "c", "node", &key1);
	char *below = testca_worker(other, "c", "mallory", &key2);
	char *chain = testca_concat(below, leaf);
	struct sw_err err = SW_ERR_NONE;

	(void)state;
	assert_true(tls_verify_chain(testca_pem(ca), chain, 0, &err) < 0);
	free(key1);
	free(key2);
	free(leaf);
	free(below);
	free(chain);
	testca_free(ca);
	testca_free(other);
}

static void validity_counts_unless_told(void **state)
{
	struct testca *ca = testca_new(NULL);
	struct sw_err err = SW_ERR_NONE;
	char *key, *pem;

	(void)state;
	pem = testca_issue(ca,
		&(struct testca_leaf){.o = "c",
			.ou = "swarm-worker",
			.cn = "n",
			.not_before_s = -7200,
			.not_after_s = -60},
		&key);
	assert_true(tls_verify_chain(testca_pem(ca), pem, 0, &err) < 0);
	assert_int_equal(err.code, X509_V_ERR_CERT_HAS_EXPIRED);
	assert_int_equal(tls_verify_chain(testca_pem(ca), pem, TLS_VERIFY_ANY_TIME, &err), 0);
	free(key);
	free(pem);
	pem = testca_issue(ca, &(struct testca_leaf){.cn = "n", .not_before_s = 3600}, &key);
	assert_true(tls_verify_chain(testca_pem(ca), pem, 0, &err) < 0);
	assert_int_equal(err.code, X509_V_ERR_CERT_NOT_YET_VALID);
	free(key);
	free(pem);
	testca_free(ca);
}

static void spki_of(const char *pem, uint8_t **der, size_t *len)
{
	BIO *b = BIO_new_mem_buf(pem, -1);
	X509 *x = PEM_read_bio_X509(b, NULL, NULL, NULL);
	unsigned char *p = NULL;
	int n = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(x), &p);

	*der = xmemdup(p, (size_t)n);
	*len = (size_t)n;
	OPENSSL_free(p);
	X509_free(x);
	BIO_free(b);
}

static void issuer_is_what_follows_the_leaf(void **state)
{
	struct rotation r = rotate();
	struct tls_issuer i = {0};
	struct sw_err err = SW_ERR_NONE;
	uint8_t *spki;
	size_t len;
	/* DER of CN=swarm-ca with a UTF8String, as managers report it */
	static const uint8_t name[] = {0x30, 0x13, 0x31, 0x11, 0x30, 0x0f, 0x06, 0x03, 0x55, 0x04,
		0x03, 0x0c, 0x08, 's', 'w', 'a', 'r', 'm', '-', 'c', 'a'};

	(void)state;
	spki_of(testca_pem(r.new), &spki, &len);
	/* in mid-rotation: the intermediate, which has the new key */
	assert_int_equal(tls_chain_issuer(testca_pem(r.old), r.chain, &i, &err), 0);
	assert_int_equal(i.subject_len, sizeof(name));
	assert_memory_equal(i.subject, name, sizeof(name));
	assert_int_equal(i.public_key_len, len);
	assert_memory_equal(i.public_key, spki, len);
	tls_issuer_done(&i);
	/* afterwards: the new root, the same key */
	assert_int_equal(tls_chain_issuer(testca_pem(r.new), r.leaf, &i, &err), 0);
	assert_memory_equal(i.public_key, spki, len);
	tls_issuer_done(&i);
	assert_true(tls_chain_issuer(testca_pem(r.old), r.leaf, &i, &err) < 0);
	free(spki);
	rotation_done(&r);
}

static char *with_header(const char *key)
{
	const char *eol = strchr(key, '\n') + 1;

	return xasprintf("%.*skek-version: 0\nraft-dek: AbC+/=\n\n%s", (int)(eol - key), key, eol);
}

static void key_with_pem_headers_is_read(void **state)
{
	struct testca *ca = testca_new(NULL);
	char *key, *pem = testca_worker(ca, "c", "n", &key), *docker = with_header(key);
	struct tls_creds *c = NULL;
	struct sw_err err = SW_ERR_NONE;
	BIO *b = BIO_new_mem_buf(docker, -1);

	(void)state;
	assert_null(PEM_read_bio_PrivateKey(b, NULL, NULL, NULL)); /* what makes it a trap */
	BIO_free(b);
	assert_int_equal(tls_creds_new(&c,
				 &(struct tls_config){.roots_pem = testca_pem(ca),
					 .cert_pem = pem,
					 .key_pem = docker,
					 .name = "swarm-manager"},
				 &err),
		0);
	tls_creds_unref(tls_creds_ref(c));
	tls_creds_unref(c);
	free(docker);
	free(key);
	free(pem);
	testca_free(ca);
}

static void bad_input_is_named(void **state)
{
	struct testca *ca = testca_new(NULL);
	char *key, *key2, *pem = testca_worker(ca, "c", "n", &key);
	char *pem2 = testca_worker(ca, "c", "n2", &key2);
	const struct {
		struct tls_config cfg;
		const char *says;
	} bad[] = {
		{{.roots_pem = "nothing", .name = "x"}, "root certificates"},
		{{.roots_pem = "", .name = "x"}, "root certificates"},
		{{.roots_pem = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
			 .name = "x"},
			"cannot be read"},
		{{.roots_pem = testca_pem(ca), .cert_pem = pem, .key_pem = key2, .name = "x"},
			"does not belong"},
		{{.roots_pem = testca_pem(ca), .cert_pem = pem, .key_pem = "rubbish", .name = "x"},
			"private key"},
		{{.roots_pem = testca_pem(ca), .cert_pem = pem, .key_pem = pem, .name = "x"},
			"private key"},
		{{.roots_pem = testca_pem(ca), .cert_pem = key, .key_pem = key, .name = "x"},
			"certificate"},
		{{.roots_pem = testca_pem(ca), .cert_pem = pem, .name = "x"}, "together"},
		{{.roots_pem = testca_pem(ca),
			 .cert_pem = pem,
			 .key_pem =
				 "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n"
				 "DEK-Info: AES-256-CBC,00\n\nAAAA\n-----END EC PRIVATE KEY-----\n",
			 .name = "x"},
			"encrypted"},
		{{.roots_pem = testca_pem(ca)}, "name"},
	};

	(void)state;
	for (size_t i = 0; i < SW_ARRAY_LEN(bad); i++) {
		struct tls_creds *c = NULL;
		struct sw_err err = SW_ERR_NONE;

		assert_true(tls_creds_new(&c, &bad[i].cfg, &err) < 0);
		assert_null(c);
		if (!strstr(err.msg, bad[i].says))
			fail_msg("%zu: \"%s\" does not say \"%s\"", i, err.msg, bad[i].says);
	}
	free(pem);
	free(pem2);
	free(key);
	free(key2);
	testca_free(ca);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(cross_signed_chain_is_accepted),
		cmocka_unit_test(foreign_intermediate_is_refused),
		cmocka_unit_test(leaf_is_no_issuer),
		cmocka_unit_test(validity_counts_unless_told),
		cmocka_unit_test(issuer_is_what_follows_the_leaf),
		cmocka_unit_test(key_with_pem_headers_is_read),
		cmocka_unit_test(bad_input_is_named),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
