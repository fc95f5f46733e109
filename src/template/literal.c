/* What the literals of a template say. */
#include "tmpl.h"

#include <string.h>
#include <swarm/mem.h>

static int digit(char c)
{
	return c >= '0' && c <= '9'   ? c - '0'
	       : c >= 'a' && c <= 'f' ? c - 'a' + 10
	       : c >= 'A' && c <= 'F' ? c - 'A' + 10
				      : 99;
}

/* --- numbers ---------------------------------------------------------------------------------- */

/* Go's spelling: 0x 0o 0b, 0 before octal, _ only between digits or after the base. */
enum number read_int(struct span s, int64_t *ret)
{
	bool minus = s.n && s.p[0] == '-', digits = false, gap = true;
	size_t i = s.n && (s.p[0] == '-' || s.p[0] == '+');
	uint64_t x = 0, base = 10, max = (uint64_t)INT64_MAX + minus;

	if (i + 1 < s.n && s.p[i] == '0') {
		char c = s.p[i + 1] | 0x20;

		base = c == 'x' ? 16 : c == 'b' ? 2 : 8;
		i += c == 'x' || c == 'b' || c == 'o' ? 2 : 1;
		digits = base == 8 && c != 'o';
		gap = false;
	}
	for (; i < s.n; i++) {
		uint64_t d = (uint64_t)digit(s.p[i]);

		if (s.p[i] == '_' && !gap) {
			gap = true;
			continue;
		}
		if (d >= base)
			return NUM_BAD;
		if (x > (max - d) / base)
			return NUM_TOO_BIG;
		x = x * base + d;
		digits = true;
		gap = false;
	}
	if (!digits || gap)
		return NUM_BAD;
	*ret = (int64_t)(minus ? 0 - x : x);
	return NUM_OK;
}

/* --- text ------------------------------------------------------------------------------------- */

/* @n digits of base 1 << @bits at @s. */
static bool digits(struct span s, size_t n, unsigned bits, uint32_t *ret)
{
	uint32_t x = 0;

	if (s.n < n)
		return false;
	for (size_t i = 0; i < n; i++) {
		int d = digit(s.p[i]);

		if (d >= 1 << bits)
			return false;
		x = x << bits | (uint32_t)d;
	}
	*ret = x;
	return true;
}

/* One character or escape of a literal in @quote. How many bytes of @s it was, 0: bad. @is_byte: \x
 * and octal escapes make bytes, the others characters. */
static size_t unescape(struct span s, char quote, uint32_t *c, bool *is_byte)
{
	static const struct {
		char name, is;
	} simple[] = {{'a', '\a'}, {'b', '\b'}, {'f', '\f'}, {'n', '\n'}, {'r', '\r'}, {'t', '\t'},
		{'v', '\v'}, {'\\', '\\'}};
	static const struct {
		char name;
		size_t skip, n;
		unsigned bits;
	} coded[] = {{'x', 2, 2, 4}, {'u', 2, 4, 4}, {'U', 2, 8, 4}};

	*is_byte = false;
	if (s.p[0] != '\\')
		return s.p[0] == quote || s.p[0] == '\n' ? 0 : utf8_get(s.p, s.n, c);
	if (s.n < 2)
		return 0;
	if (s.p[1] == quote) {
		*c = (unsigned char)quote;
		return 2;
	}
	for (size_t i = 0; i < SW_ARRAY_LEN(simple); i++) {
		if (s.p[1] == simple[i].name) {
			*c = (unsigned char)simple[i].is;
			return 2;
		}
	}
	for (size_t i = 0; i < SW_ARRAY_LEN(coded); i++) {
		if (s.p[1] != coded[i].name)
			continue;
		*is_byte = coded[i].name == 'x';
		if (!digits((struct span){s.p + 2, s.n - 2}, coded[i].n, coded[i].bits, c) ||
			*c > 0x10ffff || (*c >= 0xd800 && *c < 0xe000))
			return 0;
		return 2 + coded[i].n;
	}
	*is_byte = true;
	return digits((struct span){s.p + 1, s.n - 1}, 3, 3, c) && *c < 256 ? 4 : 0;
}

static bool unquote_raw(struct span in, char *out, size_t *n)
{
	*n = 0;
	for (size_t i = 0; i < in.n; i++) {
		if (in.p[i] != '\r') /* as in Go: a file with CR LF says the same */
			out[(*n)++] = in.p[i];
	}
	return true;
}

static bool unquote_escaped(struct span in, char *out, size_t *n)
{
	*n = 0;
	for (size_t i = 0; i < in.n;) {
		struct span rest = {in.p + i, in.n - i};
		bool is_byte;
		uint32_t c;
		size_t used = unescape(rest, '"', &c, &is_byte);

		if (used == 0)
			return false;
		if (is_byte)
			out[(*n)++] = (char)c;
		else
			*n += utf8_put(out + *n, c);
		i += used;
	}
	return true;
}

int unquote(struct tmpl *t, struct span s, struct span *ret)
{
	struct span in = {s.p + 1, s.n - 2};
	bool raw = s.p[0] == '`', plain = true;
	char *out;
	size_t n = 0;

	for (size_t i = 0; i < in.n && plain; i++)
		plain = raw ? in.p[i] != '\r' : in.p[i] != '\\' && !(in.p[i] & 0x80);
	if (plain) {
		*ret = in;
		return 0;
	}
	/* a byte that is not UTF-8 becomes the three of U+FFFD; every escape is longer than what it
	 * stands for */
	out = tmpl_alloc(t, in.n * 3);
	if (!out)
		return tmpl_code(t);
	if (!(raw ? unquote_raw : unquote_escaped)(in, out, &n))
		return tmpl_fail(t, "invalid syntax in a string");
	*ret = (struct span){out, n};
	return 0;
}

bool unquote_char(struct span s, uint32_t *ret)
{
	bool is_byte;

	return s.n > 0 && unescape(s, '\'', ret, &is_byte) == s.n;
}
