#!/bin/bash
# Joining: identity kept over restarts, and every way to be refused has its message and exit code.
. "$(dirname "$0")/lib.sh"
lab_init join
lab_host mgr 10.213.0.1
lab_host w1 10.213.0.2
lab_host w2 10.213.0.3
engine_launch mgr
engine_start w1
wait_quiet 60 docker_on mgr version || skip "dockerd does not start here"
swarm_init mgr
node_id() { mgr node ls --filter name=w1 -q; }

say "a dead join address first, the live one second"
agent_start w1 --join-addr 10.213.0.99:2377 --join-addr 10.213.0.1:2377
wait_for 90 "w1 Ready" node_is w1 Ready
id=$(node_id)
for f in swarm-node.key:600 swarm-node.crt:644 swarm-root-ca.crt:644; do
	[ "$(stat -c %a "$LAB/w1/state/certificates/${f%:*}")" = "${f#*:}" ] || fail "mode of ${f%:*}"
done
[ "$(stat -c %a "$LAB/w1/state")" = 700 ] || fail "mode of the state directory"
sum=$(sha256sum "$LAB/w1/state/certificates/swarm-node.crt")
agent_stop w1
[ "$AGENT_CODE" = 0 ] || fail "exit code $AGENT_CODE"

say "again without token and without join address: the same node"
exec_agent() { exec_on_host w1 "$AGENTD" --config "$LAB/agent.conf" --state-dir "$LAB/w1/state" --run-dir "$LAB/w1/run" --engine "unix://$(engine_sock w1)" --log-level debug "$@"; }
exec_agent --hostname w1b >>"$LAB/log/agent-w1.log" 2>&1 9>&- &
echo $! >"$LAB/w1/agent.pid"
wait_for 60 "w1b Ready" node_is w1b Ready
[ "$(mgr node ls --filter name=w1b -q)" = "$id" ] || fail "another node id"
[ "$sum" = "$(sha256sum "$LAB/w1/state/certificates/swarm-node.crt")" ] || fail "a new certificate was requested"

say "removed from the swarm: says so, exit code 5"
mgr node update --availability drain "$id" >/dev/null
mgr node rm --force "$id" >/dev/null
agent_wait w1 90
[ "$AGENT_CODE" = 5 ] || fail "exit code $AGENT_CODE after node rm"
agent_logged w1 'removed from the swarm' || fail "no clear message"

refused() { # CODE REGEX AGENT-OPTION...: a fresh state directory ends with this
	local code=$1 text=$2
	shift 2
	rm -rf "$LAB/w2/state"
	: >"$LAB/log/agent-w2.log"
	agent_start w2 "$@"
	agent_wait w2 90
	[ "$AGENT_CODE" = "$code" ] || fail "exit code $AGENT_CODE instead of $code with $*"
	agent_logged w2 "$text" || fail "not logged: $text"
	say "exit $code: $(grep -E "$text" "$LAB/log/agent-w2.log" | tail -1 | cut -c1-160)"
}
good=$(cat "$LAB/worker-token")
wrong() { # FILE TOKEN
	printf '%s\n' "$2" >"$LAB/$1"
	chmod 600 "$LAB/$1"
	echo "$LAB/$1"
}
secret=${good##*-}
head=${good%-*}
digest=${head##*-}
flip() { case $1 in 1*) echo "2${1#?}" ;; *) echo "1${1#?}" ;; esac; }
refused 3 'join token' --join-token-file "$(wrong t1 "$head-$(flip "$secret")")"
refused 3 'not the one the join token was made for' --join-token-file "$(wrong t2 "SWMTKN-1-$(flip "$digest")-$secret")"
refused 3 'manager' --join-token-file "$LAB/manager-token"
refused 3 'token' --join-token-file "$(wrong t3 "nonsense")"

say "an unreachable manager is tried again, and joined when it comes"
rm -rf "$LAB/w2/state"
: >"$LAB/log/agent-w2.log"
host_cut mgr
agent_start w2 --join-addr 10.213.0.1:2377
wait_for 60 "a message about the manager" agent_logged w2 '10.213.0.1:2377'
sleep_until_retry() { [ "$(grep -c '10.213.0.1:2377' "$LAB/log/agent-w2.log")" -ge 2 ]; }
wait_for 60 "a second try" sleep_until_retry
pid_gone "$(agent_pid w2)" && fail "the agent gave up"
host_uncut mgr
# no engine on w2 yet: the node registers when there is one to describe
wait_for 90 "a certificate" test -s "$LAB/w2/state/certificates/swarm-node.crt"
engine_start w2
wait_for 90 "w2 Ready" node_is w2 Ready
agent_stop w2
[ "$AGENT_CODE" = 0 ] || fail "exit code $AGENT_CODE"
say "done"
