#!/bin/bash
# test_wire.sh PROBE: our transport against a real manager, fresh and in the middle of a rotation of
# its root certificate, when it answers no ALPN and sends a cross-signed chain.
. "$(dirname "$0")/lib.sh"
PROBE=$1
command -v openssl >/dev/null || skip "openssl is not installed"
lab_init wire
lab_host mgr 10.213.0.1
engine_start mgr
swarm_init mgr
probe() { on_host mgr "$PROBE" "$1" "$(host_ip mgr):2377" "$LAB/root.pem" "${@:2}" 9>&-; }

say "a fresh manager"
probe root || fail "the root certificates cannot be fetched"
digest=$(cut -d- -f3 "$LAB/worker-token")
[ ${#digest} = 50 ] || fail "the token has no digest"
probe check yes || fail "calls to a fresh manager"

say "a rotation that waits for a node that never comes"
probe phantom "$(cat "$LAB/worker-token")" || fail "no node was made"
mgr swarm ca --rotate --detach >/dev/null 2>&1 || fail "the rotation does not start"
chain_len() { on_host mgr openssl s_client -connect "$(host_ip mgr):2377" -showcerts </dev/null 2>/dev/null | grep -c BEGIN.CERT; }
is_cross_signed() { [ "$(chain_len)" = 2 ]; }
wait_for 60 "the manager renews its certificate" is_cross_signed

say "OpenSSL alone refuses it"
on_host mgr openssl s_client -connect "$(host_ip mgr):2377" -CAfile "$LAB/root.pem" </dev/null 2>/dev/null |
	grep -q 'Verify return code: 19' || fail "that chain is none of a rotation"

say "we do not"
probe check no || fail "calls to a manager in rotation"
say "done"
