/* tool.h - what the stand-alone test peers share: end on SIGTERM or SIGINT. */
#pragma once
#include <uv.h>

struct tool_signals {
	uv_signal_t term, intr;
};

static inline void tool_signals_start(
	struct tool_signals *s, uv_loop_t *uv, uv_signal_cb *cb, void *data)
{
	uv_signal_init(uv, &s->term);
	uv_signal_init(uv, &s->intr);
	s->term.data = s->intr.data = data;
	uv_signal_start(&s->term, cb, SIGTERM);
	uv_signal_start(&s->intr, cb, SIGINT);
}

static inline void tool_signals_close(struct tool_signals *s)
{
	uv_close((uv_handle_t *)&s->term, NULL);
	uv_close((uv_handle_t *)&s->intr, NULL);
}
