/* Keys, certificates and their files. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <test.h>

#include <openssl/pem.h>
#include <openssl/x509.h>

#include <session/files.h>
#include <session/pki.h>
#include <swarm/err.h>
#include <swarm/mem.h>
#include <swarm/session.h>

#include "testca.h"

struct fix {
	char dir[64];
	struct testca *ca;
	char *key, *cert; /* one node's pair */
	char *key2, *cert2;
};

static char *sign(struct testca *ca, const char *csr)
{
	struct testca_leaf leaf = {.o = "cluster", .ou = "swarm-worker", .cn = "node1"};
	char *cert = testca_sign_csr(ca, csr, &leaf);

	assert_non_null(cert);
	return cert;
}

static int setup(void **state)
{
	struct fix *f = xcalloc(1, sizeof(*f));
	char *csr;

	strcpy(f->dir, "/tmp/swarm-test-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	f->ca = testca_new(NULL);
	assert_int_equal(pki_new_request(&f->key, &csr, NULL), 0);
	f->cert = sign(f->ca, csr);
	free(csr);
	assert_int_equal(pki_new_request(&f->key2, &csr, NULL), 0);
	f->cert2 = sign(f->ca, csr);
	free(csr);
	*state = f;
	return 0;
}

static char *path(const struct fix *f, const char *name)
{
	return xasprintf("%s/certificates/%s", f->dir, name);
}

static int teardown(void **state)
{
	struct fix *f = *state;
	static const char *const names[] = {
		"swarm-root-ca.crt", "swarm-node.crt", "swarm-node.key", ".swarm-node.crt", ""};

	for (size_t i = 0; i < SW_ARRAY_LEN(names); i++) {
		sw_auto_free char *p = path(f, names[i]);

		if (*names[i])
			unlink(p);
		else
			rmdir(p);
	}
	if (rmdir(f->dir) < 0 && errno == ENOTEMPTY)
		fail_msg("files left in %s", f->dir);
	testca_free(f->ca);
	free(f->key);
	free(f->cert);
	free(f->key2);
	free(f->cert2);
	free(f);
	return 0;
}

static void put(struct fix *f, const char *name, const char *text)
{
	sw_auto_free char *p = path(f, name);
	sw_auto_free char *dir = path(f, "");
	FILE *file;

	mkdir(dir, 0755);
	file = fopen(p, "w");
	assert_non_null(file);
	assert_int_equal(fwrite(text, 1, strlen(text), file), strlen(text));
	fclose(file);
}

static char *get(struct fix *f, const char *name)
{
	sw_auto_free char *p = path(f, name);
	char *text = xcalloc(1, 65536);
	FILE *file = fopen(p, "r");

	if (!file) {
		free(text);
		return NULL;
	}
	text[fread(text, 1, 65535, file)] = 0;
	fclose(file);
	return text;
}

static unsigned mode(const struct fix *f, const char *name)
{
	sw_auto_free char *p = path(f, name);
	struct stat st;

	assert_int_equal(stat(p, &st), 0);
	return st.st_mode & 07777;
}

/* ---- keys and requests */

static void key_is_as_dockerd_writes_it(void **state) /* 11 */
{
	struct fix *f = *state;

	assert_int_equal(strncmp(f->key, "-----BEGIN PRIVATE KEY-----\nkek-version: 0\n\n", 44), 0);
	assert_int_equal(pki_key_matches(f->key, f->cert, NULL), 0);
	assert_int_equal(pki_key_matches(f->key, f->cert2, NULL), -EINVAL);
}

static void other_headers_are_accepted(void **state)
{
	struct fix *f = *state;
	sw_auto_free char *more = xasprintf(
		"-----BEGIN PRIVATE KEY-----\nkek-version: 7\nraft-dek: abc=\nx-unknown: 1\n\n%s",
		f->key + 44);

	assert_int_equal(pki_key_matches(more, f->cert, NULL), 0);
}

static void locked_key(void **state) /* 12 */
{
	struct fix *f = *state;
	struct sw_err err = SW_ERR_NONE;

	assert_int_equal(
		pki_key_matches("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n", f->cert, &err),
		-EKEYREJECTED);
	assert_non_null(strstr(err.msg, "node is locked, and needs a valid unlock key"));
}

static void request_has_an_empty_subject(void **state)
{
	char *key, *csr;
	BIO *b;
	X509_REQ *req;
	EVP_PKEY *k;

	(void)state;
	assert_int_equal(pki_new_request(&key, &csr, NULL), 0);
	b = BIO_new_mem_buf(csr, -1);
	req = PEM_read_bio_X509_REQ(b, NULL, NULL, NULL);
	assert_non_null(req);
	assert_int_equal(X509_NAME_entry_count(X509_REQ_get_subject_name(req)), 0);
	assert_int_equal(X509_REQ_get_signature_nid(req), NID_ecdsa_with_SHA256);
	k = X509_REQ_get0_pubkey(req);
	assert_int_equal(X509_REQ_verify(req, k), 1);
	assert_int_equal(EVP_PKEY_get_bits(k), 256);
	X509_REQ_free(req);
	BIO_free(b);
	free(key);
	free(csr);
}

static void subject(void **state) /* 14, 25 */
{
	struct fix *f = *state;
	struct pki_subject s;
	struct sw_err err = SW_ERR_NONE;
	static const struct testca_leaf lacking[] = {{.ou = "swarm-worker", .cn = "n"},
		{.o = "c", .cn = "n"}, {.o = "c", .ou = "swarm-worker"}};

	assert_int_equal(pki_subject(f->cert, &s, NULL), 0);
	assert_string_equal(s.node_id, "node1");
	assert_string_equal(s.role, "swarm-worker");
	assert_string_equal(s.cluster_id, "cluster");
	assert_true(s.not_after_s - s.not_before_s > 89 * 86400);
	pki_subject_done(&s);
	for (size_t i = 0; i < SW_ARRAY_LEN(lacking); i++) {
		char *key, *cert = testca_issue(f->ca, &lacking[i], &key);

		assert_true(pki_subject(cert, &s, &err) < 0);
		assert_int_equal(err.cls, SW_FATAL);
		free(cert);
		free(key);
	}
	assert_true(pki_subject("garbage", &s, &err) < 0);
}

static void roots(void **state)
{
	struct fix *f = *state;
	const char *root = testca_pem(f->ca);
	struct testca *other = testca_new(NULL);
	sw_auto_free char *two = testca_concat(root, testca_pem(other));
	sw_auto_free char *cross = testca_cross(other, f->ca);
	sw_auto_free char *mixed = testca_concat(root, cross);
	sw_auto_free char *broken = testca_concat(
		root, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");

	assert_int_equal(pki_check_roots(root, strlen(root), NULL), 0);
	assert_int_equal(pki_check_roots(two, strlen(two), NULL), 0);
	assert_true(pki_check_roots("", 0, NULL) < 0);
	assert_true(pki_check_roots("hello", 5, NULL) < 0);
	assert_true(pki_check_roots(root, strlen(root) + 1, NULL) < 0); /* a NUL */
	assert_true(pki_check_roots(root, strlen(root) - 40, NULL) < 0);
	assert_true(pki_check_roots(f->cert, strlen(f->cert), NULL) < 0); /* not self-signed */
	assert_true(pki_check_roots(mixed, strlen(mixed), NULL) < 0);
	assert_true(pki_check_roots(broken, strlen(broken), NULL) < 0);
	testca_free(other);
}

/* ---- the state directory */

static void state_dir_is_made(void **state) /* 1 */
{
	struct fix *f = *state;
	sw_auto_free char *sub = xasprintf("%s/state", f->dir);
	struct stat st;

	assert_int_equal(state_dir_prepare(sub, NULL), 0);
	assert_int_equal(stat(sub, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0700);
	assert_int_equal(state_dir_prepare(sub, NULL), 0);
	rmdir(sub);
}

static void open_state_dir_is_refused(void **state)
{
	struct fix *f = *state;
	struct sw_err err = SW_ERR_NONE;
	sw_auto_free char *deep = xasprintf("%s/a/b", f->dir);

	assert_int_equal(chmod(f->dir, 0750), 0);
	assert_true(state_dir_prepare(f->dir, &err) < 0);
	assert_int_equal(err.cls, SW_FATAL);
	assert_non_null(strstr(err.msg, "chmod 0700"));
	assert_int_equal(chmod(f->dir, 0700), 0);
	assert_true(state_dir_prepare(deep, &err) < 0);
	if (geteuid() == 0) {
		assert_int_equal(chown(f->dir, 65534, 65534), 0);
		assert_true(state_dir_prepare(f->dir, &err) < 0);
		assert_non_null(strstr(err.msg, "65534"));
		assert_int_equal(chown(f->dir, 0, 0), 0);
	}
}

static void nothing_there(void **state)
{
	struct fix *f = *state;
	struct node_files n;

	assert_int_equal(files_load(f->dir, &n, NULL), 0);
	assert_null(n.root);
	assert_null(n.cert);
	assert_null(n.key);
	assert_int_equal(mode(f, ""), 0755);
}

static void save_and_load(void **state)
{
	struct fix *f = *state;
	const char *root = testca_pem(f->ca);
	struct node_files n;

	assert_int_equal(files_save_root(f->dir, root, strlen(root), NULL), 0);
	assert_int_equal(files_save_pair(f->dir, f->cert, f->key, NULL), 0);
	assert_int_equal(mode(f, "swarm-root-ca.crt"), 0644);
	assert_int_equal(mode(f, "swarm-node.crt"), 0644);
	assert_int_equal(mode(f, "swarm-node.key"), 0600);
	assert_null(get(f, ".swarm-node.crt"));
	assert_int_equal(files_save_pair(f->dir, f->cert2, f->key2, NULL), 0);
	assert_int_equal(files_load(f->dir, &n, NULL), 0);
	assert_string_equal(n.root, root);
	assert_string_equal(n.cert, f->cert2);
	assert_string_equal(n.key, f->key2);
	node_files_done(&n);
}

/* What is on disk when a renewal dies at each of its points (10). */
static void crash_after_temp_certificate(void **state)
{
	struct fix *f = *state;
	struct node_files n;

	put(f, "swarm-node.crt", f->cert);
	put(f, "swarm-node.key", f->key);
	put(f, ".swarm-node.crt", f->cert2);
	put(f, ".tmp-0123456789abcdef", "half a ke");
	assert_int_equal(files_load(f->dir, &n, NULL), 0);
	assert_null(get(f, ".tmp-0123456789abcdef"));
	assert_string_equal(n.cert, f->cert);
	assert_string_equal(n.key, f->key);
	node_files_done(&n);
}

static void crash_after_key(void **state) /* 9 */
{
	struct fix *f = *state;
	struct node_files n;
	char *text;

	put(f, "swarm-node.crt", f->cert);
	put(f, "swarm-node.key", f->key2);
	put(f, ".swarm-node.crt", f->cert2);
	for (int i = 0; i < 2; i++) { /* and it stays so */
		assert_int_equal(files_load(f->dir, &n, NULL), 0);
		assert_string_equal(n.cert, f->cert2);
		assert_string_equal(n.key, f->key2);
		node_files_done(&n);
		assert_null(get(f, ".swarm-node.crt"));
	}
	text = get(f, "swarm-node.crt");
	assert_string_equal(text, f->cert2);
	free(text);
}

static void crash_during_the_first_one(void **state)
{
	struct fix *f = *state;
	struct node_files n;

	put(f, ".swarm-node.crt", f->cert);
	put(f, "swarm-node.key", f->key);
	assert_int_equal(files_load(f->dir, &n, NULL), 0);
	assert_string_equal(n.cert, f->cert);
	node_files_done(&n);
}

static void only_a_temp_certificate(void **state)
{
	struct fix *f = *state;
	struct node_files n;

	put(f, ".swarm-node.crt", f->cert);
	assert_int_equal(files_load(f->dir, &n, NULL), 0);
	assert_null(n.cert);
	assert_null(get(f, ".swarm-node.crt"));
}

static void foreign_key(void **state) /* 8 */
{
	struct fix *f = *state;
	struct node_files n;
	struct sw_err err = SW_ERR_NONE;
	char *text;

	put(f, "swarm-node.crt", f->cert);
	put(f, "swarm-node.key", f->key2);
	assert_true(files_load(f->dir, &n, &err) < 0);
	assert_int_equal(err.cls, SW_FATAL);
	assert_non_null(strstr(err.msg, "error while loading TLS certificate in"));
	text = get(f, "swarm-node.crt");
	assert_string_equal(text, f->cert);
	free(text);
	/* a temp certificate that fits neither goes, the error stays */
	put(f, ".swarm-node.crt", f->cert);
	assert_true(files_load(f->dir, &n, &err) < 0);
	assert_null(get(f, ".swarm-node.crt"));
}

static void half_a_pair_is_none(void **state)
{
	struct fix *f = *state;
	struct node_files n;

	put(f, "swarm-node.crt", f->cert);
	assert_int_equal(files_load(f->dir, &n, NULL), 0);
	assert_null(n.cert);
	assert_null(n.key);
}

static void strange_files(void **state)
{
	struct fix *f = *state;
	struct node_files n;
	struct sw_err err = SW_ERR_NONE;
	sw_auto_free char *p = path(f, "swarm-root-ca.crt");
	sw_auto_free char *dir = path(f, "");

	mkdir(dir, 0755);
	assert_int_equal(mkfifo(p, 0600), 0); /* must not block */
	assert_true(files_load(f->dir, &n, &err) < 0);
	assert_non_null(strstr(err.msg, "swarm-root-ca.crt"));
	unlink(p);
	assert_int_equal(symlink("/etc/passwd", p), 0);
	assert_true(files_load(f->dir, &n, &err) < 0);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(key_is_as_dockerd_writes_it),
		T(other_headers_are_accepted),
		T(locked_key),
		T(request_has_an_empty_subject),
		T(subject),
		T(roots),
		T(state_dir_is_made),
		T(open_state_dir_is_refused),
		T(nothing_there),
		T(save_and_load),
		T(crash_after_temp_certificate),
		T(crash_after_key),
		T(crash_during_the_first_one),
		T(only_a_temp_certificate),
		T(foreign_key),
		T(half_a_pair_is_none),
		T(strange_files),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
