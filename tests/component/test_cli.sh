#!/bin/bash
# Command line, exit codes and signals of the daemon, without any swarm or engine.
set -u
agentd=${SWARM_AGENTD:?}
dir=$(mktemp -d)
pid=""
# shellcheck disable=SC2317
cleanup() {
	[ -z "$pid" ] || kill -9 "$pid" 2>/dev/null
	chmod -R u+w "$dir"
	rm -rf "$dir"
}
trap cleanup EXIT
unset DOCKER_HOST DOCKER_CERT_PATH DOCKER_API_VERSION NOTIFY_SOCKET
# the form is right, the swarm does not exist
token=SWMTKN-1-483bc5ctka3o8a4uuje4ioqtm3fck4o70t3993j6s0s4q60vvs-1ywn15pr7bdfis5n5wt7n5umd
printf '%s\n' $token >"$dir/token"
chmod 600 "$dir/token"
: >"$dir/empty.conf"
export SWARM_AGENTD_CONFIG=$dir/empty.conf # whatever the machine has in /etc

fail() {
	echo "FAIL: $*"
	cat "$dir/log" 2>/dev/null
	exit 1
}
# expect CODE TEXT COMMAND...: ends by itself with this code and says this (extended regex)
expect() {
	local code=$1 text=$2 got
	shift 2
	timeout 20 "$@" >"$dir/log" 2>&1 </dev/null
	got=$?
	[ $got = "$code" ] || fail "exit code $got instead of $code: $*"
	grep -qE -- "$text" "$dir/log" || fail "\"$text\" is not said by: $*"
	if grep -q -- "$token" "$dir/log"; then fail "the token is in the output of: $*"; fi
}
wait_log() {
	local i
	for ((i = 0; i < 200; i++)); do
		grep -qE -- "$1" "$dir/log" && return 0
		sleep 0.1
	done
	fail "not logged: $1"
}
joining=(--engine "unix://$dir/none.sock" --join-token-file "$dir/token" --join-addr 127.0.0.1:1)

expect 0 '^swarm-agentd [0-9]+\.[0-9]' "$agentd" --version
expect 0 '--join-token-file FILE' "$agentd" --help
expect 2 'unknown option "--nonsense"' "$agentd" --nonsense
expect 2 'log-level: "loud" is not allowed; use err\|warning' "$agentd" --log-level loud
expect 2 'none.conf: No such file' "$agentd" --config "$dir/none.conf"
echo "state-dir /x" >"$dir/bad.conf"
expect 2 'bad.conf:1: no "="' "$agentd" --config "$dir/bad.conf"
expect 2 'unknown variable "SWARM_AGENTD_TYPO"' env SWARM_AGENTD_TYPO=1 "$agentd"
expect 2 'has not joined a swarm.*--join-token-file' "$agentd" --state-dir "$dir/s1"
expect 2 'token.none: No such file' "$agentd" --state-dir "$dir/s1" --join-token-file "$dir/token.none" --join-addr h
expect 2 'no manager is known; give --join-addr' "$agentd" --state-dir "$dir/s1" --join-token-file "$dir/token"
expect 2 'ftp' "$agentd" --state-dir "$dir/s1" "${joining[@]}" --engine ftp://x:1
expect 3 'token' "$agentd" --state-dir "$dir/s1" --engine "unix://$dir/none.sock" --join-token SWMTKN-1-short --join-addr 127.0.0.1:1
expect 4 'Not a directory|not a directory' "$agentd" --state-dir "$dir/token" "${joining[@]}"
mkdir "$dir/s2"
echo "this is no database, but long enough to be looked at as one" >"$dir/s2/agent.db"
expect 4 'agent.db' "$agentd" --state-dir "$dir/s2" "${joining[@]}"

# A manager that is not there is tried again for ever; SIGTERM ends it; the token is not in sight.
"$agentd" --state-dir "$dir/s3" --engine "unix://$dir/none.sock" --join-addr 127.0.0.1:1 --join-token $token \
	--log-level debug >"$dir/log" 2>&1 </dev/null &
pid=$!
wait_log 'swarm-agentd starts'
wait_log '127.0.0.1:1'
if tr '\0' ' ' <"/proc/$pid/cmdline" | grep -q SWMTKN; then fail "the token is in the command line"; fi
[ "$(stat -c %a "$dir/s3")" = 700 ] || fail "mode of the state directory"
[ "$(stat -c %a "$dir/s3/agent.db")" = 600 ] || fail "mode of the store"

# A second agent on the same state directory names the first.
timeout 20 "$agentd" --state-dir "$dir/s3" "${joining[@]}" >"$dir/log2" 2>&1
[ $? = 4 ] || fail "second agent on one store: $(cat "$dir/log2")"
grep -q "$pid" "$dir/log2" || fail "the message does not name the other agent's pid: $(cat "$dir/log2")"

# SIGHUP takes the log level of the file; a broken file changes nothing.
echo "log-level = warning" >"$dir/empty.conf"
kill -HUP $pid
wait_log 'log level read again'
echo "nonsense" >"$dir/empty.conf"
kill -HUP $pid
wait_log 'not read again'
kill -TERM $pid
wait $pid
code=$?
pid=""
[ $code = 0 ] || fail "exit code $code after SIGTERM"
if grep -q "$token" "$dir/log"; then fail "the token is in the log"; fi
if grep -aq "$token" "$dir"/s3/agent.db*; then fail "the token is in the store"; fi
echo "all as documented"
