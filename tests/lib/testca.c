#include "testca.h"
#include <openssl/bio.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct testca {
	X509 *cert;
	EVP_PKEY *key;
	char *pem;
};

#define MUST(x)                                                                                    \
	do {                                                                                       \
		if (!(x)) {                                                                        \
			fprintf(stderr, "testca.c:%d: %s failed\n", __LINE__, #x);                 \
			abort();                                                                   \
		}                                                                                  \
	} while (0)

static char *bio_text(BIO *b)
{
	char *p, *s;
	long n = BIO_get_mem_data(b, &p);

	MUST(n >= 0 && (s = malloc((size_t)n + 1)));
	memcpy(s, p, (size_t)n);
	s[n] = 0;
	BIO_free(b);
	return s;
}

static char *cert_text(X509 *x)
{
	BIO *b = BIO_new(BIO_s_mem());

	MUST(b && PEM_write_bio_X509(b, x));
	return bio_text(b);
}

static void add_ext(X509 *cert, X509 *issuer, int nid, const char *value)
{
	X509V3_CTX ctx;
	X509_EXTENSION *e;

	X509V3_set_ctx(&ctx, issuer, cert, NULL, NULL, 0);
	MUST(e = X509V3_EXT_conf_nid(NULL, &ctx, nid, value));
	MUST(X509_add_ext(cert, e, -1));
	X509_EXTENSION_free(e);
}

static void add_name(X509_NAME *n, const char *what, const char *value)
{
	if (value)
		MUST(X509_NAME_add_entry_by_txt(
			n, what, MBSTRING_UTF8, (const unsigned char *)value, -1, -1, 0));
}

static X509 *blank(EVP_PKEY *pub, long from_s, long to_s)
{
	X509 *x = X509_new();
	unsigned char serial[16];
	BIGNUM *bn;

	MUST(x && RAND_bytes(serial, sizeof(serial)) == 1);
	serial[0] &= 0x7f;
	MUST(bn = BN_bin2bn(serial, sizeof(serial), NULL));
	MUST(BN_to_ASN1_INTEGER(bn, X509_get_serialNumber(x)));
	BN_free(bn);
	MUST(X509_set_version(x, X509_VERSION_3));
	MUST(X509_gmtime_adj(X509_getm_notBefore(x), from_s));
	MUST(X509_gmtime_adj(X509_getm_notAfter(x), to_s));
	MUST(X509_set_pubkey(x, pub));
	return x;
}

static void ca_extensions(X509 *x)
{
	add_ext(x, x, NID_key_usage, "critical,keyCertSign,cRLSign");
	add_ext(x, x, NID_basic_constraints, "critical,CA:TRUE");
	add_ext(x, x, NID_subject_key_identifier, "hash");
}

struct testca *testca_new(const char *cn)
{
	struct testca *ca = calloc(1, sizeof(*ca));

	MUST(ca && (ca->key = EVP_EC_gen("P-256")));
	ca->cert = blank(ca->key, -3600, 20L * 365 * 86400);
	add_name(X509_get_subject_name(ca->cert), "CN", cn ? cn : "swarm-ca");
	MUST(X509_set_issuer_name(ca->cert, X509_get_subject_name(ca->cert)));
	ca_extensions(ca->cert);
	MUST(X509_sign(ca->cert, ca->key, EVP_sha256()));
	ca->pem = cert_text(ca->cert);
	return ca;
}

void testca_free(struct testca *ca)
{
	if (!ca)
		return;
	X509_free(ca->cert);
	EVP_PKEY_free(ca->key);
	free(ca->pem);
	free(ca);
}

const char *testca_pem(const struct testca *ca)
{
	return ca->pem;
}

char *testca_cross(struct testca *ca, struct testca *by)
{
	X509 *x = blank(ca->key, -3600, 20L * 365 * 86400);
	char *pem;

	MUST(X509_set_subject_name(x, X509_get_subject_name(ca->cert)));
	MUST(X509_set_issuer_name(x, X509_get_subject_name(by->cert)));
	ca_extensions(x);
	MUST(X509_sign(x, by->key, EVP_sha256()));
	pem = cert_text(x);
	X509_free(x);
	return pem;
}

static char *issue(struct testca *ca, EVP_PKEY *pub, const struct testca_leaf *leaf)
{
	X509 *x = blank(pub, leaf->not_before_s ? leaf->not_before_s : -3600,
		leaf->not_after_s ? leaf->not_after_s : 90L * 86400);
	char san[512] = "", *pem;
	size_t n = 0;

	add_name(X509_get_subject_name(x), "O", leaf->o);
	add_name(X509_get_subject_name(x), "OU", leaf->ou);
	add_name(X509_get_subject_name(x), "CN", leaf->cn);
	MUST(X509_set_issuer_name(x, X509_get_subject_name(ca->cert)));
	if (leaf->is_ca) {
		ca_extensions(x);
	} else {
		add_ext(x, ca->cert, NID_key_usage, "critical,digitalSignature,keyEncipherment");
		add_ext(x, ca->cert, NID_ext_key_usage, "serverAuth,clientAuth");
		add_ext(x, ca->cert, NID_basic_constraints, "critical,CA:FALSE");
		add_ext(x, x, NID_subject_key_identifier, "hash");
	}
	add_ext(x, ca->cert, NID_authority_key_identifier, "keyid");
	for (int i = 0; i < 4 && leaf->san[i]; i++)
		n += (size_t)snprintf(
			san + n, sizeof(san) - n, "%sDNS:%s", n ? "," : "", leaf->san[i]);
	MUST(n < sizeof(san));
	if (n)
		add_ext(x, x, NID_subject_alt_name, san);
	MUST(X509_sign(x, ca->key, EVP_sha256()));
	pem = cert_text(x);
	X509_free(x);
	return pem;
}

char *testca_issue(struct testca *ca, const struct testca_leaf *leaf, char **key_pem)
{
	EVP_PKEY *key = EVP_EC_gen("P-256");
	BIO *b = BIO_new(BIO_s_mem());
	char *pem;

	MUST(key && b);
	pem = issue(ca, key, leaf);
	MUST(PEM_write_bio_PKCS8PrivateKey(b, key, NULL, NULL, 0, NULL, NULL));
	*key_pem = bio_text(b);
	EVP_PKEY_free(key);
	return pem;
}

char *testca_sign_csr(struct testca *ca, const char *csr_pem, const struct testca_leaf *leaf)
{
	BIO *b = BIO_new_mem_buf(csr_pem, -1);
	X509_REQ *req = PEM_read_bio_X509_REQ(b, NULL, NULL, NULL);
	EVP_PKEY *pub = req ? X509_REQ_get0_pubkey(req) : NULL;
	char *pem = NULL;

	if (pub && X509_REQ_verify(req, pub) == 1)
		pem = issue(ca, pub, leaf);
	X509_REQ_free(req);
	BIO_free(b);
	return pem;
}

char *testca_manager(struct testca *ca, const char *o, const char *cn, char **key_pem)
{
	return testca_issue(ca,
		&(struct testca_leaf){.o = o,
			.ou = "swarm-manager",
			.cn = cn,
			.san = {"swarm-manager", cn, "swarm-ca"}},
		key_pem);
}

char *testca_worker(struct testca *ca, const char *o, const char *cn, char **key_pem)
{
	return testca_issue(ca,
		&(struct testca_leaf){
			.o = o, .ou = "swarm-worker", .cn = cn, .san = {"swarm-worker", cn}},
		key_pem);
}

char *testca_concat(const char *a, const char *b)
{
	size_t na = strlen(a), nb = strlen(b);
	char *s = malloc(na + nb + 1);

	MUST(s);
	memcpy(s, a, na);
	memcpy(s + na, b, nb + 1);
	return s;
}
