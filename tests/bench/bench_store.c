/* Durable status commits per second with 1, 16 and 256 in flight, beside what the same disk gives
 * at the same time for appends of one page with fdatasync (the least a durable write can cost), and
 * the time to open a store of 10,000 tasks and to read it. bench_store [--quick] [DIR] */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <swarm/err.h>
#include <swarm/log.h>
#include <swarm/loop.h>
#include <swarm/store.h>
#include <sys/stat.h>
#include <unistd.h>

#define N_TASKS    300
#define TASK_BYTES 1500

static uint64_t round_ns = 1000000000;
static int n_rounds = 5, n_known = 10000;
static struct sw_loop *loop;
static struct store *store;
static char dir[256], db[300];

static void fail(const char *what, const struct sw_err *err)
{
	fprintf(stderr, "bench_store: %s: %s\n", what, err ? err->msg : "failed");
	exit(EXIT_FAILURE);
}

static double per_s(uint64_t n, uint64_t ns)
{
	return (double)n * 1e9 / (double)ns;
}

/* ---- the disk alone */

static double raw(void)
{
	static char page[4096];
	char path[300];
	uint64_t start, n = 0, took;
	int fd;

	snprintf(path, sizeof(path), "%s/raw", dir);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		fail(path, NULL);
	start = uv_hrtime();
	do {
		if (write(fd, page, sizeof(page)) != sizeof(page) || fdatasync(fd) < 0)
			fail("fdatasync", NULL);
		n++;
		took = uv_hrtime() - start;
	} while (took < round_ns);
	close(fd);
	unlink(path);
	return per_s(n, took);
}

/* ---- the store */

static struct {
	uint64_t done, end;
	int in_flight, wanted;
	int64_t at;
} run;

static void fill(void);

static void on_done(void *arg, const struct sw_err *err)
{
	(void)arg;
	if (err)
		fail("commit", err);
	run.done++;
	run.in_flight--;
	if (uv_hrtime() < run.end)
		fill();
}

static void fill(void)
{
	for (; run.in_flight < run.wanted; run.in_flight++) {
		struct store_batch *b = store_batch_new();
		char id[32];
		struct store_status st = {.data = "0123456789012345678901234567890123456789",
			.data_len = 40,
			.state = 512,
			.message = "started",
			.at_ns = ++run.at,
			.container_id =
				"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"};

		snprintf(id, sizeof(id), "t%024d", (int)(run.at % N_TASKS));
		store_batch_status(b, id, &st, "bench");
		store_commit(store, b, on_done, NULL);
	}
}

static double commits(int in_flight)
{
	uint64_t start = uv_hrtime();

	run.done = 0;
	run.wanted = in_flight;
	run.end = start + round_ns;
	fill();
	while (run.in_flight)
		sw_loop_once(loop, true);
	return per_s(run.done, uv_hrtime() - start);
}

static void on_put(void *arg, const struct sw_err *err)
{
	if (err)
		fail("commit", err);
	*(bool *)arg = true;
}

static void put_tasks(int from, int to)
{
	static char data[TASK_BYTES];
	struct store_batch *b = store_batch_new();
	bool done = false;

	for (int i = from; i < to; i++) {
		char id[32];
		struct store_task t = {.task_id = id,
			.data = data,
			.data_len = sizeof(data),
			.desired_state = 512,
			.service_id = "svc",
			.service_name = "web",
			.name = "web.1",
			.image = "bb:1",
			.runtime = "container",
			.slot = 1};
		struct store_status st = {.data = data, .data_len = 60, .state = 192, .at_ns = 1};

		snprintf(id, sizeof(id), "t%024d", i);
		store_batch_task(b, &t);
		store_batch_status(b, id, &st, "assigned");
	}
	store_commit(store, b, on_put, &done);
	while (!done)
		sw_loop_once(loop, true);
}

static void on_closed(void *arg)
{
	*(bool *)arg = true;
}

static void shut(void)
{
	bool closed = false;

	store_close(store, on_closed, &closed);
	while (!closed)
		sw_loop_once(loop, true);
}

static int on_task(void *arg, const struct store_task *t)
{
	*(size_t *)arg += t->data_len;
	return 0;
}

static void open_it(void)
{
	struct sw_err err = SW_ERR_NONE;

	if (store_open(&store, loop, db, &err) < 0)
		fail("open", &err);
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static double median(double *v, int n)
{
	qsort(v, (size_t)n, sizeof(*v), by_value);
	return v[n / 2];
}

int main(int argc, char **argv)
{
	static const int flights[] = {1, 16, 256};
	double base[16], got[3][16], disk;
	uint64_t t0, t1, t2;
	size_t bytes = 0;
	const char *in = getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp";

	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--quick") == 0) {
			round_ns = 30000000;
			n_rounds = 1;
			n_known = 500;
		} else if (argv[i][0] != '-') {
			in = argv[i];
		} else {
			fprintf(stderr, "usage: %s [--quick] [DIR]\n", argv[0]);
			return EXIT_FAILURE;
		}
	}
	snprintf(dir, sizeof(dir), "%s/swarm-bench-XXXXXX", in);
	if (!mkdtemp(dir))
		fail(dir, NULL);
	snprintf(db, sizeof(db), "%s/agent.db", dir);
	log_set_level(LOG_L_WARNING);
	if (sw_loop_new(&loop, NULL) < 0)
		fail("loop", NULL);
	open_it();
	run.at = (int64_t)sw_wall_ns();
	put_tasks(0, N_TASKS);
	for (int r = 0; r < n_rounds;
		r++) { /* in turns: the disk is not the same from second to second */
		base[r] = raw();
		for (int k = 0; k < 3; k++)
			got[k][r] = commits(flights[k]);
	}
	disk = median(base, n_rounds);
	printf("%-36s %12s %8s\n", "what", "per second", "ratio");
	printf("%-36s %12.0f %8.2f\n", "append of 4096 bytes + fdatasync", disk, 1.0);
	for (int k = 0; k < 3; k++) {
		double m = median(got[k], n_rounds);
		char what[64];

		snprintf(what, sizeof(what), "durable status, %d in flight", flights[k]);
		printf("%-36s %12.0f %8.2f\n", what, m, m / disk);
	}

	for (int i = N_TASKS; i < n_known; i += 100)
		put_tasks(i, i + 100 < n_known ? i + 100 : n_known);
	shut();
	t0 = uv_hrtime();
	open_it();
	t1 = uv_hrtime();
	if (store_load_tasks(store, on_task, &bytes, NULL) < 0)
		fail("load", NULL);
	t2 = uv_hrtime();
	if (bytes != (size_t)n_known * TASK_BYTES)
		fail("load: bytes missing", NULL);
	printf("%-36s %9.1f ms\n%-36s %9.1f ms   (%d tasks)\n", "open and check",
		(double)(t1 - t0) / 1e6, "load", (double)(t2 - t1) / 1e6, n_known);
	shut();
	if (sw_loop_free(loop) < 0)
		fail("loop not clean", NULL);
	unlink(db);
	snprintf(db, sizeof(db), "%s/agent.db.lock", dir);
	unlink(db);
	return rmdir(dir) < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
