/* swarm-testengine --socket PATH [--image REF]... [--hostname NAME]: the test engine as a program,
 * for machines where no real engine can run. Ends on SIGTERM and SIGINT. */
#include <getopt.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <swarm/err.h>
#include <swarm/loop.h>

#include "testengine.h"

struct tool {
	struct testengine *te;
	uv_signal_t sig[2];
	bool ending;
};

static void on_signal(uv_signal_t *s, int n)
{
	struct tool *t = s->data;

	(void)n;
	if (t->ending)
		return;
	t->ending = true;
	testengine_close(t->te, NULL, NULL);
	for (int i = 0; i < 2; i++)
		uv_close((uv_handle_t *)&t->sig[i], NULL);
}

static int usage(FILE *f, int code)
{
	(void)fprintf(f,
		"usage: swarm-testengine --socket PATH [--image REF]... [--hostname NAME]\n"
		"A Docker Engine for tests: its containers are made up.\n");
	return code;
}

int main(int argc, char **argv)
{
	static const struct option opts[] = {{"socket", required_argument, NULL, 's'},
		{"image", required_argument, NULL, 'i'}, {"hostname", required_argument, NULL, 'n'},
		{"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
	static const int signals[] = {SIGTERM, SIGINT};
	struct testengine_config cfg = {0};
	const char **images = calloc((size_t)argc + 1, sizeof(char *));
	size_t n_images = 0;
	struct sw_loop *loop;
	struct tool t = {0};
	struct sw_err err;
	int c;

	if (!images)
		return EXIT_FAILURE;
	while ((c = getopt_long(argc, argv, "h", opts, NULL)) != -1) {
		if (c == 's')
			cfg.socket_path = optarg;
		else if (c == 'i')
			images[n_images++] = optarg;
		else if (c == 'n')
			cfg.hostname = optarg;
		else
			return usage(c == 'h' ? stdout : stderr, c == 'h' ? 0 : 2);
	}
	if (!cfg.socket_path || optind < argc)
		return usage(stderr, 2);
	if (sw_loop_new(&loop, &err) < 0 || testengine_new(&t.te, loop, &cfg, &err) < 0) {
		(void)fprintf(stderr, "swarm-testengine: %s\n", err.msg);
		return EXIT_FAILURE;
	}
	for (size_t i = 0; i < n_images; i++)
		testengine_image_add(t.te, images[i]);
	free(images);
	for (int i = 0; i < 2; i++) {
		uv_signal_init(sw_loop_uv(loop), &t.sig[i]);
		t.sig[i].data = &t;
		uv_signal_start(&t.sig[i], on_signal, signals[i]);
	}
	printf("listening on %s\n", cfg.socket_path);
	(void)fflush(stdout);
	sw_loop_run(loop);
	return sw_loop_free(loop) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
