/* swarm-testmanager DIR SERVICE REPLICAS IMAGE [ARG...]: the tests' manager as a program. Writes
 * DIR/addr and DIR/token, creates the service, and keeps DIR/nodes and DIR/tasks, tables for
 * people, up to date. SIGUSR1 removes the service. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <swarm/api.h>
#include <swarm/err.h>
#include <swarm/loop.h>
#include <swarm/mem.h>

#include "testmanager.h"

#define LOOK_NS sw_ms(100)

struct tool {
	struct sw_loop *loop;
	struct testmanager *tm;
	const char *dir, *service;
	struct sw_timer look;
	uv_signal_t sig[3];
	char *nodes, *tasks; /* as last written */
};

/* As a whole or not at all: readers poll. */
static void put_file(const struct tool *t, const char *name, const char *text)
{
	sw_auto_free char *path = xasprintf("%s/%s", t->dir, name);
	sw_auto_free char *tmp = xasprintf("%s.new", path);
	FILE *f = fopen(tmp, "w");

	if (!f || fputs(text, f) < 0 || fclose(f) != 0 || rename(tmp, path) < 0) {
		perror(tmp);
		exit(1);
	}
}

static char *node_table(const struct tool *t)
{
	struct tm_node n[16];
	size_t count = tm_nodes(t->tm, n, SW_ARRAY_LEN(n)), len;
	char *text;
	FILE *f = open_memstream(&text, &len);

	fprintf(f, "%-28s%-12s%-8s%s\n", "ID", "HOSTNAME", "STATUS", "ENGINE VERSION");
	for (size_t i = 0; i < count && i < SW_ARRAY_LEN(n); i++) {
		const Pb__NodeDescription *d = n[i].description;

		fprintf(f, "%-28s%-12s%-8s%s\n", n[i].id, d && d->hostname ? d->hostname : "",
			n[i].ready ? "Ready" : "Down",
			d && d->engine && d->engine->engine_version ? d->engine->engine_version
								    : "");
	}
	fclose(f);
	return text;
}

static char *task_table(const struct tool *t)
{
	struct tm_task k[64];
	size_t count = tm_tasks(t->tm, NULL, k, SW_ARRAY_LEN(k)), len;
	char *text;
	FILE *f = open_memstream(&text, &len);

	fprintf(f, "%-28s%-10s%-15s%-15s%s\n", "ID", "NAME", "DESIRED STATE", "CURRENT STATE",
		"ERROR");
	for (size_t i = 0; i < count && i < SW_ARRAY_LEN(k); i++) {
		sw_auto_free char *name = xasprintf(
			"%s.%llu", k[i].service ? k[i].service : "", (unsigned long long)k[i].slot);

		fprintf(f, "%-28s%-10s%-15s%-15s%s\n", k[i].id, name, api_state_name(k[i].desired),
			api_state_name(k[i].state), k[i].err ? k[i].err : "");
	}
	fclose(f);
	return text;
}

static void replace(const struct tool *t, const char *name, char **last, char *text)
{
	if (!sw_streq(*last, text))
		put_file(t, name, text);
	free(*last);
	*last = text;
}

static void on_look(void *arg)
{
	struct tool *t = arg;

	replace(t, "nodes", &t->nodes, node_table(t));
	replace(t, "tasks", &t->tasks, task_table(t));
	sw_timer_arm(&t->look, LOOK_NS);
}

static void on_signal(uv_signal_t *h, int signum)
{
	struct tool *t = h->data;

	if (signum == SIGUSR1)
		tm_service_remove(t->tm, t->service);
	else
		sw_loop_stop(t->loop);
}

int main(int argc, char **argv)
{
	struct sw_err err = SW_ERR_NONE;
	struct tool t = {0};
	static const int signums[] = {SIGTERM, SIGINT, SIGUSR1};
	struct tm_config cfg = {.orchestrate = true};
	bool done = false;

	if (argc < 5) {
		fprintf(stderr, "usage: swarm-testmanager DIR SERVICE REPLICAS IMAGE [ARG...]\n");
		return 2;
	}
	t.dir = argv[1];
	t.service = argv[2];
	if (sw_loop_new(&t.loop, &err) < 0 || testmanager_new(&t.tm, t.loop, &cfg) < 0) {
		fprintf(stderr, "swarm-testmanager: cannot start\n");
		return 1;
	}
	put_file(&t, "addr", tm_addr(t.tm, 0));
	put_file(&t, "token", tm_token(t.tm, PB__NODE_ROLE__WORKER));
	tm_service_create(t.tm, t.service,
		&(struct tm_service){.image = argv[4],
			.args = (const char *const *)argv + 5,
			.n_args = (size_t)(argc - 5),
			.replicas = (unsigned)strtoul(argv[3], NULL, 10)});
	for (int i = 0; i < 3; i++) {
		uv_signal_init(sw_loop_uv(t.loop), &t.sig[i]);
		t.sig[i].data = &t;
		uv_signal_start(&t.sig[i], on_signal, signums[i]);
	}
	sw_timer_init(&t.look, t.loop, on_look, &t);
	on_look(&t);
	sw_loop_run(t.loop);

	sw_timer_stop(&t.look);
	for (int i = 0; i < 3; i++)
		uv_close((uv_handle_t *)&t.sig[i], NULL);
	testmanager_close(t.tm, &done);
	free(t.nodes);
	free(t.tasks);
	return sw_loop_free(t.loop) == 0 ? 0 : 1;
}
