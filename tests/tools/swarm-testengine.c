/* swarm-testengine SOCKET [IMAGE...]: the tests' engine as a program. Containers are pretended, see
 * testengine.h for what their command lines do. */
#include <stdio.h>
#include <string.h>
#include <swarm/err.h>
#include <swarm/loop.h>
#include <unistd.h>

#include "testengine.h"
#include "tool.h"

static void on_signal(uv_signal_t *h, int signum)
{
	(void)signum;
	sw_loop_stop(h->data);
}

int main(int argc, char **argv)
{
	struct sw_err err = SW_ERR_NONE;
	struct sw_loop *loop;
	struct testengine *te;
	struct tool_signals sig;

	if (argc < 2) {
		fprintf(stderr, "usage: swarm-testengine SOCKET [IMAGE...]\n");
		return 2;
	}
	unlink(argv[1]);
	if (sw_loop_new(&loop, &err) < 0 ||
		testengine_new(
			&te, loop, &(struct testengine_config){.socket_path = argv[1]}, &err) < 0) {
		fprintf(stderr, "swarm-testengine: %s\n", err.msg);
		return 1;
	}
	for (int i = 2; i < argc; i++)
		testengine_image_add(te, argv[i]);
	tool_signals_start(&sig, sw_loop_uv(loop), on_signal, loop);
	sw_loop_run(loop);
	tool_signals_close(&sig);
	testengine_close(te, NULL, NULL);
	sw_loop_run(loop);
	return sw_loop_free(loop) == 0 ? 0 : 1;
}
