#!/bin/bash
# Rules of the house that no compiler checks.
cd "$(dirname "$0")/../.." || exit 1
bad=0
complain() {
	echo "$1"
	bad=1
}
# curl_multi_* has one caller, and timers one place (loop.c)
hits=$(grep -rlE 'curl_multi_' src --include='*.c' | grep -v '^src/http/') && complain "curl_multi_* outside src/http: $hits"
hits=$(grep -rlE '\buv_timer_(init|start)' src --include='*.c' | grep -v '^src/base/loop.c') && complain "uv_timer outside loop.c: $hits"
# no room waits, and no test sleeps
hits=$(grep -rnE '\b(sleep|usleep|nanosleep)\(' src tests --include='*.c' --include='*.h' | grep -v 'lint-ok:') && complain "sleep: $hits"
# shell scripts parse
while IFS= read -r f; do
	bash -n "$f" || complain "$f does not parse"
done < <(grep -rlE '^#!/bin/bash' tests contrib .ci)
exit $bad
