/* TLS identities: what we present, what we trust, and how a chain is verified. One set of rules
 * serves connections (as a verify callback), our own certificate and the issuer we report. */
#include "tls_priv.h"
#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <swarm/err.h>
#include <swarm/mem.h>
#include <swarm/tls.h>

#define MAX_CERTS     64
#define MAX_PEM_BYTES (1 << 20)

struct tls_creds {
	atomic_uint refs;
	SSL_CTX *ctx;
	STACK_OF(X509) * roots; /* NULL: nothing is verified */
	char *name;
	bool has_cert;
};

static void certs_free(STACK_OF(X509) * sk)
{
	sk_X509_pop_free(sk, X509_free);
}

/* The oldest reason in OpenSSL's queue, which says most; empties the queue. */
static void openssl_text(char *buf, size_t size)
{
	unsigned long e = ERR_get_error();
	const char *s = e ? ERR_reason_error_string(e) : NULL;

	snprintf(buf, size, "%s", s ? s : "unknown reason");
	ERR_clear_error();
}

static STACK_OF(X509) * read_certs(const char *pem, const char *what, struct sw_err *err)
{
	size_t len = strlen(pem);
	STACK_OF(X509) *sk = NULL;
	BIO *b = NULL;
	X509 *x;
	int n = 0;
	bool ok = false;

	if (len > MAX_PEM_BYTES) {
		sw_err_set(err, SW_REJECTED, -E2BIG, "%s: %zu bytes, limit %d", what, len,
			MAX_PEM_BYTES);
		return NULL;
	}
	ERR_clear_error();
	b = BIO_new_mem_buf(pem, (int)len);
	sk = sk_X509_new_null();
	if (!b || !sk) {
		sw_err_set(err, SW_TEMPORARY, -ENOMEM, "%s: out of memory", what);
		goto out;
	}
	while ((x = PEM_read_bio_X509(b, NULL, NULL, NULL))) {
		if (++n > MAX_CERTS || !sk_X509_push(sk, x)) {
			X509_free(x);
			sw_err_set(err, SW_REJECTED, -E2BIG, "%s: more than %d certificates", what,
				MAX_CERTS);
			goto out;
		}
	}
	if (ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE) {
		char text[128];

		openssl_text(text, sizeof(text));
		sw_err_set(err, SW_REJECTED, -EBADMSG, "%s: certificate %d cannot be read: %s",
			what, n + 1, text);
		goto out;
	}
	ERR_clear_error();
	if (!n) {
		sw_err_set(
			err, SW_REJECTED, -EBADMSG, "%s: there is no PEM certificate in it", what);
		goto out;
	}
	ok = true;
out:
	BIO_free(b);
	if (!ok) {
		certs_free(sk);
		sk = NULL;
	}
	return sk;
}

/* PEM_read_bio() hands out header lines without interpreting them, where
 * PEM_read_bio_PrivateKey() refuses any that is not Proc-Type: Docker writes "kek-version: 0"
 * into its key files. */
static EVP_PKEY *read_key(const char *pem, struct sw_err *err)
{
	size_t size = strlen(pem);
	BIO *b = size <= MAX_PEM_BYTES ? BIO_new_mem_buf(pem, (int)size) : NULL;
	char *name = NULL, *header = NULL;
	unsigned char *der = NULL;
	EVP_PKEY *key = NULL;
	long len = 0;

	ERR_clear_error();
	while (b && PEM_read_bio(b, &name, &header, &der, &len)) {
		size_t n = strlen(name);
		bool is_key = n >= 11 && strcmp(name + n - 11, "PRIVATE KEY") == 0;

		if (is_key && (strstr(name, "ENCRYPTED") || strstr(header, "ENCRYPTED"))) {
			sw_err_set(err, SW_REJECTED, -EACCES,
				"private key: it is encrypted; give it without a passphrase");
			goto out;
		}
		if (is_key) {
			const unsigned char *p = der;

			key = d2i_AutoPrivateKey(NULL, &p, len);
			if (!key)
				break;
			goto out;
		}
		OPENSSL_free(name);
		OPENSSL_free(header);
		OPENSSL_clear_free(der, (size_t)len);
		name = header = NULL;
		der = NULL;
		len = 0;
	}
	sw_err_set(err, SW_REJECTED, -EBADMSG,
		"private key: no readable PEM block PRIVATE KEY or EC PRIVATE KEY");
out:
	OPENSSL_free(name);
	OPENSSL_free(header);
	OPENSSL_clear_free(der, (size_t)len);
	BIO_free(b);
	ERR_clear_error();
	return key;
}

static bool is_valid_now(const X509 *x)
{
	return X509_cmp_current_time(X509_get0_notBefore(x)) < 0 &&
	       X509_cmp_current_time(X509_get0_notAfter(x)) > 0;
}

static bool signed_by(X509 *x, X509 *issuer)
{
	EVP_PKEY *key = X509_get0_pubkey(issuer);
	bool yes = key && X509_verify(x, key) == 1;

	ERR_clear_error();
	return yes;
}

static bool certified_by_root(X509 *x, STACK_OF(X509) * roots)
{
	for (int i = 0; i < sk_X509_num(roots); i++) {
		X509 *root = sk_X509_value(roots, i);

		if (X509_NAME_cmp(X509_get_issuer_name(x), X509_get_subject_name(root)) == 0 &&
			signed_by(x, root))
			return true;
	}
	return false;
}

/* OpenSSL takes the first trusted certificate whose name fits; old and new root have the same
 * name, so those that really signed the leaf go first. */
static bool push_trusted(STACK_OF(X509) * sk, X509 *x, X509 *leaf)
{
	return sk_X509_insert(sk, x, leaf && signed_by(leaf, x) ? 0 : -1) > 0;
}

/* An intermediate that a root certified counts as trusted, because OpenSSL would take
 * the cross-signed one of a root rotation (issuer name = subject name, no authority key id) for a
 * self-signed stranger. The stack borrows its certificates. */
static STACK_OF(X509) *
	trusted_of(STACK_OF(X509) * roots, STACK_OF(X509) * untrusted, X509 *leaf, bool any_time)
{
	STACK_OF(X509) *sk = sk_X509_new_null();
	bool ok = sk != NULL;

	for (int i = 0; ok && i < sk_X509_num(roots); i++)
		ok = push_trusted(sk, sk_X509_value(roots, i), leaf);
	for (int i = 0; ok && i < sk_X509_num(untrusted) && i < MAX_CERTS; i++) {
		X509 *x = sk_X509_value(untrusted, i);

		if (x != leaf && X509_check_ca(x) == 1 && (any_time || is_valid_now(x)) &&
			certified_by_root(x, roots))
			ok = push_trusted(sk, x, leaf);
	}
	if (!ok) {
		sk_X509_free(sk);
		return NULL;
	}
	return sk;
}

static int verify_ctx(X509_STORE_CTX *ctx, STACK_OF(X509) * roots, bool any_time)
{
	STACK_OF(X509) *trusted = trusted_of(
		roots, X509_STORE_CTX_get0_untrusted(ctx), X509_STORE_CTX_get0_cert(ctx), any_time);
	int r;

	if (!trusted) {
		X509_STORE_CTX_set_error(ctx, X509_V_ERR_OUT_OF_MEM);
		return 0;
	}
	X509_STORE_CTX_set0_trusted_stack(ctx, trusted);
	r = X509_verify_cert(ctx);
	X509_STORE_CTX_set0_trusted_stack(ctx, NULL);
	sk_X509_free(trusted);
	return r > 0;
}

static int on_verify(X509_STORE_CTX *ctx, void *arg)
{
	const struct tls_creds *c = arg;

	return verify_ctx(ctx, c->roots, false);
}

static int load_identity(SSL_CTX *ctx, const struct tls_config *cfg, struct sw_err *err)
{
	STACK_OF(X509) *chain = NULL;
	EVP_PKEY *key = NULL;
	int r = -EBADMSG;

	chain = read_certs(cfg->cert_pem, "certificate", err);
	if (!chain)
		goto out;
	key = read_key(cfg->key_pem, err);
	if (!key)
		goto out;
	if (X509_check_private_key(sk_X509_value(chain, 0), key) != 1) {
		r = sw_err_set(err, SW_REJECTED, -EKEYREJECTED,
			"the private key does not belong to the certificate");
		goto out;
	}
	if (SSL_CTX_use_certificate(ctx, sk_X509_value(chain, 0)) != 1 ||
		SSL_CTX_use_PrivateKey(ctx, key) != 1) {
		char text[128];

		openssl_text(text, sizeof(text));
		r = sw_err_set(err, SW_REJECTED, -EBADMSG, "certificate: %s", text);
		goto out;
	}
	r = 0;
	for (int i = 1; i < sk_X509_num(chain) && r == 0; i++)
		if (SSL_CTX_add1_chain_cert(ctx, sk_X509_value(chain, i)) != 1)
			r = sw_err_set(err, SW_REJECTED, -EBADMSG,
				"certificate %d of the chain cannot be used", i + 1);
out:
	ERR_clear_error();
	certs_free(chain);
	EVP_PKEY_free(key);
	return r;
}

int tls_creds_new(struct tls_creds **ret, const struct tls_config *cfg, struct sw_err *err)
{
	static const unsigned char alpn[] = {2, 'h', '2'};
	struct tls_creds *c;
	SSL_CTX *ctx;
	int r = 0;

	if (sw_str_empty(cfg->name))
		return sw_err_set(err, SW_REJECTED, -EINVAL, "TLS: there is no name to verify");
	if (!cfg->cert_pem != !cfg->key_pem)
		return sw_err_set(
			err, SW_REJECTED, -EINVAL, "TLS: certificate and private key go together");
	c = xcalloc(1, sizeof(*c));
	atomic_init(&c->refs, 1);
	c->name = xstrdup(cfg->name);
	c->ctx = ctx = SSL_CTX_new(TLS_client_method());
	if (!ctx || SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION) != 1 ||
		SSL_CTX_set_cipher_list(ctx, "ECDHE+AESGCM:ECDHE+CHACHA20") != 1 ||
		SSL_CTX_set_alpn_protos(ctx, alpn, sizeof(alpn)) != 0) {
		r = sw_err_set(err, SW_FATAL, -ENOMEM, "TLS: OpenSSL cannot be set up");
		goto out;
	}
	/* A resumed session is authorised with the certificate of the original handshake, even if
	 * we hold another one now. */
	SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_options(
		ctx, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
	SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
				      SSL_MODE_NO_AUTO_CHAIN | SSL_MODE_RELEASE_BUFFERS);
	if (cfg->roots_pem) {
		c->roots = read_certs(cfg->roots_pem, "root certificates", err);
		if (!c->roots) {
			r = -EBADMSG;
			goto out;
		}
		SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
		SSL_CTX_set_cert_verify_callback(ctx, on_verify, c);
	} else {
		SSL_CTX_set_verify(ctx, SSL_VERIFY_NONE, NULL);
	}
	if (cfg->cert_pem) {
		r = load_identity(ctx, cfg, err);
		c->has_cert = r == 0;
	}
out:
	if (r < 0) {
		tls_creds_unref(c);
		return r;
	}
	*ret = c;
	return 0;
}

struct tls_creds *tls_creds_ref(struct tls_creds *c)
{
	atomic_fetch_add_explicit(&c->refs, 1, memory_order_relaxed);
	return c;
}

void tls_creds_unref(struct tls_creds *c)
{
	if (!c || atomic_fetch_sub_explicit(&c->refs, 1, memory_order_acq_rel) != 1)
		return;
	SSL_CTX_free(c->ctx);
	certs_free(c->roots);
	free(c->name);
	free(c);
}

bool tls_creds_has_cert(const struct tls_creds *c)
{
	return c->has_cert;
}

bool tls_creds_verifies(const struct tls_creds *c)
{
	return c->roots != NULL;
}

const char *tls_creds_name(const struct tls_creds *c)
{
	return c->name;
}

SSL *tls_creds_ssl(struct tls_creds *c, struct sw_err *err)
{
	SSL *ssl = SSL_new(c->ctx);

	if (!ssl || SSL_set_tlsext_host_name(ssl, c->name) != 1 ||
		(c->roots && X509_VERIFY_PARAM_set1_host(SSL_get0_param(ssl), c->name, 0) != 1)) {
		SSL_free(ssl);
		ERR_clear_error();
		sw_err_set(err, SW_TEMPORARY, -ENOMEM, "TLS: out of memory");
		return NULL;
	}
	X509_VERIFY_PARAM_set_hostflags(SSL_get0_param(ssl),
		X509_CHECK_FLAG_NEVER_CHECK_SUBJECT | X509_CHECK_FLAG_NO_WILDCARDS);
	SSL_set_connect_state(ssl);
	return ssl;
}

/* Verifies and, where @ret_chain is given, hands out the verified chain. */
static int verify_pem(const char *roots_pem, const char *chain_pem, unsigned flags,
	STACK_OF(X509) * *ret_chain, struct sw_err *err)
{
	STACK_OF(X509) *roots = NULL, *chain = NULL;
	X509_STORE *store = NULL;
	X509_STORE_CTX *ctx = NULL;
	int r = -EBADMSG;

	roots = read_certs(roots_pem, "root certificates", err);
	if (!roots)
		goto out;
	chain = read_certs(chain_pem, "certificate", err);
	if (!chain)
		goto out;
	store = X509_STORE_new();
	ctx = X509_STORE_CTX_new();
	if (!store || !ctx ||
		X509_STORE_CTX_init(ctx, store, sk_X509_value(chain, 0), chain) != 1) {
		r = sw_err_set(err, SW_TEMPORARY, -ENOMEM, "verify certificate: out of memory");
		goto out;
	}
	if (flags & TLS_VERIFY_ANY_TIME)
		X509_STORE_CTX_set_flags(ctx, X509_V_FLAG_NO_CHECK_TIME);
	if (!verify_ctx(ctx, roots, flags & TLS_VERIFY_ANY_TIME)) {
		int code = X509_STORE_CTX_get_error(ctx);

		r = sw_err_setd(err, SW_FATAL, SW_E_TLS, code,
			"the certificate does not verify against the root certificates: %s",
			X509_verify_cert_error_string(code));
		if (r >= 0)
			r = -EIO;
		goto out;
	}
	if (ret_chain) {
		*ret_chain = X509_STORE_CTX_get1_chain(ctx);
		if (!*ret_chain) {
			r = sw_err_set(
				err, SW_TEMPORARY, -ENOMEM, "verify certificate: out of memory");
			goto out;
		}
	}
	r = 0;
out:
	ERR_clear_error();
	X509_STORE_CTX_free(ctx);
	X509_STORE_free(store);
	certs_free(chain);
	certs_free(roots);
	return r;
}

int tls_verify_chain(
	const char *roots_pem, const char *chain_pem, unsigned flags, struct sw_err *err)
{
	return verify_pem(roots_pem, chain_pem, flags, NULL, err);
}

int tls_chain_issuer(
	const char *roots_pem, const char *chain_pem, struct tls_issuer *ret, struct sw_err *err)
{
	STACK_OF(X509) *chain = NULL;
	unsigned char *name = NULL, *key = NULL;
	int r, name_len, key_len;
	X509 *issuer;

	r = verify_pem(roots_pem, chain_pem, TLS_VERIFY_ANY_TIME, &chain, err);
	if (r < 0)
		return r;
	if (sk_X509_num(chain) < 2) {
		r = sw_err_set(err, SW_REJECTED, -EINVAL, "the certificate is its own issuer");
		goto out;
	}
	issuer = sk_X509_value(chain, 1);
	name_len = i2d_X509_NAME(X509_get_subject_name(issuer), &name);
	key_len = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(issuer), &key);
	if (name_len <= 0 || key_len <= 0) {
		r = sw_err_set(err, SW_REJECTED, -EBADMSG, "the issuer cannot be encoded");
		goto out;
	}
	*ret = (struct tls_issuer){
		.subject = xmemdup(name, (size_t)name_len),
		.subject_len = (size_t)name_len,
		.public_key = xmemdup(key, (size_t)key_len),
		.public_key_len = (size_t)key_len,
	};
out:
	OPENSSL_free(name);
	OPENSSL_free(key);
	certs_free(chain);
	return r;
}

void tls_issuer_done(struct tls_issuer *i)
{
	if (!i)
		return;
	free(i->subject);
	free(i->public_key);
	*i = (struct tls_issuer){0};
}
