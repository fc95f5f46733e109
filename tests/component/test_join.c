/* Joining a swarm, loading what is on disk, renewing. */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <test.h>

#include <openssl/x509.h>

#include <swarm/backoff.h>
#include <swarm/log.h>
#include <swarm/mem.h>

#include "h2server.h"
#include "nodekit.h"
#include "testca.h"

#define CRT  "certificates/swarm-node.crt"
#define KEY  "certificates/swarm-node.key"
#define ROOT "certificates/swarm-root-ca.crt"

static struct nodekit k;

/* Delays become short, as if the dice fell low: nothing here measures time. */
static uint64_t low_dice(void *arg)
{
	uint64_t *x = arg;

	*x = *x * 6364136223846793005u + 1442695040888963407u;
	return *x >> 40; /* some milliseconds of any delay */
}
static uint64_t dice;

static int setup(void **state)
{
	(void)state;
	dice = 7;
	sw_random_source(low_dice, &dice);
	nk_setup(&k, &(struct nk_config){.n_managers = 2});
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	nk_teardown(&k);
	sw_random_source(NULL, NULL);
	return 0;
}

static void no_file(const char *name)
{
	sw_auto_free char *text = nk_file(&k, name);

	assert_null(text);
}

static void same_file(const char *name, const char *expect)
{
	sw_auto_free char *text = nk_file(&k, name);

	assert_non_null(text);
	assert_string_equal(text, expect);
}

static unsigned mode(const char *name)
{
	sw_auto_free char *p = xasprintf("%s/%s", k.dir, name);
	struct stat st;

	assert_int_equal(stat(p, &st), 0);
	return st.st_mode & 07777;
}

static const char *worker_token(void)
{
	return tm_token(k.tm, PB__NODE_ROLE__WORKER);
}

static void wait_end(void)
{
	NK_UNTIL(&k, k.ready || k.id_failed);
}

/* ---- joining */

static void happy_path(void **state) /* 14 */
{
	(void)state;
	nk_join(&k);
	assert_string_equal(identity_node_id(k.identity), nk_node(&k).id);
	assert_string_equal(identity_cluster_id(k.identity), tm_cluster_id(k.tm));
	assert_string_equal(identity_role(k.identity), "swarm-worker");
	assert_string_equal(identity_trouble(k.identity), "");
	same_file(ROOT, tm_root(k.tm));
	assert_int_equal(mode(""), 0700);
	assert_int_equal(mode(ROOT), 0644);
	assert_int_equal(mode(CRT), 0644);
	assert_int_equal(mode(KEY), 0600);
	assert_int_equal(tm_calls(k.tm, TM_ROOT), 1);
	assert_int_equal(tm_calls(k.tm, TM_ISSUE), 1);
}

static void restart_needs_no_token(void **state) /* 5 */
{
	char node[32];

	(void)state;
	nk_join(&k);
	snprintf(node, sizeof(node), "%s", identity_node_id(k.identity));
	nk_identity_close(&k);
	nk_identity(&k, 0, NULL);
	wait_end();
	assert_true(k.ready);
	assert_string_equal(identity_node_id(k.identity), node);
	nk_identity_close(&k);
	nk_identity(&k, 0, "nonsense, and nobody looks at it");
	wait_end();
	assert_true(k.ready);
	assert_int_equal(tm_calls(k.tm, TM_ISSUE), 1);
	assert_int_equal(tm_calls(k.tm, TM_ROOT), 1);
}

static void wrong_token(void **state) /* 18 */
{
	sw_auto_free char *token = xstrdup(worker_token());

	(void)state;
	token[strlen(token) - 1] = token[strlen(token) - 1] == 'a' ? 'b' : 'a';
	nk_identity(&k, 0, token);
	wait_end();
	assert_true(k.id_failed);
	assert_int_equal(k.id_err.cls, SW_REJECTED);
	assert_non_null(strstr(k.id_err.msg, "docker swarm join-token worker"));
	assert_non_null(strstr(k.id_err.msg, "A valid join token is necessary"));
	assert_null(strstr(k.id_err.msg, token));
	no_file(CRT);
	no_file(KEY);
	assert_int_equal(tm_calls(k.tm, TM_ISSUE), 1);
}

static void wrong_digest(void **state) /* 16 */
{
	struct testca *other = testca_new(NULL);
	sw_auto_free char *bundle = testca_concat(tm_root(k.tm), testca_pem(other));

	(void)state;
	tm_wrong_root(k.tm, bundle); /* one certificate of it is the right one */
	nk_identity(&k, 0, worker_token());
	wait_end();
	assert_true(k.id_failed);
	assert_int_equal(k.id_err.cls, SW_REJECTED);
	assert_non_null(strstr(k.id_err.msg, "not the one the join token was made for"));
	no_file(ROOT);
	assert_int_equal(tm_calls(k.tm, TM_ISSUE), 0);
	testca_free(other);
}

static void malformed_token(void **state) /* 17 */
{
	(void)state;
	nk_identity(&k, 0, "SWMTKN-1-abc-def");
	wait_end();
	assert_true(k.id_failed);
	assert_int_equal(k.id_err.cls, SW_REJECTED);
	assert_int_equal(h2server_stats(tm_server(k.tm, 0))->accepted, 0);
}

static void managers_token(void **state)
{
	char id[32];

	(void)state;
	nk_identity(&k, 0, tm_token(k.tm, PB__NODE_ROLE__MANAGER));
	wait_end();
	assert_true(k.id_failed);
	assert_int_equal(k.id_err.cls, SW_REJECTED);
	snprintf(id, sizeof(id), "%s", nk_node(&k).id);
	assert_non_null(strstr(k.id_err.msg, id));
	assert_non_null(strstr(k.id_err.msg, "docker swarm join-token worker"));
	assert_non_null(strstr(k.id_err.msg, "docker node rm"));
	no_file(CRT);
	no_file(KEY);
}

static void nothing_to_join_with(void **state) /* 24 */
{
	(void)state;
	nk_identity(&k, 0, NULL);
	wait_end();
	assert_true(k.id_failed);
	assert_non_null(strstr(k.id_err.msg, "--join-token"));
}

static void unknown_availability(void **state)
{
	struct identity_config cfg = {k.loop, k.remotes, k.dir, NULL, "sometimes"};
	struct identity_events ev = {0};
	struct sw_err err = SW_ERR_NONE;

	(void)state;
	assert_true(identity_new(&k.identity, &cfg, &ev, &k, &err) < 0);
	assert_null(k.identity);
	assert_non_null(strstr(err.msg, "sometimes"));
}

static void no_manager_to_ask(void **state) /* 24 */
{
	(void)state;
	nk_identity(&k, 0, worker_token());
	remotes_remove(k.remotes, "", tm_addr(k.tm, 0));
	wait_end();
	assert_true(k.id_failed);
	assert_non_null(strstr(k.id_err.msg, "--join-addr"));
}

static unsigned warnings;

static void count_warnings(void *arg, enum log_level level, const char *line)
{
	(void)arg;
	if (level == LOG_L_WARNING && strstr(line, "no progress"))
		warnings++;
}

static void unreachable_manager(void **state) /* 13 */
{
	(void)state;
	warnings = 0;
	log_set_sink(count_warnings, NULL);
	h2server_listen(tm_server(k.tm, 0), false);
	nk_identity(&k, 0, worker_token());
	NK_UNTIL(&k, *identity_trouble(k.identity));
	assert_non_null(strstr(identity_trouble(k.identity), "joining the swarm"));
	assert_false(k.id_failed);
	no_file(ROOT);
	/* several attempts, one line */
	nk_guard_start(&k);
	loop_for(k.loop, 300);
	assert_int_equal(warnings, 1);
	log_set_sink(NULL, NULL);
	/* and it goes on when the manager is back */
	h2server_listen(tm_server(k.tm, 0), true);
	wait_end();
	assert_true(k.ready);
	assert_string_equal(identity_trouble(k.identity), "");
}

static void ca_is_starting(void **state) /* 2.4: code 10 is temporary */
{
	(void)state;
	tm_inject(k.tm, TM_ISSUE,
		&(struct tm_fault_spec){TM_ERROR, 3, 10, "CA signer is still starting", 0});
	nk_identity(&k, 0, worker_token());
	wait_end();
	assert_true(k.ready);
	assert_int_equal(tm_calls(k.tm, TM_ISSUE), 4);
	(void)nk_node(&k);                            /* exactly one */
	assert_int_equal(tm_calls(k.tm, TM_ROOT), 1); /* kept over the attempts */
}

static void only_one_node_object(void **state) /* 20, never issued twice */
{
	static const struct tm_fault_spec faults[] = {{TM_ERROR, 2, 10, "CA signer is stopped", 0},
		{TM_CUT, 2, 0, NULL, 0}, {TM_GARBAGE, 1, 0, NULL, 0}};

	(void)state;
	tm_inject(k.tm, TM_CERT_STATUS, &faults[0]);
	nk_identity(&k, 0, worker_token());
	nk_wait_calls(&k, TM_CERT_STATUS, 2);
	tm_inject(k.tm, TM_CERT_STATUS, &faults[1]);
	nk_wait_calls(&k, TM_CERT_STATUS, 4);
	tm_inject(k.tm, TM_CERT_STATUS, &faults[2]);
	wait_end();
	assert_true(k.ready);
	assert_int_equal(tm_calls(k.tm, TM_ISSUE), 1);
	assert_string_equal(nk_node(&k).id, identity_node_id(k.identity));
}

static void another_request_is_not_ours(void **state) /* 19 */
{
	(void)state;
	tm_foreign_csr(k.tm, 2);
	nk_join(&k);
	assert_int_equal(tm_calls(k.tm, TM_CERT_STATUS), 3);
}

static void pending(void **state) /* 20 */
{
	(void)state;
	tm_pending(k.tm, 2);
	nk_join(&k);
	assert_int_equal(tm_calls(k.tm, TM_CERT_STATUS), 3);
	assert_int_equal(tm_calls(k.tm, TM_ISSUE), 1);
}

static void issuance_fails(void **state)
{
	struct tm_node n[4];

	(void)state;
	tm_issue_fails(k.tm, 1);
	nk_identity(&k, 0, worker_token());
	NK_UNTIL(&k, *identity_trouble(k.identity));
	assert_non_null(strstr(identity_trouble(k.identity), "CSR Decode failed"));
	wait_end();
	assert_true(k.ready); /* with a new key and a new request */
	assert_int_equal(tm_nodes(k.tm, n, 4), 2);
}

static void root_is_kept(void **state) /* 15 */
{
	(void)state;
	nk_put_file(&k, ROOT, tm_root(k.tm), 0600);
	nk_join(&k);
	assert_int_equal(tm_calls(k.tm, TM_ROOT), 0);
	assert_int_equal(mode(ROOT), 0600); /* not even rewritten */
}

static void fips_token(void **state) /* 22 */
{
	sw_auto_free char *token = xasprintf("SWMTKN-2-1-%s", worker_token() + strlen("SWMTKN-1-"));

	(void)state;
	nk_identity(&k, 0, token);
	wait_end();
	assert_true(k.id_failed);
	assert_non_null(strstr(k.id_err.msg, "node is not FIPS-enabled but cluster requires FIPS"));
	assert_int_equal(h2server_stats(tm_server(k.tm, 0))->accepted, 0);
}

static void fips_certificate(void **state) /* 22 */
{
	(void)state;
	tm_fips(k.tm, true);
	nk_identity(&k, 0, worker_token());
	wait_end();
	assert_true(k.id_failed);
	assert_non_null(strstr(k.id_err.msg, "node is not FIPS-enabled but cluster requires FIPS"));
	no_file(CRT);
}

static void fips_token_with_credentials(void **state) /* 23 */
{
	sw_auto_free char *token = xasprintf("SWMTKN-2-1-%s", worker_token() + strlen("SWMTKN-1-"));

	(void)state;
	nk_join(&k);
	nk_identity_close(&k);
	nk_identity(&k, 0, token);
	wait_end();
	assert_true(k.ready);
}

static void silent_alpn(void **state) /* trap 1 */
{
	(void)state;
	tm_silent_alpn(k.tm, 0, true);
	nk_join(&k);
}

/* ---- what is on disk */

static void pair_of(struct testca *ca, const struct testca_leaf *leaf)
{
	char *key, *cert = testca_issue(ca, leaf, &key);

	nk_put_file(&k, CRT, cert, 0644);
	nk_put_file(&k, KEY, key, 0600);
	free(cert);
	free(key);
}

static void refused_on_disk(struct testca_leaf leaf, bool foreign, const char *text)
{
	struct testca *ca = testca_new(NULL), *other = testca_new(NULL);
	char *before, *after;

	leaf.o = leaf.o ? leaf.o : "cluster";
	leaf.ou = "swarm-worker";
	leaf.cn = "node1";
	nk_put_file(&k, ROOT, testca_pem(ca), 0644);
	pair_of(foreign ? other : ca, &leaf);
	before = nk_file(&k, CRT);
	nk_identity(&k, 0, worker_token());
	wait_end();
	assert_true(k.id_failed);
	assert_true(k.id_err.cls != SW_TEMPORARY);
	if (!strstr(k.id_err.msg, text))
		fail_msg("\"%s\" lacks \"%s\"", k.id_err.msg, text);
	after = nk_file(&k, CRT);
	assert_string_equal(before, after);
	assert_int_equal(h2server_stats(tm_server(k.tm, 0))->accepted, 0);
	free(before);
	free(after);
	testca_free(ca);
	testca_free(other);
}

static void foreign_certificate(void **state) /* 6 */
{
	(void)state;
	refused_on_disk((struct testca_leaf){0}, true, "does not fit swarm-root-ca.crt");
}

static void expired_certificate(void **state) /* 7 */
{
	(void)state;
	refused_on_disk((struct testca_leaf){.not_before_s = -7200, .not_after_s = -3600}, false,
		"it has expired");
}

static void future_certificate(void **state) /* 7 */
{
	(void)state;
	refused_on_disk(
		(struct testca_leaf){.not_before_s = 3600, .not_after_s = 7200}, false, "valid ");
}

static void fips_certificate_on_disk(void **state) /* 22 */
{
	(void)state;
	refused_on_disk((struct testca_leaf){.o = "FIPS.cluster"}, false, "requires FIPS");
}

static void pair_without_root(void **state) /* 2.4: absent root, usable pair */
{
	char node[32];

	(void)state;
	nk_join(&k);
	snprintf(node, sizeof(node), "%s", identity_node_id(k.identity));
	nk_identity_close(&k);
	{
		sw_auto_free char *p = xasprintf("%s/" ROOT, k.dir);

		remove(p);
	}
	nk_identity(&k, 0, worker_token());
	wait_end();
	assert_true(k.ready);
	assert_string_equal(identity_node_id(k.identity), node);
	assert_int_equal(tm_calls(k.tm, TM_ROOT), 2);
	assert_int_equal(tm_calls(k.tm, TM_ISSUE), 1);
	same_file(ROOT, tm_root(k.tm));
}

static void interrupted_renewal(void **state) /* 9, 10 */
{
	sw_auto_free char *cert = NULL;

	(void)state;
	nk_join(&k);
	nk_identity_close(&k);
	cert = nk_file(&k, CRT);
	nk_put_file(&k, "certificates/.swarm-node.crt", cert, 0644);
	{
		sw_auto_free char *p = xasprintf("%s/" CRT, k.dir);

		remove(p);
	}
	nk_identity(&k, 0, NULL);
	wait_end();
	assert_true(k.ready);
	same_file(CRT, cert);
	no_file("certificates/.swarm-node.crt");
}

/* ---- renewal */

static void renewed_when_due(void **state) /* 26 */
{
	sw_auto_free char *before = NULL, *after = NULL;

	(void)state;
	tm_validity(k.tm, -100 * 60, 20 * 60); /* 5/6 of its life are over */
	nk_join(&k);
	before = nk_file(&k, CRT);
	tm_validity(k.tm, 0, 0);
	NK_UNTIL(&k, k.changed == 1);
	after = nk_file(&k, CRT);
	assert_string_not_equal(before, after);
	assert_string_equal(identity_node_id(k.identity), nk_node(&k).id);
	assert_int_equal(tm_calls(k.tm, TM_ISSUE), 2);
	loop_for(k.loop, 50); /* and not in a circle */
	assert_int_equal(tm_calls(k.tm, TM_ISSUE), 2);
}

static void several_requests_are_one(void **state) /* 28 */
{
	(void)state;
	nk_join(&k);
	for (int i = 0; i < 5; i++)
		identity_renew(k.identity, "test");
	NK_UNTIL(&k, k.changed == 1);
	loop_for(k.loop, 700);
	assert_int_equal(tm_calls(k.tm, TM_ISSUE), 2);
}

static void failed_renewal_keeps_the_old_one(void **state) /* 27, 21 */
{
	sw_auto_free char *before = NULL;

	(void)state;
	nk_join(&k);
	before = nk_file(&k, CRT);
	tm_inject(k.tm, TM_ISSUE, &(struct tm_fault_spec){TM_ERROR, 1, 14, "no leader", 0});
	identity_renew(k.identity, "test");
	NK_UNTIL(&k, *identity_trouble(k.identity));
	assert_non_null(strstr(identity_trouble(k.identity), "no leader"));
	same_file(CRT, before);
	assert_false(k.id_failed);
	NK_UNTIL(&k, k.changed == 1); /* the next one works */
	assert_string_equal(identity_trouble(k.identity), "");
}

static void removed_node_cannot_renew(void **state)
{
	(void)state;
	nk_join(&k);
	tm_node_remove(k.tm, identity_node_id(k.identity));
	identity_renew(k.identity, "test");
	NK_UNTIL(&k, *identity_trouble(k.identity));
	assert_false(k.id_failed); /* a renewal never ends the process */
	assert_int_equal(k.changed, 0);
}

static void set_root_is_careful(void **state) /* 34 */
{
	struct testca *other = testca_new(NULL);
	Pb__NodeTLSInfo tls = PB__NODE_TLSINFO__INIT;
	sw_auto_free char *both = NULL;

	(void)state;
	nk_join(&k);
	identity_set_root(k.identity, tm_root(k.tm), strlen(tm_root(k.tm)));
	identity_set_root(k.identity, "garbage", 7);
	identity_set_root(k.identity, testca_pem(other), strlen(testca_pem(other)));
	loop_for(k.loop, 100);
	assert_int_equal(k.changed, 0);
	same_file(ROOT, tm_root(k.tm));
	/* one that our certificate belongs to */
	both = testca_concat(testca_pem(other), tm_root(k.tm));
	identity_set_root(k.identity, both, strlen(both));
	assert_int_equal(k.changed, 0);
	NK_UNTIL(&k, k.changed == 1);
	same_file(ROOT, both);
	identity_tls_info(k.identity, &tls);
	assert_int_equal(tls.trust_root.len, strlen(both));
	testca_free(other);
}

static void close_at_any_moment(void **state)
{
	static const struct tm_fault_spec hang = {TM_HANG, 1, 0, NULL, 0};

	(void)state;
	/* while loading */
	nk_identity(&k, 0, worker_token());
	nk_identity_close(&k);
	/* in each call */
	for (int m = TM_ROOT; m <= TM_CERT_STATUS; m++) {
		unsigned calls = tm_calls(k.tm, (enum tm_method)m);

		tm_inject(k.tm, (enum tm_method)m, &hang);
		nk_identity(&k, 0, worker_token());
		nk_wait_calls(&k, (enum tm_method)m, calls + 1);
		nk_identity_close(&k);
		assert_false(k.ready || k.id_failed);
	}
	/* while a root is being written */
	nk_join(&k);
	identity_set_root(k.identity, tm_root(k.tm), strlen(tm_root(k.tm)));
	identity_renew(k.identity, "test");
	nk_identity_close(&k);
}

int main(int argc, char **argv)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(happy_path),
		T(restart_needs_no_token),
		T(wrong_token),
		T(wrong_digest),
		T(malformed_token),
		T(managers_token),
		T(nothing_to_join_with),
		T(unknown_availability),
		T(no_manager_to_ask),
		T(unreachable_manager),
		T(ca_is_starting),
		T(only_one_node_object),
		T(another_request_is_not_ours),
		T(pending),
		T(issuance_fails),
		T(root_is_kept),
		T(fips_token),
		T(fips_certificate),
		T(fips_token_with_credentials),
		T(silent_alpn),
		T(foreign_certificate),
		T(expired_certificate),
		T(future_certificate),
		T(fips_certificate_on_disk),
		T(pair_without_root),
		T(interrupted_renewal),
		T(renewed_when_due),
		T(several_requests_are_one),
		T(failed_renewal_keeps_the_old_one),
		T(removed_node_cannot_renew),
		T(set_root_is_careful),
		T(close_at_any_moment),
	};

	if (argc > 1) /* one of them, by name */
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
