/* Quoting on the way out: html, js, urlquery, and %q of printf. */
#include "tmpl.h"

#include <stdio.h>
#include <string.h>
#include <swarm/mem.h>

static int add_hex(struct buf *b, const char *prefix, int digits, uint32_t r, bool upper)
{
	char s[16];
	int n = snprintf(s, sizeof(s), upper ? "%s%0*X" : "%s%0*x", prefix, digits, (unsigned)r);

	return buf_add(b, (struct span){s, (size_t)n});
}

/* --- for other languages ---------------------------------------------------------------------- */

/* The longest stretch of bytes that @special does not know goes out in one piece. */
static int escape_bytes(struct buf *b, struct span s, const char *(*special)(unsigned char c))
{
	size_t done = 0;
	int r = 0;

	for (size_t i = 0; i < s.n && r == 0; i++) {
		const char *as = special((unsigned char)s.p[i]);

		if (!as)
			continue;
		r = buf_add(b, (struct span){s.p + done, i - done});
		if (r == 0)
			r = buf_add(b, span_of(as));
		done = i + 1;
	}
	return r < 0 ? r : buf_add(b, (struct span){s.p + done, s.n - done});
}

static const char *html_special(unsigned char c)
{
	switch (c) {
	case '"':
		return "&#34;";
	case '\'':
		return "&#39;";
	case '&':
		return "&amp;";
	case '<':
		return "&lt;";
	case '>':
		return "&gt;";
	case '\0':
		return "\xef\xbf\xbd";
	default:
		return NULL;
	}
}

int escape_html(struct buf *b, struct span s)
{
	return escape_bytes(b, s, html_special);
}

int escape_query(struct buf *b, struct span s)
{
	int r = tmpl_charge(b->t, s.n);

	for (size_t i = 0; i < s.n && r == 0; i++) {
		unsigned char c = (unsigned char)s.p[i];

		if ((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
			(c && strchr("-_.~", c)))
			r = buf_byte(b, (char)c);
		else if (c == ' ')
			r = buf_byte(b, '+');
		else
			r = add_hex(b, "%", 2, c, true);
	}
	return r;
}

int escape_js(struct buf *b, struct span s)
{
	int r = tmpl_charge(b->t, s.n);

	for (size_t i = 0; i < s.n && r == 0;) {
		uint32_t c;
		size_t n = utf8_get(s.p + i, s.n - i, &c);

		if (c == '\\' || c == '\'' || c == '"') {
			r = buf_byte(b, '\\');
			if (r == 0)
				r = buf_byte(b, (char)c);
		} else if (c < ' ' || c == '<' || c == '>' || c == '&' || c == '=' ||
			   (c >= 0x80 && !rune_is_print(c))) {
			r = add_hex(b, "\\u", 4, c, true);
		} else {
			r = buf_add(b, (struct span){s.p + i, n});
		}
		i += n;
	}
	return r;
}

/* --- Go's own quotes, out --------------------------------------------------------------------- */

static int quote_one(struct buf *b, struct span raw, uint32_t c, char quote)
{
	static const char names[] = "abtnvfr"; /* 7 to 13 */

	if (c == (unsigned char)quote || c == '\\') {
		char two[2] = {'\\', (char)c};

		return buf_add(b, (struct span){two, 2});
	}
	if (rune_is_print(c))
		return buf_add(b, raw);
	if (c >= '\a' && c <= '\r') {
		char two[2] = {'\\', names[c - '\a']};

		return buf_add(b, (struct span){two, 2});
	}
	if (c < ' ' || c == 0x7f)
		return add_hex(b, "\\x", 2, c, false);
	return c < 0x10000 ? add_hex(b, "\\u", 4, c, false) : add_hex(b, "\\U", 8, c, false);
}

int escape_quote(struct buf *b, struct span s)
{
	int r = buf_byte(b, '"');

	for (size_t i = 0; i < s.n && r == 0;) {
		uint32_t c;
		size_t n = utf8_get(s.p + i, s.n - i, &c);

		if (c == 0xfffd && n == 1)
			r = add_hex(b, "\\x", 2, (unsigned char)s.p[i], false);
		else
			r = quote_one(b, (struct span){s.p + i, n}, c, '"');
		i += n;
	}
	return r < 0 ? r : buf_byte(b, '"');
}

int escape_quote_rune(struct buf *b, uint32_t c)
{
	char raw[4];
	struct span s = {raw, utf8_put(raw, c)};
	int r = buf_byte(b, '\'');

	(void)utf8_get(s.p, s.n, &c); /* what is no character has become U+FFFD */
	if (r == 0)
		r = quote_one(b, s, c, '\'');
	return r < 0 ? r : buf_byte(b, '\'');
}
