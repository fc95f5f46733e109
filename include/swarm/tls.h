/* tls.h - TLS identities and chain verification as a Swarm needs them. Any thread unless said. */
#pragma once
#include <stddef.h>
#include <stdint.h>

struct sw_err;

/* One set of credentials for new connections; reference-counted, immutable. */
struct tls_creds;
struct tls_config {
	const char
		*roots_pem; /* the only trust there is; NULL: verify nothing (fetching the root) */
	const char *cert_pem; /* leaf first, then intermediates; NULL: no client certificate */
	const char *key_pem;  /* PKCS#8 or SEC1, may carry PEM headers as Docker writes them
				 (kek-version) */
	const char *name;     /* SNI and the name to verify: "swarm-manager", "swarm-ca" */
};
/* TLS 1.2 and up, no session resumption (a resumed session keeps the old identity), ALPN "h2"
 * offered but its answer not required, certificate chains verified with tls_verify_chain()'s rules.
 */
int tls_creds_new(struct tls_creds **ret, const struct tls_config *cfg, struct sw_err *err);
struct tls_creds *tls_creds_ref(struct tls_creds *c);
void tls_creds_unref(struct tls_creds *c); /* NULL is fine */

/* Verifies @chain_pem (leaf first) against @roots_pem at the present time. During a root rotation a
 * chain holds an intermediate with issuer name = subject name and no authority key id, which
 * OpenSSL takes for self-signed; it is accepted here when a root's key signed it. SW_FATAL with
 * domain SW_E_TLS and the X509_V_ERR_ code. @flags as below. */
#define TLS_VERIFY_ANY_TIME 1u /* expiry does not count */
int tls_verify_chain(
	const char *roots_pem, const char *chain_pem, unsigned flags, struct sw_err *err);

/* What a node tells the manager about its issuer: of the verified chain the certificate right after
 * the leaf, its DER subject name and DER SubjectPublicKeyInfo, malloc'd. */
struct tls_issuer {
	uint8_t *subject, *public_key;
	size_t subject_len, public_key_len;
};
int tls_chain_issuer(
	const char *roots_pem, const char *chain_pem, struct tls_issuer *ret, struct sw_err *err);
void tls_issuer_done(struct tls_issuer *i);
