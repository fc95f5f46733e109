/* What the connection needs from a set of credentials. Loop thread. */
#pragma once
#include <openssl/ssl.h>
#include <stdbool.h>

struct sw_err;
struct tls_creds;

/* A client SSL with name to send and verify set, no BIO yet. It borrows @c. NULL with @err. */
SSL *tls_creds_ssl(struct tls_creds *c, struct sw_err *err);
bool tls_creds_has_cert(const struct tls_creds *c);
const char *tls_creds_name(const struct tls_creds *c);
bool tls_creds_verifies(const struct tls_creds *c);
