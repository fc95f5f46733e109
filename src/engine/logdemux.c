/* Log streams into records. Without a TTY the engine sends frames: one byte
 * of stream number, three zeros, 32 bits of length, then the record; with a TTY it sends the
 * records alone, a line each. A record is "TIMESTAMP SP [DETAILS SP] DATA". Nothing is allocated by
 * a length that the peer only claims, and the data of a record is never copied. */
#include <errno.h>
#include <string.h>
#include <swarm/mem.h>

#include "engine-internal.h"

#define FRAME_HEAD  8u
#define MAX_FRAME   (1u << 20)
#define MAX_PART    16384u /* the engine splits longer lines */
#define MAX_STAMP   64u
#define MAX_DETAILS (64u << 10)
#define MAX_ATTRS   1024u

/* ---- RFC 3339 */

static bool digits(const char **p, const char *end, int n, int *v)
{
	*v = 0;
	for (; n; n--, (*p)++) {
		if (*p == end || **p < '0' || **p > '9')
			return false;
		*v = *v * 10 + (**p - '0');
	}
	return true;
}

static bool literal(const char **p, const char *end, char ch)
{
	return *p < end && *(*p)++ == ch;
}

/* Days since 1970-01-01 of a day in the Gregorian calendar, March first so that leap days come
 * last in their year. */
static int64_t days(int y, int m, int d)
{
	int64_t era, yoe, doy;

	y -= m <= 2;
	era = y / 400;
	yoe = y - era * 400;
	doy = (153 * (m + (m > 2 ? -3 : 9)) + 2) / 5 + d - 1;
	return era * 146097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719468;
}

int64_t engine_time_parse(const char *s, size_t n)
{
	const char *p = s, *end = s + n;
	int y, mo, d, h, mi, sec, oh = 0, om = 0, sign = 0;
	int64_t ns = 0, unit = 100000000, t;

	if (!digits(&p, end, 4, &y) || !literal(&p, end, '-') || !digits(&p, end, 2, &mo) ||
		!literal(&p, end, '-') || !digits(&p, end, 2, &d) || !literal(&p, end, 'T') ||
		!digits(&p, end, 2, &h) || !literal(&p, end, ':') || !digits(&p, end, 2, &mi) ||
		!literal(&p, end, ':') || !digits(&p, end, 2, &sec))
		return -1;
	if (y < 1970 || y > 2200 || mo < 1 || mo > 12 || d < 1 || d > 31 || h > 23 || mi > 59 ||
		sec > 60)
		return -1;
	if (p < end && *p == '.') {
		const char *first = ++p;

		for (; p < end && *p >= '0' && *p <= '9'; p++, unit /= 10)
			ns += (*p - '0') * unit;
		if (p == first)
			return -1;
	}
	if (p < end && (*p == '+' || *p == '-')) {
		sign = *p++ == '+' ? 1 : -1;
		if (!digits(&p, end, 2, &oh) || !literal(&p, end, ':') || !digits(&p, end, 2, &om))
			return -1;
	} else if (!literal(&p, end, 'Z')) {
		return -1;
	}
	if (p != end || oh > 23 || om > 59)
		return -1;
	t = ((days(y, mo, d) * 24 + h - sign * oh) * 60 + mi - sign * om) * 60 + sec;
	return t < 0 ? -1 : t * 1000000000 + ns;
}

/* ---- details: k=v,k=v, both URL-encoded */

static int hex(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static void unescape(char *s)
{
	char *w = s;

	for (; *s; s++) {
		if (*s == '%' && s[1] && hex(s[1]) >= 0 && hex(s[2]) >= 0) {
			*w++ = (char)(hex(s[1]) * 16 + hex(s[2]));
			s += 2;
		} else {
			*w++ = *s == '+' ? ' ' : *s;
		}
	}
	*w = '\0';
}

/* The pair behind the last one keeps the memory that the others point to. */
static void set_attrs(struct engine_log_record *rec, const char *details)
{
	struct engine_pair *p;
	char *text, *next;
	size_t n = 1, k = 0;

	if (sw_str_empty(details))
		return;
	for (const char *s = details; (s = strchr(s, ',')); s++)
		n++;
	if (n > MAX_ATTRS)
		n = MAX_ATTRS;
	p = xcalloc(n + 1, sizeof(*p));
	next = text = xstrdup(details);
	while (next && k < n) {
		char *item = strsep(&next, ","), *value = item;

		strsep(&value, "=");
		unescape(item);
		if (value)
			unescape(value);
		p[k++] = (struct engine_pair){item, value ? value : ""};
	}
	p[k].key = text;
	rec->attrs = p;
	rec->n_attrs = k;
}

void logdemux_release(struct engine_log_record *rec)
{
	if (rec->attrs)
		free((char *)rec->attrs[rec->n_attrs].key);
	free(take(rec->attrs));
	rec->n_attrs = 0;
	if (rec->data)
		chain_done(rec->data);
}

/* ---- the prefix of a record */

static int protocol(struct sw_err *err, const char *what)
{
	return sw_err_set(err, SW_TEMPORARY, -EPROTO, "log stream of the engine: %s", what);
}

/* The first @max bytes of @in up to a space. 1 with *@n bytes before it; 0: no space among what is
 * there, which is less than @max; -1: none within @max. */
static int to_space(const struct chain *in, size_t from, size_t max, size_t *n)
{
	ssize_t at = chain_find(in, from, ' ');

	if (at >= 0 && (size_t)at - from <= max) {
		*n = (size_t)at - from;
		return 1;
	}
	return chain_len(in) - from > max || at >= 0 ? -1 : 0;
}

/* Takes "TIMESTAMP SP [DETAILS SP]" off @in. 1, 0: not all there yet, or -1: it is none. */
static int take_prefix(struct logdemux *d, struct chain *in)
{
	char stamp[MAX_STAMP + 1];
	size_t n, m = 0;
	int64_t ns;
	int r = to_space(in, 0, MAX_STAMP, &n);

	if (r <= 0)
		return r;
	chain_peek(in, 0, stamp, n);
	ns = engine_time_parse(stamp, n);
	if (ns < 0)
		return -1;
	if (d->details) {
		r = to_space(in, n + 1, MAX_DETAILS, &m);
		if (r <= 0)
			return r;
	}
	d->rec.time_ns = ns;
	free(take(d->details_text));
	if (m) {
		d->details_text = calloc(1, m + 1);
		if (!d->details_text)
			return -1;
		chain_peek(in, n + 1, d->details_text, m);
	}
	chain_drain(in, n + 1 + (d->details ? m + 1 : 0));
	return 1;
}

static int give(struct logdemux *d, int stream, struct engine_log_record *rec)
{
	*rec = (struct engine_log_record){
		.stream = stream, .time_ns = d->rec.time_ns, .data = &d->line};
	set_attrs(rec, d->details_text);
	return 1;
}

/* ---- frames */

static int engines_error(const struct chain *payload, struct sw_err *err)
{
	char raw[SW_ERR_MSG_MAX], text[SW_ERR_MSG_MAX];
	size_t n = chain_peek(payload, 0, raw, sizeof(raw));

	engine_clean_text(text, sizeof(text), raw, n);
	return sw_err_setd(err, engine_error_class(500, text), SW_E_HTTP, 500, "%s", text);
}

static int next_frame(struct logdemux *d, struct chain *in, bool end, struct engine_log_record *rec,
	struct sw_err *err)
{
	uint8_t h[FRAME_HEAD];
	size_t n, len;

	n = chain_peek(in, 0, h, sizeof(h));
	for (size_t i = 0; i < n && i < 4; i++)
		if (i == 0 ? h[0] > 3 : h[i] != 0)
			return protocol(err, "bad frame header");
	if (n < sizeof(h))
		return n && end ? protocol(err, "ends within a frame header") : 0;
	len = (size_t)h[4] << 24 | (size_t)h[5] << 16 | (size_t)h[6] << 8 | h[7];
	if (len > MAX_FRAME)
		return protocol(err, "frame longer than 1 MiB");
	if (chain_len(in) < sizeof(h) + len)
		return end ? protocol(err, "ends within a frame") : 0;
	chain_drain(in, sizeof(h));
	chain_move(&d->line, in, len);
	if (h[0] == 3)
		return engines_error(&d->line, err);
	if (take_prefix(d, &d->line) != 1)
		return protocol(err, "record without a time stamp");
	return give(d, h[0] == 2 ? 2 : 1, rec);
}

/* ---- lines */

static int next_line(struct logdemux *d, struct chain *in, bool end, struct engine_log_record *rec,
	struct sw_err *err)
{
	ssize_t nl;
	size_t n;
	int r;

	if (!chain_len(in))
		return 0;
	if (d->state != LOGDEMUX_TEXT) {
		bool middle = d->state == LOGDEMUX_MIDDLE; /* a part of a long line was before it */

		r = take_prefix(d, in);
		if (r == 0 && !end)
			return 0;
		if (r != 1 && !middle)
			return protocol(err, "line without a time stamp");
		/* In mid-line a part has its own stamp; drivers that split elsewhere just go on. */
		d->state = LOGDEMUX_TEXT;
	}
	nl = chain_find(in, 0, '\n');
	if (nl >= 0 && (size_t)nl < MAX_PART) {
		n = (size_t)nl + 1;
		d->state = LOGDEMUX_PREFIX;
	} else if (chain_len(in) >= MAX_PART) {
		n = MAX_PART;
		d->state = LOGDEMUX_MIDDLE;
	} else if (end && chain_len(in)) {
		n = chain_len(in);
		d->state = LOGDEMUX_PREFIX;
	} else {
		return 0;
	}
	chain_move(&d->line, in, n);
	return give(d, 1, rec);
}

/* ---- door of this file */

void logdemux_init(struct logdemux *d, bool tty, bool details)
{
	*d = (struct logdemux){.tty = tty, .details = details, .state = LOGDEMUX_PREFIX};
}

void logdemux_done(struct logdemux *d)
{
	chain_done(&d->line);
	free(take(d->details_text));
}

int logdemux_next(struct logdemux *d, struct chain *in, bool end, struct engine_log_record *rec,
	struct sw_err *err)
{
	chain_done(&d->line);
	return d->tty ? next_line(d, in, end, rec, err) : next_frame(d, in, end, rec, err);
}
