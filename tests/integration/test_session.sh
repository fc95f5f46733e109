#!/bin/bash
# test_session.sh PROBE: identity and dispatcher against a real manager, without any engine on the
# node: refused tokens, Ready and staying so, role changes, a rotation of the root certificate from
# begin to end, a manager that restarts, the removal.
. "$(dirname "$0")/lib.sh"
PROBE=$1
lab_init session
lab_host mgr 10.213.0.1
lab_host w1 10.213.0.2
engine_start mgr
swarm_init mgr

state=$LAB/w1/state
out=$LAB/w1/probe.out
probe_start() { # TOKEN|-
	: >"$out"
	exec_on_host w1 "$PROBE" "$state" "$(host_ip mgr):2377" "$1" >>"$out" 2>>"$LAB/log/probe.log" 9>&- &
	pid=$!
}
said() { grep -q "^$1" "$out"; }
n_said() { [ "$(grep -c "^$1" "$out")" -ge "$2" ]; }
probe_ended() { # CODE
	wait_quiet 60 pid_gone "$pid" || fail "the probe does not end"
	wait "$pid"
	[ $? = "$1" ]
}
refused() { # TOKEN TEXT
	probe_start "$1"
	probe_ended 3 || fail "not refused: $2"
	grep -q "^failed .*$2" "$out" || fail "no word of \"$2\": $(cat "$out")"
	[ ! -e "$state/certificates/swarm-node.crt" ] || fail "a certificate was written"
}
state_of() { mgr node inspect -f '{{.Status.State}}' "$1" 2>/dev/null; }
is_ready() { [ "$(state_of "$id")" = ready ]; }
token=$(cat "$LAB/worker-token")

say "tokens that are none"
refused SWMTKN-1-x-y "invalid join token"
refused "${token%?}$([ "${token: -1}" = a ] && echo b || echo a)" "docker swarm join-token worker"
rm -rf "$state"
wrong=${token/SWMTKN-1-??/SWMTKN-1-00}
refused "$wrong" "not the one the join token was made for"
[ ! -e "$state/certificates/swarm-root-ca.crt" ] || fail "a root certificate was written"
refused "$(mgr swarm join-token -q manager)" "the join token is a manager's"
stray=$(sed -n 's/.*docker node rm --force \([0-9a-z]*\).*/\1/p' "$out")
mgr node rm --force "$stray" >/dev/null || fail "the remedy in the message does not work"
[ "$(mgr node ls -q | wc -l)" = 1 ] || fail "stray nodes"

say "a worker"
probe_start "$token"
wait_for 30 "registration" said registered
id=$(sed -n 's/^ready //p' "$out")
wait_for 5 "Ready" is_ready
mgr node inspect -f '{{.Description.Hostname}} {{.Spec.Role}}' "$id" | grep -qx 'probe worker' || fail "description"

say "a task and a log reader are answered"
mgr service create --detach --name s --restart-condition none --constraint "node.id==$id" $LAB_IMAGE true >/dev/null
wait_for 30 "a report" said reported
wait_for 10 "the task's error" eval 'mgr service ps --no-trunc s | grep -q "this node runs nothing"'
timeout 20 "$(command -v docker)" -H "unix://$(engine_sock mgr)" service logs s >/dev/null 2>&1 || [ $? != 124 ] ||
	fail "a log reader hangs"
mgr service rm s >/dev/null

say "a root rotation, from begin to end"
old=$(sha256sum <"$state/certificates/swarm-root-ca.crt")
timeout 120 "$(command -v docker)" -H "unix://$(engine_sock mgr)" swarm ca --rotate >"$LAB/log/rotate.log" 2>&1 ||
	fail "the rotation does not end: $(tail -n 3 "$LAB/log/rotate.log")"
root_is_new() {
	[ "$old" != "$(sha256sum <"$state/certificates/swarm-root-ca.crt")" ] &&
		mgr swarm ca | cmp -s - "$state/certificates/swarm-root-ca.crt"
}
wait_for 30 "the new root on disk" root_is_new
wait_for 20 "Ready" is_ready
said removed && fail "taken for removed"

say "the manager without ALPN, after a restart of the node"
kill "$pid"
probe_ended 0 || fail "exit code"
probe_start -
wait_for 30 "registration" said registered
wait_for 20 "Ready" is_ready

say "Ready, and nothing lost, for a while"
before=$(grep -c '^lost' "$out")
for _ in $(seq "${STAY:-20}"); do
	sleep 1
	is_ready || fail "not Ready any more"
done
[ "$(grep -c '^lost' "$out")" = "$before" ] || fail "sessions were lost: $(grep '^lost' "$out")"

say "a promotion leaves a worker"
n=$(grep -c '^node' "$out")
mgr node update --role manager "$id" >/dev/null 2>&1
wait_for 20 "the new role to arrive" n_said node $((n + 1))
is_ready || fail "not Ready after a promotion"

say "the manager restarts"
engine_stop mgr
wait_for 30 "the loss" said lost
engine_start mgr
wait_for 60 "registration" n_said registered 2
wait_for 60 "Ready" is_ready

say "removed"
mgr node rm --force "$id" >/dev/null || fail "node rm"
wait_for 60 "the node to notice" said removed
probe_ended 5 || fail "exit code"
say "done"
