/* The table of template_cases.h, payload functions, limits, and what must not leak: into errors,
 * and into memory that was given back. */
#include "template_cases.h"
#include "test.h"

#include <errno.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <swarm/err.h>
#include <swarm/mem.h>
#include <swarm/template.h>

#define MARK "S3CR3T-m4rk-of-a-payload"

/* --- memory watched --------------------------------------------------------------------------- */

static volatile bool watch; /* the compiler thinks it knows that free() does not look at it */
static int fail_in;         /* the how many'th allocation fails; 0: none */
static size_t n_allocs, n_leaky;

void *__real_malloc(size_t n);
void __real_free(void *p);
void *__wrap_malloc(size_t n);
void __wrap_free(void *p);

void *__wrap_malloc(size_t n)
{
	void *p;

	if (!watch)
		return __real_malloc(n);
	n_allocs++;
	if (fail_in && --fail_in == 0)
		return NULL;
	p = __real_malloc(n);
	if (p) /* or what somebody else left there is taken for ours */
		memset(p, 0, malloc_usable_size(p));
	return p;
}

void __wrap_free(void *p)
{
	if (watch && p && memmem(p, malloc_usable_size(p), "S3CR3T", 6))
		n_leaky++;
	__real_free(p);
}

/* --- data ------------------------------------------------------------------------------------- */

static const struct template_label labels[] = {{"a", "1"}, {"tier", "web <&>"}, {"b", "old"},
	{"com.example.x", "dotted"}, {"Z", "cap"}, {"empty", NULL}, {"b", "two"}};

static const struct template_data plain = {
	.service_id = "serviceid",
	.service_name = "web",
	.labels = labels,
	.n_labels = SW_ARRAY_LEN(labels),
	.node_id = "nodeid",
	.node_hostname = "vm",
	.node_os = "linux",
	.node_arch = "x86_64",
	.task_id = "taskid",
	.task_name = "web.1.taskid",
	.task_slot = "1",
};

static bool sensitive;
static int n_lookups;
static char *big;

static int lookup(void *arg, enum template_fn fn, const char *name, const char **ret,
	size_t *ret_len, struct sw_err *err)
{
	static const struct {
		enum template_fn fn;
		const char *name, *value;
	} known[] = {
		{TEMPLATE_SECRET, "sec", MARK},
		{TEMPLATE_SECRET, "tpl", "{{.Service.Name}}"},
		{TEMPLATE_SECRET, "verb", "%Q"},
		{TEMPLATE_SECRET, "empty", ""},
		{TEMPLATE_CONFIG, "conf", "a config"},
		{TEMPLATE_CONFIG, "self", "[{{config \"self\"}}]"},
		{TEMPLATE_ENV, "HOME", "/root"},
	};

	assert_ptr_equal(arg, &n_lookups);
	n_lookups++;
	if (strcmp(name, "later") == 0)
		return sw_err_set(err, SW_TEMPORARY, -EAGAIN, "not here yet");
	if (strcmp(name, "mute") == 0)
		return -EIO;
	if (strcmp(name, "nothing") == 0)
		return 0;
	if (strcmp(name, "big") == 0) {
		*ret = big;
		*ret_len = TEMPLATE_OUT_MAX;
		return 0;
	}
	for (size_t i = 0; i < SW_ARRAY_LEN(known); i++) {
		if (known[i].fn == fn && strcmp(known[i].name, name) == 0) {
			*ret = known[i].value;
			*ret_len = strlen(known[i].value);
			return 0;
		}
	}
	return -ENOENT;
}

static struct template_data payload(bool secret_text)
{
	struct template_data d = plain;

	d.lookup = lookup;
	d.lookup_arg = &n_lookups;
	d.secret_text = secret_text;
	d.sensitive = &sensitive;
	return d;
}

/* --- expectations ----------------------------------------------------------------------------- */

static int n_wrong;

static void wrong(const char *tpl, const char *want, const char *got)
{
	print_error("%s\n    wanted: %s\n       got: %s\n", tpl, want, got);
	n_wrong++;
}

static void expect(const struct template_data *d, const char *tpl, const char *out, const char *err)
{
	struct sw_err e = SW_ERR_NONE;
	char untouched, *ret = &untouched;
	size_t len = 4711;
	int r = template_expand(tpl, strlen(tpl), d, &ret, &len, &e);

	if (r == 0) {
		assert_int_equal(ret[len], '\0');
		if (!out || len != strlen(out) || memcmp(ret, out, len) != 0)
			wrong(tpl, out ? out : err, ret);
		free(ret);
	} else {
		assert_true(r < 0);
		assert_ptr_equal(ret, &untouched);
		assert_int_equal(len, 4711);
		assert_int_not_equal(e.cls, SW_OK);
		if (!err || strcmp(e.msg, err) != 0)
			wrong(tpl, out ? out : err, e.msg);
	}
}

static void none_wrong(void)
{
	int n = n_wrong;

	n_wrong = 0;
	assert_int_equal(n, 0);
}

static char *repeat(const char *before, const char *s, size_t n, const char *after)
{
	size_t len = strlen(s), head = strlen(before);
	char *p = xcalloc(1, head + len * n + strlen(after) + 1);

	memcpy(p, before, head);
	for (size_t i = 0; i < n; i++)
		memcpy(p + head + i * len, s, len);
	memcpy(p + head + n * len, after, strlen(after) + 1);
	return p;
}

/* Fails, with @part in the message. Takes @tpl. */
static void refused(const struct template_data *d, char *tpl, int code, const char *part)
{
	struct sw_err e = SW_ERR_NONE;
	char *ret = NULL;
	size_t len;

	assert_int_equal(template_expand(tpl, strlen(tpl), d, &ret, &len, &e), code);
	assert_int_equal(e.cls, SW_REJECTED);
	assert_null(ret);
	if (!strstr(e.msg, part))
		wrong("(limit)", part, e.msg);
	free(tpl);
}

static size_t expands(const struct template_data *d, char *tpl)
{
	struct sw_err e = SW_ERR_NONE;
	char *ret = NULL;
	size_t len = 0;

	if (template_expand(tpl, strlen(tpl), d, &ret, &len, &e) < 0)
		wrong("(limit)", "success", e.msg);
	free(ret);
	free(tpl);
	return len;
}

/* --- tests ------------------------------------------------------------------------------------ */

static void the_table(void **state)
{
	(void)state;
	assert_true(SW_ARRAY_LEN(template_cases) > 500);
	for (size_t i = 0; i < SW_ARRAY_LEN(template_cases); i++)
		expect(&plain, template_cases[i].tpl, template_cases[i].out, template_cases[i].err);
	none_wrong();
}

/* Where the payload functions exist nothing else changes, but for the top level as a whole. */
static void the_table_with_payloads(void **state)
{
	struct template_data d = payload(false);

	(void)state;
	for (size_t i = 0; i < SW_ARRAY_LEN(template_cases); i++) {
		const struct template_case *c = &template_cases[i];

		if (c->out && !strstr(c->out, "{serviceid web map["))
			expect(&d, c->tpl, c->out, NULL);
	}
	expect(&d, "{{.}}", NULL,
		"template: expansion:1:2: executing \"expansion\" at <.>: printing the top level "
		"(.) as a whole is not supported");
	assert_false(sensitive);
	none_wrong();
}

static void payload_functions(void **state)
{
	struct template_data d = payload(false);

	(void)state;
	expect(&d, "[{{secret \"sec\"}}]", "[" MARK "]", NULL);
	assert_true(sensitive);
	expect(&d, "{{config \"conf\"}} {{env \"HOME\"}}|{{env \"nope\"}}|", "a config /root||",
		NULL);
	assert_false(sensitive);
	/* taken as it is, no second round */
	expect(&d, "{{config \"self\"}}{{secret \"tpl\"}}",
		"[{{config \"self\"}}]{{.Service.Name}}", NULL);
	expect(&d, "{{\"sec\" | secret | printf \"%q\"}}", "\"" MARK "\"", NULL);
	expect(&d, "{{with secret \"empty\"}}x{{else}}none{{end}}{{config \"nothing\"}}", "none",
		NULL);
	expect(&d, "{{if eq (env \"HOME\") \"/root\"}}root{{end}}", "root", NULL);
	expect(&d, "{{$s := secret \"sec\"}}{{len $s}} {{slice $s 0 6}} {{index $s 1}}",
		"24 S3CR3T 51", NULL);
	expect(&d, "{{secret \"nope\"}}", NULL,
		"template: expansion:1:2: executing \"expansion\" at <secret \"nope\">: error "
		"calling "
		"secret: secret target nope not found");
	assert_true(sensitive);
	expect(&d, "text {{config \"nope\" | len}}", NULL,
		"template: expansion:1:7: executing \"expansion\" at <config \"nope\">: error "
		"calling "
		"config: config target nope not found");
	expect(&d, "{{secret}}", NULL,
		"template: expansion:1:2: executing \"expansion\" at <secret>: wrong number of "
		"args "
		"for secret: want 1 got 0");
	expect(&d, "{{secret 1}}", NULL,
		"template: expansion:1:9: executing \"expansion\" at <1>: expected string; found "
		"1");
	expect(&d, "{{env .Service.Labels}}", NULL,
		"template: expansion:1:14: executing \"expansion\" at <.Service.Labels>: wrong "
		"type "
		"for value; expected string; got map[string]string");
	none_wrong();
}

/* A name that no C string carries is unknown without asking. */
static void names_with_nul(void **state)
{
	struct template_data d = payload(false);

	(void)state;
	n_lookups = 0;
	expect(&d, "{{env \"HOME\\x00\"}}|", "|", NULL);
	expect(&d, "{{secret \"sec\\x00\"}}", NULL,
		"template: expansion:1:2: executing \"expansion\" at <secret \"sec\\x00\">: error "
		"calling secret: secret target sec? not found");
	assert_int_equal(n_lookups, 0);
	none_wrong();
}

static void lookup_errors(void **state)
{
	struct template_data d = payload(false);
	struct sw_err e = SW_ERR_NONE;
	char *ret = NULL;
	size_t len;

	(void)state;
	assert_int_equal(template_expand("{{secret \"later\"}}", 18, &d, &ret, &len, &e), -EAGAIN);
	assert_int_equal(e.cls, SW_TEMPORARY);
	assert_string_equal(e.msg,
		"template: expansion:1:2: executing \"expansion\" at <secret \"later\">: error "
		"calling secret: not here yet");
	assert_int_equal(template_expand("{{env \"mute\"}}", 14, &d, &ret, &len, &e), -EIO);
	assert_int_equal(e.cls, SW_TEMPORARY);
	assert_int_equal(template_expand("{{env \"mute\"}}", 14, &d, &ret, &len, NULL), -EIO);
	assert_null(ret);
}

/* What came out of a payload is in no message, whatever was done with it. */
static void errors_hold_no_payload(void **state)
{
	static const char *const tpls[] = {
		"{{secret (secret \"sec\")}}",
		"{{config (secret \"sec\")}}",
		"{{$x := secret \"sec\"}}{{config (printf \"%s-%d\" $x 1)}}",
		"{{secret (secret \"sec\" | html)}}",
		"{{secret (slice (secret \"sec\") 3)}}",
		"{{secret (join \"-\" (secret \"sec\") \"x\")}}",
		"{{with secret \"sec\"}}{{config .}}{{end}}",
		"{{define \"x\"}}{{config .}}{{end}}{{template \"x\" secret \"sec\"}}",
		"{{printf (secret \"verb\") 1}}",
		"{{secret (printf \"%q\" (and true (secret \"sec\")))}}",
		"{{index .Service (secret \"sec\")}}",
		"{{slice \"abc\" (index (secret \"sec\") 0)}}", /* 'S' is 83 */
		"{{slice (secret \"sec\") (index (secret \"sec\") 0)}}",
		"{{range secret \"sec\"}}{{end}}",
		"{{eq (secret \"sec\") 1}}",
		"{{lt 1 (secret \"sec\")}}",
		"{{(secret \"sec\").Name}}",
		"{{template \"x\" secret \"sec\"}}",
		"{{len (not (secret \"sec\"))}}",
	};
	struct template_data d = payload(false);

	(void)state;
	for (size_t i = 0; i < SW_ARRAY_LEN(tpls); i++) {
		struct sw_err e = SW_ERR_NONE;
		char *ret = NULL;
		size_t len;

		assert_true(template_expand(tpls[i], strlen(tpls[i]), &d, &ret, &len, &e) < 0);
		if (strstr(e.msg, "S3CR3T") || strstr(e.msg, "m4rk") || strstr(e.msg, "%Q") ||
			strstr(e.msg, "83"))
			wrong(tpls[i], "no payload in the message", e.msg);
	}
	none_wrong();
}

/* The text is a secret itself: of it only what is public. */
static void errors_hold_no_secret_text(void **state)
{
	static const struct template_case cases[] = {
		{"{{secret \"nope\"}}", NULL,
			"1:2: executing \"expansion\" at <secret \"nope\">: error calling secret: "
			"secret target nope not found"},
		{"{{print \"S3CR3T\" | len | len}}", NULL,
			"1:25: executing \"expansion\" at <len>: error calling len: len of type "
			"int"},
		{"{{len (eq 1 \"S3CR3T\")}}", NULL,
			"1:7: executing \"expansion\" at <eq ... \"...\">: error calling eq: "
			"incompatible types for comparison"},
		{"{{len 53}}", NULL,
			"1:2: executing \"expansion\" at <len ...>: error calling len: len of type "
			"int"},
		{"{{.Service.S3CR3T}}", NULL,
			"1:10: executing \"expansion\" at <.Service....>: can't evaluate field ... "
			"in .Service, which has ID, Name, Labels"},
		{"{{.Service.Labels.S3CR3T}}", NULL,
			"1:10: executing \"expansion\" at <.Service.Labels....>: map has no entry "
			"for key \"...\""},
		{"{{$S3CR3T := 1}}{{$S3CR3T.x}}", NULL,
			"1:25: executing \"expansion\" at <$.......>: can't evaluate field ... in "
			"type int"},
		{"{{$S3CR3T}}", NULL, "1: undefined variable \"...\""},
		{"{{S3CR3T}}", NULL, "1: function \"...\" not defined"},
		{"{{print S3CR3T}}", NULL, "1: function \"...\" not defined"},
		{"{{53CR3T}}", NULL, "1: bad number syntax: \"...\""},
		{"{{53.5}}", NULL, "1: floating point numbers are not supported: ..."},
		{"{{1\"S3CR3T\"}}", NULL, "1: unexpected ... in operand"},
		{"{{\"S3CR3T}}", NULL, "1: unterminated quoted string"},
		{"{{\"S3CR3T\\q\"}}", NULL, "1: invalid syntax in a string"},
		{"{{'S3CR3T'}}", NULL, "1: malformed character constant"},
		{"{{template \"S3CR3T\"}}", NULL,
			"1:11: executing \"expansion\" at <{{template \"...\"}}>: template \"...\" "
			"not defined"},
		{"{{define \"S3CR3T\"}}{{len 1}}{{end}}{{template \"S3CR3T\"}}", NULL,
			"1:21: executing \"...\" at <len ...>: error calling len: len of type int"},
		{"{{printf \"%Q\" 1}}", NULL,
			"1:2: executing \"expansion\" at <printf \"...\" ...>: error calling "
			"printf: "
			"a verb or flag in the format is not supported"},
		{"{{index \"abc\" 53}}", NULL,
			"1:2: executing \"expansion\" at <index \"...\" ...>: error calling index: "
			"index out of range"},
		{"{{secret (printf \"S3CR3T\")}}", NULL,
			"1:2: executing \"expansion\" at <secret (printf \"...\")>: error calling "
			"secret: secret target not found (its name comes from a payload)"},
		{"{{print\x01}}", NULL, "1: bad character"},
		{"{{\x01}}", NULL, "1: unrecognized character in action"},
	};
	struct template_data d = payload(true);

	(void)state;
	for (size_t i = 0; i < SW_ARRAY_LEN(cases); i++) {
		sw_auto_free char *err = xasprintf("template: expansion:%s", cases[i].err);

		expect(&d, cases[i].tpl, NULL, err);
	}
	none_wrong();
}

/* Errors go into protobuf strings and terminals. */
static void errors_are_clean_text(void **state)
{
	(void)state;
	expect(&plain, "{{len `a\nb\x01\xff\xc3(`}}", "7", NULL);
	expect(&plain, "{{len (len `a\nb\x01\xff\xc3\x28`)}}", NULL,
		"template: expansion:1:2: executing \"expansion\" at <len (len `a b?\?\?(`)>: "
		"error "
		"calling len: len of type int");
	expect(&plain, "{{\xff}}", NULL,
		"template: expansion:1: unrecognized character in action: U+FFFD '?'");
	none_wrong();
	refused(&plain, repeat("{{len (len `", "\xc3\xa9", 500, "`)}}"), -EINVAL,
		"\xc3\xa9...>: error calling len");
	refused(&plain, repeat("{{", "x", 5000, "}}"), -EINVAL, "xxx...\" not defined");
	none_wrong();
}

/* Bytes that JSON could not carry to the real manager; the rules are those of Go's strconv. */
static void bytes_that_are_no_text(void **state)
{
	(void)state;
	expect(&plain, "\xff{{\"\xff\"}}\xc3{{`\xff\r\n`}}", "\xff\xef\xbf\xbd\xc3\xff\n", NULL);
	expect(&plain, "{{printf \"%q %x\" `\xff\xed\xa0\x80` `\xff`}}",
		"\"\\xff\\xed\\xa0\\x80\" ff", NULL);
	expect(&plain, "{{js `\xff`}}{{urlquery `\xff`}}{{len `\xff`}}", "\xff%FF1", NULL);
	expect(&plain, "{{printf \"%3s\" `\xff`}}", "  \xff", NULL);
	none_wrong();
}

static void little_data(void **state)
{
	static const struct template_label odd[] = {{NULL, "x"}, {"", "y"}, {"k", NULL}};
	struct template_data d = {.task_slot = NULL};

	(void)state;
	expect(&d, "{{.Service.ID}}{{.Node.Platform.OS}}{{.Task.Slot}}", "", NULL);
	expect(&d, "{{.}}", "{{  map[]} {  { }} {  }}", NULL);
	expect(&d, "{{range .Service.Labels}}x{{else}}none{{end}}{{len .Service.Labels}}", "none0",
		NULL);
	expect(&d, "{{if .Service.Labels}}x{{end}}{{index .Service.Labels \"x\"}}", "", NULL);
	d.labels = odd;
	d.n_labels = SW_ARRAY_LEN(odd);
	expect(&d, "{{.Service.Labels}}{{len .Service.Labels}}", "map[:y k:]2", NULL);
	none_wrong();
}

static void plain_text_is_copied(void **state)
{
	struct template_data d = payload(false);
	struct sw_err e = SW_ERR_NONE;
	char *ret = NULL;
	size_t len = 0;

	(void)state;
	sensitive = true;
	assert_int_equal(template_expand("a\0{b}}", 6, &d, &ret, &len, &e), 0);
	assert_int_equal(len, 6);
	assert_memory_equal(ret, "a\0{b}}", 7);
	assert_false(sensitive);
	free(ret);
	assert_int_equal(template_expand(NULL, 0, &d, &ret, &len, &e), 0);
	assert_int_equal(len, 0);
	assert_string_equal(ret, "");
	free(ret);
}

static void c_strings(void **state)
{
	struct sw_err e = SW_ERR_NONE;
	char *ret = NULL;

	(void)state;
	assert_int_equal(template_expand_str("{{.Service.Name}}", &plain, &ret, &e), 0);
	assert_string_equal(ret, "web");
	free(take(ret));
	assert_int_equal(template_expand_str(NULL, &plain, &ret, &e), 0);
	assert_string_equal(ret, "");
	free(take(ret));
	assert_int_equal(template_expand_str("a{{\"\\x00\"}}b", &plain, &ret, &e), -EINVAL);
	assert_non_null(strstr(e.msg, "NUL"));
	assert_int_equal(template_expand_str("{{", &plain, &ret, &e), -EINVAL);
	assert_null(ret);
}

/* --- limits ----------------------------------------------------------------------------------- */

static void limits_of_size(void **state)
{
	struct template_data d = payload(false);
	struct template_label *many = xcalloc(65537, sizeof(*many));

	(void)state;
	big = repeat("", "x", TEMPLATE_OUT_MAX, "");
	assert_int_equal(expands(&plain, repeat("", "x", TEMPLATE_TEXT_MAX, "")), TEMPLATE_OUT_MAX);
	refused(&plain, repeat("", "x", TEMPLATE_TEXT_MAX + 1, ""), -E2BIG, "limit 1048576");
	assert_int_equal(expands(&d, xstrdup("{{secret \"big\"}}")), TEMPLATE_OUT_MAX);
	refused(&d, xstrdup("{{secret \"big\"}}x"), -E2BIG, "more than 1048576 bytes");
	refused(&d, xstrdup("{{len (print 1 (secret \"big\"))}}"), -E2BIG,
		"more than 1048576 bytes");
	refused(&d, xstrdup("{{len (html (secret \"big\") \"<\")}}"), -E2BIG,
		"more than 1048576 bytes");
	refused(&plain, xstrdup("{{printf \"%1000000s%1000000d\" 1 1}}"), -E2BIG,
		"more than 1048576 bytes");
	assert_int_equal(expands(&plain, xstrdup("{{printf \"%1000000v\" 1}}")), 1000000);
	/* texts that are kept */
	refused(&d, repeat("", "{{len (join \"\" (secret \"big\"))}}", 40, ""), -E2BIG,
		"of memory");
	/* nodes */
	refused(&plain, repeat("", "{{.}}", 200000, ""), -E2BIG, "of memory");
	d.labels = many;
	d.n_labels = 65536;
	assert_int_equal(expands(&d, xstrdup("{{len .Service.Labels}}")), 1);
	d.n_labels = 65537;
	refused(&d, xstrdup("{{len .Service.Labels}}"), -E2BIG, "65537 service labels");
	assert_int_equal(expands(&d, xstrdup("{{.Service.Name}}")), 3);
	free(many);
	free(take(big));
	none_wrong();
}

static void limits_of_depth(void **state)
{
	sw_auto_free char *ends = repeat("x", "{{end}}", 99, "");
	sw_auto_free char *more = repeat("x", "{{end}}", 100, "");
	sw_auto_free char *right = repeat("1", ")", 99, "}}");
	sw_auto_free char *right_more = repeat("1", ")", 100, "}}");

	(void)state;
	assert_int_equal(expands(&plain, repeat("", "{{if 1}}", 99, ends)), 1);
	refused(&plain, repeat("", "{{if 1}}", 100, more), -EINVAL, "nests deeper than 100");
	assert_int_equal(expands(&plain, repeat("{{", "(", 99, right)), 1);
	refused(&plain, repeat("{{", "(", 100, right_more), -EINVAL, "nests deeper than 100");
	refused(&plain, repeat("", "{{if 1}}", 100000, ""), -EINVAL, "nests deeper than 100");
	refused(&plain, repeat("{{", "(", 1000000, ""), -EINVAL, "nests deeper than 100");
	refused(&plain,
		xstrdup("{{define \"x\"}}{{if 1}}{{template \"x\"}}{{end}}{{end}}"
			"{{template \"x\"}}"),
		-E2BIG, "nests deeper than 100");
	refused(&plain,
		xstrdup("{{define \"x\"}}{{template \"y\"}}{{end}}{{define \"y\"}}"
			"{{template \"x\"}}{{end}}{{template \"x\"}}"),
		-EINVAL, "exceeded maximum template depth (100)");
	/* a chain is not deep */
	assert_int_equal(
		expands(&plain, repeat("{{if 0}}", "{{else if 0}}", 10000, "{{else}}yes{{end}}")),
		3);
	none_wrong();
}

#define RANGE "{{range $.Service.Labels}}"

static void limits_of_steps(void **state)
{
	struct template_data d = payload(false);
	char *tpl, *at;

	(void)state;
	big = repeat("", "x", TEMPLATE_OUT_MAX, "");
	/* six labels: 6^8 rounds */
	refused(&d,
		xstrdup(RANGE RANGE RANGE RANGE RANGE RANGE RANGE RANGE
			"{{end}}{{end}}{{end}}{{end}}{{end}}{{end}}{{end}}{{end}}"),
		-E2BIG, "more than 1000000 steps");
	/* one step moves little */
	refused(&d,
		xstrdup("{{$b := secret \"big\"}}" RANGE RANGE RANGE
			"{{if ne $b (config \"big\")}}{{end}}{{end}}{{end}}{{end}}"),
		-E2BIG, "more than 1000000 steps");
	/* each calls the one before it twice */
	tpl = at = xcalloc(1, 64 * 80);
	for (int i = 1; i <= 30; i++)
		at += sprintf(at,
			"{{define \"t%d\"}}{{template \"t%d\"}}{{template \"t%d\"}}{{end}}", i,
			i - 1, i - 1);
	sprintf(at, "{{define \"t0\"}}.{{end}}{{template \"t30\"}}");
	refused(&d, tpl, -E2BIG, "more than 1000000 steps");
	refused(&d,
		repeat("{{$x := \"\"}}",
			"{{range .Service.Labels}}{{$x = print $x $x \"x\"}}{{end}}", 20, ""),
		-E2BIG, "more than 1048576 bytes");
	free(take(big));
	none_wrong();
}

static void limits_of_count(void **state)
{
	char *tpl, *at;

	(void)state;
	tpl = at = xcalloc(1, 300 * 16);
	for (int i = 0; i < 255; i++)
		at += sprintf(at, "{{$v%d := 1}}", i);
	assert_int_equal(expands(&plain, xstrdup(tpl)), 0);
	sprintf(at, "{{$v255 := 1}}");
	refused(&plain, tpl, -EINVAL, "more than 256 variables");
	/* of the same name there is one */
	assert_int_equal(expands(&plain, repeat("", "{{$v := 1}}", 1000, "{{$v}}")), 1);

	tpl = at = xcalloc(1, 300 * 32);
	for (int i = 0; i < 255; i++)
		at += sprintf(at, "{{define \"p%d\"}}x{{end}}", i);
	assert_int_equal(expands(&plain, xstrdup(tpl)), 0);
	sprintf(at, "{{define \"p255\"}}x{{end}}");
	refused(&plain, tpl, -EINVAL, "more than 256 named templates");
	none_wrong();
}

/* --- memory ----------------------------------------------------------------------------------- */

static const char *const secretive[] = {
	"{{secret \"sec\"}}",
	"{{secret \"sec\" | html | printf \"%q %x\"}}",
	"{{$x := \"\"}}{{range .Service.Labels}}{{$x = print $x (secret \"sec\")}}{{end}}{{$x}}",
	/* the output outgrows its memory more than once */
	"{{range .Service.Labels}}{{range $.Service.Labels}}{{range $.Service.Labels}}"
	"{{printf \"%q\" (secret \"sec\")}}{{join \"+\" (secret \"sec\") \"x\"}}"
	"{{end}}{{end}}{{end}}",
	"{{secret \"sec\"}}{{secret (secret \"sec\")}}",
	"{{secret \"sec\"}}{{len (print (secret \"sec\") | len)}}",
	"{{print \"S3CR\\x33T\"}}{{len 1}}",
};

static void freed_memory_is_wiped(void **state)
{
	struct template_data d = payload(true);

	(void)state;
	for (size_t i = 0; i < SW_ARRAY_LEN(secretive); i++) {
		struct sw_err e = SW_ERR_NONE;
		char *ret = NULL;
		size_t len = 0;

		n_leaky = n_allocs = 0;
		watch = true;
		(void)template_expand(secretive[i], strlen(secretive[i]), &d, &ret, &len, &e);
		watch = false;
		assert_true(n_allocs > 0);
		if (n_leaky)
			wrong(secretive[i], "wiped memory", "a secret in it");
		/* and the watch does see one */
		if (ret && len) {
			watch = true;
			free(ret);
			watch = false;
			assert_true(n_leaky > 0);
		} else {
			free(ret);
		}
	}
	none_wrong();
}

static void without_memory(void **state)
{
	struct template_data d = payload(false);

	(void)state;
	for (size_t i = 0; i < SW_ARRAY_LEN(secretive); i++) {
		for (int n = 1;; n++) {
			struct sw_err e = SW_ERR_NONE;
			char *ret = NULL;
			size_t len = 0;
			int r;

			n_leaky = 0;
			fail_in = n;
			watch = true;
			r = template_expand(secretive[i], strlen(secretive[i]), &d, &ret, &len, &e);
			watch = false;
			assert_int_equal(n_leaky, 0);
			free(ret);
			if (fail_in) { /* it needed fewer */
				fail_in = 0;
				break;
			}
			assert_int_equal(r, -ENOMEM);
			assert_int_equal(e.cls, SW_TEMPORARY);
			assert_null(ret);
		}
	}
	fail_in = 1;
	watch = true;
	{
		struct sw_err e = SW_ERR_NONE;
		char *ret = NULL;
		size_t len = 0;
		int r = template_expand("plain", 5, &d, &ret, &len, &e);

		watch = false;
		assert_int_equal(r, -ENOMEM);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_table),
		cmocka_unit_test(the_table_with_payloads),
		cmocka_unit_test(payload_functions),
		cmocka_unit_test(names_with_nul),
		cmocka_unit_test(lookup_errors),
		cmocka_unit_test(errors_hold_no_payload),
		cmocka_unit_test(errors_hold_no_secret_text),
		cmocka_unit_test(errors_are_clean_text),
		cmocka_unit_test(bytes_that_are_no_text),
		cmocka_unit_test(little_data),
		cmocka_unit_test(plain_text_is_copied),
		cmocka_unit_test(c_strings),
		cmocka_unit_test(limits_of_size),
		cmocka_unit_test(limits_of_depth),
		cmocka_unit_test(limits_of_steps),
		cmocka_unit_test(limits_of_count),
		cmocka_unit_test(freed_memory_is_wiped),
		cmocka_unit_test(without_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
