/* pki.h - keys, requests and certificates as files hold them (PEM). Any thread; the functions that
 * compute belong on the pool. Private to the session room. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct sw_err;

#define PKI_PEM_MAX (1u << 20) /* of a bundle, chain or key: anything larger is refused */

/* A new P-256 key and a request for it with an empty subject. @key is a PKCS#8 PEM with the
 * "kek-version: 0" header that dockerd expects in its key file; wipe it. */
int pki_new_request(char **key, char **csr, struct sw_err *err);

/* What a node certificate says. */
struct pki_subject {
	char *node_id, *role, *cluster_id; /* CN, OU, O */
	int64_t not_before_s, not_after_s; /* since 1970 UTC */
};
/* Of the leaf of @chain. SW_FATAL when it cannot be parsed or lacks O, OU or CN. */
int pki_subject(const char *chain, struct pki_subject *ret, struct sw_err *err);
void pki_subject_done(struct pki_subject *s);

/* 0, -EBADMSG (unreadable), -EKEYREJECTED (encrypted), -EINVAL (not the leaf's key). */
int pki_key_matches(const char *key, const char *chain, struct sw_err *err);
/* A trust bundle: at least one certificate, each self-signed, valid now and of a strong signature
 * algorithm. The bytes need no terminator. SW_REJECTED. */
int pki_check_roots(const void *pem, size_t len, struct sw_err *err);
