/* wire_probe COMMAND ADDR [...]: our transport against a real manager, for test_wire.sh.
 *
 *   root ADDR FILE          fetches the root certificates without verifying anything
 *   phantom ADDR FILE TOKEN makes a node that never shows up (a rotation of the root waits for it)
 *   check ADDR FILE ALPN    verifies the manager against FILE as "swarm-ca" and makes many calls;
 *                           ALPN: "yes", "no": whether it must be answered */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <swarm/api.h>
#include <swarm/grpc.h>
#include <swarm/h2.h>
#include <swarm/loop.h>
#include <swarm/mem.h>
#include <swarm/tls.h>

#define GET_ROOT "/docker.swarmkit.v1.CA/GetRootCACertificate"
#define ISSUE    "/docker.swarmkit.v1.NodeCA/IssueNodeCertificate"
#define PUBLISH  "/docker.swarmkit.v1.LogBroker/PublishLogs"
#define ASSIGN   "/docker.swarmkit.v1.Dispatcher/Assignments"

static struct sw_loop *loop;
static struct h2_conn *conn;
static bool ready, closed;
static unsigned running;
static char *root_pem;

static void die(const char *what)
{
	fprintf(stderr, "wire_probe: %s\n", what);
	exit(EXIT_FAILURE);
}

static void on_ready(void *arg)
{
	(void)arg;
	ready = true;
}

static void on_closed(void *arg, const struct sw_err *err)
{
	(void)arg;
	if (err)
		die(err->msg);
	closed = true;
}

static void on_timeout(void *arg)
{
	die(arg);
}

static void wait_for(const bool *flag, const char *what)
{
	struct sw_timer t;

	sw_timer_init(&t, loop, on_timeout, (void *)(uintptr_t)what);
	sw_timer_arm(&t, sw_s(20));
	while (!*flag)
		sw_loop_once(loop, true);
	sw_timer_stop(&t);
}

static void on_root(void *arg, const ProtobufCMessage *m, const struct sw_err *err)
{
	const Pb__GetRootCACertificateResponse *r = (const void *)m;

	(void)arg;
	if (err)
		die(err->msg);
	free(root_pem);
	root_pem = xstrndup((const char *)r->certificate.data, r->certificate.len);
	running--;
}

static void on_issued(void *arg, const ProtobufCMessage *m, const struct sw_err *err)
{
	(void)arg;
	if (err)
		die(err->msg);
	printf("node %s\n", ((const Pb__IssueNodeCertificateResponse *)(const void *)m)->node_id);
	running--;
}

/* Calls that must be refused, with which code. */
struct refused {
	const char *what;
	int code;
};

static void on_refused(void *arg, const ProtobufCMessage *m, const struct sw_err *err)
{
	const struct refused *r = arg;

	(void)m;
	if (!err || err->domain != SW_E_GRPC || err->code != r->code) {
		fprintf(stderr, "%s: code %d, not %d: %s\n", r->what, err ? err->code : 0, r->code,
			err ? err->msg : "");
		exit(EXIT_FAILURE);
	}
	printf("%s: %s\n", r->what, err->msg);
	running--;
}

static void on_end(void *arg, const struct sw_err *err)
{
	on_refused(arg, NULL, err);
}

static bool on_message(void *arg, const ProtobufCMessage *m)
{
	(void)arg;
	(void)m;
	die("a message where none was allowed");
	return false;
}

static const struct grpc_stream_events refused_events = {on_message, on_end, NULL};

static void get_root(void)
{
	Pb__GetRootCACertificateRequest req = PB__GET_ROOT_CACERTIFICATE_REQUEST__INIT;

	running++;
	grpc_unary(conn, GET_ROOT, &req.base, &pb__get_root_cacertificate_response__descriptor,
		sw_s(5), on_root, NULL);
}

static void phantom(const char *token)
{
	Pb__IssueNodeCertificateRequest req = PB__ISSUE_NODE_CERTIFICATE_REQUEST__INIT;
	static const char csr[] = "no csr";

	running++;
	req.token = (char *)(uintptr_t)token;
	req.csr.data = (uint8_t *)(uintptr_t)csr;
	req.csr.len = sizeof(csr);
	grpc_unary(conn, ISSUE, &req.base, &pb__issue_node_certificate_response__descriptor,
		sw_s(5), on_issued, NULL);
}

static void many_calls(void)
{
	static struct refused unknown = {"unknown method", GRPC_UNIMPLEMENTED},
			      publish = {"PublishLogs without a certificate",
				      GRPC_PERMISSION_DENIED},
			      assign = {
				      "Assignments without a certificate", GRPC_PERMISSION_DENIED};
	Pb__AssignmentsRequest req = PB__ASSIGNMENTS_REQUEST__INIT;
	Pb__PublishLogsMessage log = PB__PUBLISH_LOGS_MESSAGE__INIT;
	struct grpc_call *call;

	for (int i = 0; i < 100; i++)
		get_root();
	running += 3;
	grpc_unary(conn, "/docker.swarmkit.v1.CA/Nothing", &req.base,
		&pb__get_root_cacertificate_response__descriptor, sw_s(5), on_refused, &unknown);
	grpc_server_stream(conn, ASSIGN, &req.base, &pb__assignments_message__descriptor,
		&refused_events, &assign);
	/* the manager answers before this ends: trap 10 */
	call = grpc_client_stream(
		conn, PUBLISH, &pb__publish_logs_response__descriptor, &refused_events, &publish);
	log.subscription_id = (char *)(uintptr_t) "none";
	grpc_send(call, &log.base);
}

static char *slurp(const char *path)
{
	FILE *f = fopen(path, "rb");
	char *s = xcalloc(1, 1u << 20);

	if (!f || fread(s, 1, (1u << 20) - 1, f) == 0)
		die("the root certificates cannot be read");
	fclose(f);
	return s;
}

int main(int argc, char **argv)
{
	static const struct h2_conn_events events = {.ready = on_ready, .closed = on_closed};
	struct tls_config cfg = {.name = "swarm-ca"};
	struct tls_creds *creds;
	struct h2_conn_info info;
	struct sw_err err;
	char *roots = NULL;
	bool is_root;

	if (argc < 4)
		die("COMMAND ADDR FILE [...]");
	is_root = strcmp(argv[1], "root") == 0;
	if (!is_root)
		cfg.roots_pem = roots = slurp(argv[3]);
	if (sw_loop_new(&loop, &err) < 0 || tls_creds_new(&creds, &cfg, &err) < 0 ||
		h2_conn_new(&conn, loop, argv[2], creds, sw_s(5), &events, NULL, &err) < 0)
		die(err.msg);
	wait_for(&ready, "no connection");
	h2_conn_info(conn, &info);
	printf("%s %s, ALPN %s\n", info.tls_version, info.cipher,
		info.alpn ? "answered" : "silent");
	for (int round = 0; round < 2; round++) {
		bool done = false;

		if (is_root)
			get_root();
		else if (strcmp(argv[1], "phantom") == 0 && argc == 5 && round == 0)
			phantom(argv[4]);
		else if (strcmp(argv[1], "check") == 0 && argc == 5) {
			if (info.alpn != (strcmp(argv[4], "yes") == 0))
				die("ALPN is not as expected");
			many_calls();
		}
		while (!done) {
			sw_loop_once(loop, running > 0);
			done = running == 0;
		}
	}
	if (is_root) {
		FILE *f = fopen(argv[3], "wb");

		if (!f || fputs(root_pem, f) < 0 || fclose(f) != 0)
			die("the root certificates cannot be written");
	}
	h2_conn_close(conn);
	wait_for(&closed, "the connection does not close");
	tls_creds_unref(creds);
	free(roots);
	free(root_pem);
	return sw_loop_free(loop) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
