/* files.h - the credentials of a node on disk, laid out as dockerd lays them out below its swarm
 * directory, so that either program can take over the other's. All of it blocks: pool only.
 * Private to the session room.
 *
 *   DIR                              0700
 *   DIR/certificates                 0755
 *   DIR/certificates/swarm-root-ca.crt  0644  trust bundle, the bytes as received
 *   DIR/certificates/swarm-node.crt     0644  leaf, then intermediates
 *   DIR/certificates/swarm-node.key     0600  PKCS#8 with a kek-version header
 *   DIR/certificates/.swarm-node.crt    0644  a new certificate whose key may not be in place yet
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>

struct sw_err;

/* NULL: not there. Text without NUL bytes. */
struct node_files {
	char *root;
	char *cert, *key; /* both or none, and they match */
};
/* Reads what is there; finishes a renewal that a crash interrupted. 0, or a negative code with
 * SW_FATAL: the state needs a person. */
int files_load(const char *state_dir, struct node_files *ret, struct sw_err *err);
void node_files_done(struct node_files *f); /* wipes the key */
int files_save_root(const char *state_dir, const void *pem, size_t len, struct sw_err *err);
/* New certificate to the dot file, key over the key, dot file over the certificate: a crash at any
 * point leaves a pair that files_load() puts together. */
int files_save_pair(const char *state_dir, const char *cert, const char *key, struct sw_err *err);
