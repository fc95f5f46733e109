/* A COMPLETE of 10,000 tasks as a manager sends them: what a task costs in memory, how long the
 * loop is held at most. The figures are printed; only the memory is judged (and not under a
 * sanitizer, which has an allocator of its own). */
#include "fakeexec.h"
#include "fakesource.h"
#include "store_help.h"
#include "test.h"
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <swarm/agent.h>
#include <swarm/log.h>
#include <swarm/mem.h>
#include <time.h>

#define N 10000

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

static Pb__StringPair pair(const char *k, const char *v)
{
	Pb__StringPair p = PB__STRING_PAIR__INIT;

	p.key = (char *)(uintptr_t)k;
	p.value = (char *)(uintptr_t)v;
	return p;
}

/* About what "docker service create" with some options makes. */
static Pb__Task *real_task(const char *id)
{
	Pb__Task *t = fake_task(id, 512, 192), *ret;
	Pb__ContainerSpec *c = t->spec->container;
	Pb__StringPair l1 = pair("com.docker.stack.namespace", "shop"),
		       l2 = pair("com.docker.stack.image", "registry.example.org/shop/web:1.2.3");
	Pb__StringPair *labels[] = {&l1, &l2};
	char *env[] = {(char *)(uintptr_t) "DATABASE_URL=postgres://db.internal:5432/shop",
		(char *)(uintptr_t) "LOG_LEVEL=info", (char *)(uintptr_t) "PORT=8080",
		(char *)(uintptr_t) "CACHE=redis://cache.internal:6379"};
	Pb__Placement placement = PB__PLACEMENT__INIT;
	char *constraints[] = {(char *)(uintptr_t) "node.role==worker"};
	Pb__ResourceRequirements res = PB__RESOURCE_REQUIREMENTS__INIT;
	Pb__Resources limits = PB__RESOURCES__INIT;
	Pb__RestartPolicy restart = PB__RESTART_POLICY__INIT;
	Pb__Endpoint ep = PB__ENDPOINT__INIT;
	Pb__EndpointSpec eps = PB__ENDPOINT_SPEC__INIT;
	Pb__Duration grace = PB__DURATION__INIT;

	c->labels = labels;
	c->n_labels = 2;
	c->env = env;
	c->n_env = 4;
	c->stop_grace_period = &grace;
	grace.seconds = 10;
	placement.constraints = constraints;
	placement.n_constraints = 1;
	t->spec->placement = &placement;
	limits.memory_bytes = 1 << 28;
	res.limits = &limits;
	t->spec->resources = &res;
	t->spec->restart = &restart;
	ep.spec = &eps;
	t->endpoint = &ep;
	ret = (Pb__Task *)(void *)api_dup(&t->base);
	c->labels = NULL;
	c->env = NULL;
	c->n_labels = c->n_env = 0;
	c->stop_grace_period = NULL;
	t->spec->placement = NULL;
	t->spec->resources = NULL;
	t->spec->restart = NULL;
	t->endpoint = NULL;
	api_free(t);
	return ret;
}

static Pb__AssignmentsMessage *complete(void)
{
	Pb__AssignmentsMessage *m = fake_message(true);

	for (int i = 0; i < N; i++) {
		char id[32];

		snprintf(id, sizeof(id), "task%021d", i);
		fake_add_task(m, real_task(id), false);
	}
	return m;
}

static uint64_t now_us(void)
{
	return uv_hrtime() / 1000;
}

/* Of this thread: what others on the machine take does not count. */
static uint64_t cpu_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

/* Rounds of the loop until @done; the longest, in CPU time. */
static uint64_t run_until(struct sw_loop *l, bool (*done)(void *arg), void *arg)
{
	uint64_t longest = 0;

	while (!done(arg)) {
		uint64_t t0 = cpu_us(), t;

		sw_loop_once(l, false);
		t = cpu_us() - t0;
		if (t > 8000 && getenv("SLOW"))
			print_message("slow %llu\n", (unsigned long long)t);
		longest = t > longest ? t : longest;
		if (!done(arg))
			sw_loop_once(l, true); /* waits for the pool or a timer; not counted */
	}
	return longest;
}

struct env {
	struct sh sh;
	struct fakeexec *x;
	struct fakesource *src;
	struct agent *agent;
	unsigned want_done;
	size_t want_running;
	bool stopped;
};

static bool is_started(void *arg)
{
	return fakesource_started(((struct env *)arg)->src);
}

static bool is_applied(void *arg)
{
	struct env *e = arg;

	return fakesource_done(e->src) >= e->want_done;
}

static bool is_settled(void *arg)
{
	struct env *e = arg;
	struct agent_stats st;
	struct store_stats ss;

	agent_stats(e->agent, &st);
	store_stats(e->sh.store, &ss);
	return st.running == e->want_running && !st.pending_reports && !ss.queued && !st.removing;
}

static bool is_stopped(void *arg)
{
	return ((struct env *)arg)->stopped;
}

static void on_stopped(void *arg)
{
	((struct env *)arg)->stopped = true;
}

static void test_many(void **state)
{
	struct env e = {.want_done = 1, .want_running = N};
	struct agent_config cfg = {.node_id = FAKE_NODE};
	struct sw_err err;
	size_t before, after, packed;
	uint64_t t0, longest;
	Pb__AssignmentsMessage *m;
	Pb__Task *sample = real_task("task000000000000000000001");

	(void)state;
	packed = protobuf_c_message_get_packed_size(&sample->base);
	api_free(sample);
	log_set_level(LOG_L_ERR);
	sh_init(&e.sh);
	assert_int_equal(sh_open(&e.sh, &err), 0);
	e.x = fakeexec_new(e.sh.loop);
	e.src = fakesource_new(e.sh.loop);
	cfg.loop = e.sh.loop;
	cfg.store = e.sh.store;
	cfg.executor = fakeexec_executor(e.x);
	cfg.source = fakesource_source(e.src);
	assert_int_equal(agent_new(&e.agent, &cfg, NULL, NULL, &err), 0);
	assert_int_equal(agent_start(e.agent, &err), 0);
	run_until(e.sh.loop, is_started, &e);
	fakesource_register(e.src);
	for (int i = 0; i < N; i++) { /* the fakes' records are not the agent's memory */
		char id[32];

		snprintf(id, sizeof(id), "task%021d", i);
		fakeexec_record(e.x, id);
	}
	before = mallinfo2().uordblks;
	m = complete();
	t0 = now_us();
	fakesource_send(e.src, m);
	longest = run_until(e.sh.loop, is_applied, &e);
	print_message(
		"10,000 tasks (%zu bytes packed each) assigned: durable and applied after %llu ms, "
		"longest loop round %llu us\n",
		packed, (unsigned long long)(now_us() - t0) / 1000, (unsigned long long)longest);
	longest = run_until(e.sh.loop, is_settled, &e);
	print_message(
		"all RUNNING, stored and reported after %llu ms, longest loop round %llu us\n",
		(unsigned long long)(now_us() - t0) / 1000, (unsigned long long)longest);
	/* the same again, as after every registration */
	e.want_done = 2;
	m = complete();
	t0 = now_us();
	fakesource_send(e.src, m);
	longest = run_until(e.sh.loop, is_applied, &e);
	print_message("the same COMPLETE again: %llu ms, longest loop round %llu us\n",
		(unsigned long long)(now_us() - t0) / 1000, (unsigned long long)longest);
	fakesource_forget_requests(e.src);
	after = mallinfo2().uordblks;
	if (!SANITIZED) {
		/* fakes: a controller and what the manager was told stay on the heap too */
		print_message("memory: %zu bytes per task, fakes included\n", (after - before) / N);
		assert_true((after - before) / N < 6144); /* the goal is 4 KiB without them */
	}
	e.want_done = 3;
	e.want_running = 0;
	t0 = now_us();
	fakesource_send(e.src, fake_message(true));
	longest = run_until(e.sh.loop, is_applied, &e);
	run_until(e.sh.loop, is_settled, &e);
	print_message("all removed after %llu ms, longest loop round until applied %llu us\n",
		(unsigned long long)(now_us() - t0) / 1000, (unsigned long long)longest);
	assert_int_equal(fakeexec_violations(e.x), 0);
	assert_int_equal(fakeexec_containers(e.x), 0);
	agent_stop(e.agent, sw_s(1), on_stopped, &e);
	run_until(e.sh.loop, is_stopped, &e);
	agent_free(e.agent);
	fakesource_free(e.src);
	fakeexec_free(e.x);
	sh_done(&e.sh);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_many)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
