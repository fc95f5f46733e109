/* log.h - structured log lines. Any thread.
 *
 *   log_info("task started", KS("task", t->id), KU("took_ms", ms));
 *   <6>task started task=x3k9 took_ms=412
 *
 * The message is constant, the facts are typed fields; quoting happens in one place. To stderr
 * with a "<N>" syslog prefix (systemd understands it), or as journal fields where JOURNAL_STREAM
 * names our stderr. Secrets have no field type: never pass one as KS. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

struct sw_err;

enum log_level {
	LOG_L_ERR = 3,
	LOG_L_WARNING = 4,
	LOG_L_NOTICE = 5,
	LOG_L_INFO = 6,
	LOG_L_DEBUG = 7
};

enum log_kind { LOG_K_END = 0, LOG_K_STR, LOG_K_INT, LOG_K_UINT, LOG_K_BOOL, LOG_K_ERR };

struct log_field {
	const char *key; /* constant, [a-z0-9_]+ */
	enum log_kind kind;
	union {
		const char *s;
		int64_t i;
		uint64_t u;
		const struct sw_err *e;
	} v;
};

#define KS(k, val) ((struct log_field){(k), LOG_K_STR, {.s = (val)}})
#define KI(k, val) ((struct log_field){(k), LOG_K_INT, {.i = (int64_t)(val)}})
#define KU(k, val) ((struct log_field){(k), LOG_K_UINT, {.u = (uint64_t)(val)}})
#define KB(k, val) ((struct log_field){(k), LOG_K_BOOL, {.i = (val) ? 1 : 0}})
/* An error: err="<message>" class=<class>. NULL or no error prints nothing. */
#define KERR(val) ((struct log_field){"err", LOG_K_ERR, {.e = (val)}})

#define LOG_FIELDS_(...) ((const struct log_field[]){__VA_ARGS__})
#define log_at(level, msg, ...)                                                                    \
	do {                                                                                       \
		if (log_enabled(level))                                                            \
			log_write((level), (msg),                                                  \
				(const struct log_field[]){                                        \
					__VA_ARGS__ __VA_OPT__(, ){NULL, LOG_K_END, {0}}});        \
	} while (0)
/* err: someone must act; warning: we go on (say how); notice: life cycle; info: per task;
 * debug: per call. */
#define log_err(...)     log_at(LOG_L_ERR, __VA_ARGS__)
#define log_warning(...) log_at(LOG_L_WARNING, __VA_ARGS__)
#define log_notice(...)  log_at(LOG_L_NOTICE, __VA_ARGS__)
#define log_info(...)    log_at(LOG_L_INFO, __VA_ARGS__)
#define log_debug(...)   log_at(LOG_L_DEBUG, __VA_ARGS__)

bool log_enabled(enum log_level level);
/* @fields ends with LOG_K_END. */
void log_write(enum log_level level, const char *msg, const struct log_field *fields);

void log_set_level(enum log_level level);
enum log_level log_get_level(void);
/* "err", "warning" ("warn"), "notice", "info", "debug" -> level, or -1. */
int log_level_parse(const char *name);
const char *log_level_name(enum log_level level);

/* Where finished lines go; NULL: stderr again. @line has no newline and no "<N>" prefix. For
 * tests; called with the log's own lock held. */
typedef void log_sink(void *arg, enum log_level level, const char *line);
void log_set_sink(log_sink *sink, void *arg);
