#include "pki.h"
#include <errno.h>
#include <limits.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <string.h>
#include <swarm/err.h>
#include <swarm/mem.h>
#include <time.h>

/* The last OpenSSL error as text; empties this thread's queue. */
static const char *why(char *buf, size_t len)
{
	unsigned long e = ERR_peek_last_error();

	if (e)
		ERR_error_string_n(e, buf, len);
	else
		snprintf(buf, len, "unknown reason");
	ERR_clear_error();
	return buf;
}

static char *bio_text(BIO *b)
{
	char *p;
	long n = BIO_get_mem_data(b, &p);

	return xstrndup(p, (size_t)n);
}

/* Docker's key files carry headers inside the PEM block (kek-version), and refuse to go without;
 * OpenSSL knows only Proc-Type there. */
static char *key_with_header(const char *pem)
{
	const char *nl = strchr(pem, '\n');

	return xasprintf("%.*skek-version: 0\n\n%s", (int)(nl + 1 - pem), pem, nl + 1);
}

static char *csr_pem(EVP_PKEY *key)
{
	X509_REQ *req = X509_REQ_new();
	BIO *b = BIO_new(BIO_s_mem());
	char *ret = NULL;

	if (req && b && X509_REQ_set_version(req, X509_REQ_VERSION_1) &&
		X509_REQ_set_pubkey(req, key) && X509_REQ_sign(req, key, EVP_sha256()) &&
		PEM_write_bio_X509_REQ(b, req))
		ret = bio_text(b);
	X509_REQ_free(req);
	BIO_free(b);
	return ret;
}

static char *key_pem(EVP_PKEY *key)
{
	/* a secure-memory BIO wipes what it held */
	BIO *b = BIO_new(BIO_s_secmem());
	char *plain = NULL, *ret = NULL;

	if (b && PEM_write_bio_PKCS8PrivateKey(b, key, NULL, NULL, 0, NULL, NULL)) {
		plain = bio_text(b);
		ret = key_with_header(plain);
		sw_wipe_str(plain);
	}
	BIO_free(b);
	return ret;
}

int pki_new_request(char **key, char **csr, struct sw_err *err)
{
	EVP_PKEY *k;
	char *kp = NULL, *cp = NULL, text[160];

	ERR_clear_error();
	k = EVP_EC_gen("P-256");
	if (k) {
		kp = key_pem(k);
		cp = csr_pem(k);
	}
	EVP_PKEY_free(k);
	if (!kp || !cp) {
		sw_wipe_str(kp);
		free(cp);
		return sw_err_set(err, SW_FATAL, -EIO, "making a P-256 key and request: %s",
			why(text, sizeof(text)));
	}
	*key = kp;
	*csr = cp;
	return 0;
}

static int no_passphrase(char *buf, int size, int rwflag, void *u)
{
	(void)buf;
	(void)size;
	(void)rwflag;
	(void)u;
	return -1;
}

static X509 *leaf(const char *chain, struct sw_err *err)
{
	BIO *b = strlen(chain) <= PKI_PEM_MAX ? BIO_new_mem_buf(chain, -1) : NULL;
	X509 *x;
	char text[160];

	ERR_clear_error();
	x = b ? PEM_read_bio_X509(b, NULL, no_passphrase, NULL) : NULL;
	BIO_free(b);
	if (!x)
		sw_err_set(err, SW_FATAL, -EBADMSG, "not a PEM certificate: %s",
			why(text, sizeof(text)));
	return x;
}

/* malloc'd, or NULL when the part is missing, empty or holds a NUL. */
static char *name_part(X509 *x, int nid)
{
	X509_NAME *name = X509_get_subject_name(x);
	int at = X509_NAME_get_index_by_NID(name, nid, -1);
	unsigned char *utf8 = NULL;
	char *ret = NULL;
	int n;

	if (at < 0)
		return NULL;
	n = ASN1_STRING_to_UTF8(&utf8, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(name, at)));
	if (n > 0 && n <= 256 && !memchr(utf8, 0, (size_t)n))
		ret = xstrndup((char *)utf8, (size_t)n);
	OPENSSL_free(utf8);
	return ret;
}

static int64_t seconds(const ASN1_TIME *t)
{
	struct tm tm;

	return t && ASN1_TIME_to_tm(t, &tm) ? (int64_t)timegm(&tm) : 0;
}

int pki_subject(const char *chain, struct pki_subject *ret, struct sw_err *err)
{
	X509 *x = leaf(chain, err);
	struct pki_subject s;

	if (!x)
		return -EBADMSG;
	s = (struct pki_subject){
		.node_id = name_part(x, NID_commonName),
		.role = name_part(x, NID_organizationalUnitName),
		.cluster_id = name_part(x, NID_organizationName),
		.not_before_s = seconds(X509_get0_notBefore(x)),
		.not_after_s = seconds(X509_get0_notAfter(x)),
	};
	X509_free(x);
	if (!s.node_id || !s.role || !s.cluster_id) {
		sw_err_set(err, SW_FATAL, -EBADMSG,
			"the node certificate's subject lacks %s, so it names no member of a swarm",
			!s.cluster_id ? "O (the cluster)"
			: !s.role     ? "OU (the role)"
				      : "CN (the node id)");
		pki_subject_done(&s);
		return -EBADMSG;
	}
	*ret = s;
	return 0;
}

void pki_subject_done(struct pki_subject *s)
{
	free(s->node_id);
	free(s->role);
	free(s->cluster_id);
	*s = (struct pki_subject){0};
}

/* @pem without header lines (those up to a blank line, with a colon). Wipe it. */
static char *strip_headers(const char *pem)
{
	size_t len = strlen(pem);
	char *out = xcalloc(len + 1, 1), *to = out;
	bool head = false;

	for (const char *line = pem; *line;) {
		size_t n = strcspn(line, "\n");
		size_t whole = n + (line[n] == '\n');

		if (strncmp(line, "-----BEGIN ", 11) == 0)
			head = true;
		else if (head && (n == 0 || (n == 1 && *line == '\r') || memchr(line, ':', n)))
			goto next;
		else
			head = false;
		memcpy(to, line, whole);
		to += whole;
	next:
		line += whole;
	}
	return out;
}

int pki_key_matches(const char *key, const char *chain, struct sw_err *err)
{
	EVP_PKEY *k = NULL;
	X509 *x;
	char *plain, text[160];
	BIO *b;
	int r = 0;

	if (strlen(key) > PKI_PEM_MAX)
		return sw_err_set(err, SW_FATAL, -EBADMSG, "the key file is too large");
	if (strstr(key, "BEGIN ENCRYPTED PRIVATE KEY") || strstr(key, "Proc-Type:"))
		return sw_err_set(err, SW_FATAL, -EKEYREJECTED,
			"node is locked, and needs a valid unlock key: its private key is "
			"encrypted, which "
			"only managers do");
	x = leaf(chain, err);
	if (!x)
		return -EBADMSG;
	plain = strip_headers(key);
	ERR_clear_error();
	b = BIO_new_mem_buf(plain, -1);
	if (b)
		k = PEM_read_bio_PrivateKey(b, NULL, no_passphrase, NULL);
	BIO_free(b);
	if (!k)
		r = sw_err_set(err, SW_FATAL, -EBADMSG, "not a PEM private key: %s",
			why(text, sizeof(text)));
	else if (!X509_check_private_key(x, k))
		r = sw_err_set(
			err, SW_FATAL, -EINVAL, "the certificate does not belong to the key");
	ERR_clear_error();
	EVP_PKEY_free(k);
	X509_free(x);
	sw_wipe_str(plain);
	return r;
}

static bool strong_signature(X509 *x)
{
	switch (X509_get_signature_nid(x)) {
	case NID_sha256WithRSAEncryption:
	case NID_sha384WithRSAEncryption:
	case NID_sha512WithRSAEncryption:
	case NID_ecdsa_with_SHA256:
	case NID_ecdsa_with_SHA384:
	case NID_ecdsa_with_SHA512:
		return true;
	default:
		return false;
	}
}

static const char *root_fault(X509 *x)
{
	if (X509_self_signed(x, 1) != 1)
		return "is not self-signed";
	if (X509_cmp_current_time(X509_get0_notBefore(x)) >= 0)
		return "is not valid yet; check this machine's clock";
	if (X509_cmp_current_time(X509_get0_notAfter(x)) <= 0)
		return "has expired";
	if (!strong_signature(x))
		return "has a signature algorithm other than SHA-256/384/512 with RSA or ECDSA";
	return NULL;
}

int pki_check_roots(const void *pem, size_t len, struct sw_err *err)
{
	const char *fault = NULL;
	unsigned n = 0;
	X509 *x;
	BIO *b;

	if (!len)
		return sw_err_set(err, SW_REJECTED, -EBADMSG, "root bundle: empty");
	if (len > PKI_PEM_MAX || memchr(pem, 0, len))
		return sw_err_set(err, SW_REJECTED, -EBADMSG,
			"root bundle: %zu bytes, of text expected and at most %u", len,
			PKI_PEM_MAX);
	ERR_clear_error();
	b = BIO_new_mem_buf(pem, (int)len);
	while (b && !fault && (x = PEM_read_bio_X509(b, NULL, no_passphrase, NULL))) {
		n++;
		fault = root_fault(x);
		X509_free(x);
	}
	if (!fault && ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE)
		fault = "cannot be parsed";
	ERR_clear_error();
	BIO_free(b);
	if (fault)
		return sw_err_set(err, SW_REJECTED, -EBADMSG, "root bundle: certificate %u %s",
			n ? n : 1, fault);
	if (!n)
		return sw_err_set(err, SW_REJECTED, -EBADMSG, "root bundle: no certificate in it");
	return 0;
}
