/* testca.h - certificate authorities and certificates for tests, in memory: P-256, subjects and
 * SANs as Swarm's. Failures abort: a test that cannot make its certificates is no test. */
#pragma once
#include <stdbool.h>

struct testca;

/* A self-signed root, CN "swarm-ca" if @cn is NULL, valid from an hour ago for 20 years, with a
 * subject key id and no authority key id (as Swarm's roots are). */
struct testca *testca_new(const char *cn);
void testca_free(struct testca *ca); /* NULL is fine */
const char *testca_pem(const struct testca *ca);

/* @ca's key and subject certified by @by: the intermediate of a root rotation (subject name =
 * issuer name when both are called alike, no authority key id). malloc'd PEM. */
char *testca_cross(struct testca *ca, struct testca *by);

struct testca_leaf {
	const char *o, *ou, *cn; /* NULL: that part is missing */
	const char *san[4];      /* DNS names, ends at the first NULL */
	long not_before_s;       /* relative to now; 0: an hour ago */
	long not_after_s;        /* relative to now; 0: in 90 days. Negative: expired */
	bool is_ca;              /* CA:TRUE without the key usages of a leaf */
};
/* A key of its own and a certificate; both malloc'd PEM (@key_pem PKCS#8). */
char *testca_issue(struct testca *ca, const struct testca_leaf *leaf, char **key_pem);
/* For the public key of a CSR (its subject does not count, as with Swarm). NULL if @csr_pem is
 * none. */
char *testca_sign_csr(struct testca *ca, const char *csr_pem, const struct testca_leaf *leaf);

/* What a manager of cluster @o called @cn presents: SANs swarm-manager, swarm-ca and @cn. */
char *testca_manager(struct testca *ca, const char *o, const char *cn, char **key_pem);
/* What a worker has: OU swarm-worker. */
char *testca_worker(struct testca *ca, const char *o, const char *cn, char **key_pem);
/* "<a><b>", malloc'd: chains. */
char *testca_concat(const char *a, const char *b);
