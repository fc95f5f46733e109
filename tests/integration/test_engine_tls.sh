#!/bin/bash
# An engine on another host, reached as DOCKER_HOST=tcp://... with client certificates: services,
# exit codes, logs; connections that are cut; a certificate of another authority is refused.
. "$(dirname "$0")/lib.sh"
command -v openssl >/dev/null || skip "openssl is not installed"
lab_init engtls
lab_host mgr 10.213.0.1
lab_host e1 10.213.0.2
lab_host w1 10.213.0.3
C=$LAB/certs
mkdir -p "$C/client" "$C/foreign"
authority() { # NAME
	openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj "/CN=$1" \
		-keyout "$C/$1.key" -out "$C/$1.pem" 2>/dev/null || fail "no authority"
}
signed() { # AUTHORITY NAME EXTENSIONS
	openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$2" -keyout "$C/$2.key" -out "$C/$2.csr" 2>/dev/null &&
		openssl x509 -req -in "$C/$2.csr" -CA "$C/$1.pem" -CAkey "$C/$1.key" -CAcreateserial -days 2 \
			-extfile <(echo "$3") -out "$C/$2.pem" 2>/dev/null || fail "no certificate $2"
}
authority ca
authority other
signed ca engine "subjectAltName=IP:10.213.0.2"
signed ca client "extendedKeyUsage=clientAuth"
cp "$C/ca.pem" "$C/client/ca.pem" && cp "$C/client.pem" "$C/client/cert.pem" && cp "$C/client.key" "$C/client/key.pem"
cp "$C/other.pem" "$C/foreign/ca.pem" && cp "$C/client.pem" "$C/foreign/cert.pem" && cp "$C/client.key" "$C/foreign/key.pem"

engine_start mgr
engine_start e1 -H tcp://10.213.0.2:2376 --tlsverify --tlscacert "$C/ca.pem" --tlscert "$C/engine.pem" --tlskey "$C/engine.key" --live-restore
engine_import e1
swarm_init mgr

say "an engine whose certificate is of another authority is not talked to"
agent_start w1 --engine tcp://10.213.0.2:2376 --engine-cert-path "$C/foreign"
wait_for 60 "the refusal" agent_logged w1 'certificate'
! node_is w1 Ready || fail "Ready with an engine of another authority"
agent_stop w1

say "services through TLS"
agent_start w1 --engine tcp://10.213.0.2:2376 --engine-cert-path "$C/client"
wait_for 60 "w1 Ready" node_is w1 Ready
create() { # NAME [OPTION...] -- COMMAND
	local name=$1 opts=()
	shift
	while [ "$1" != -- ]; do opts+=("$1") && shift; done
	shift
	mgr service create --name "$name" --detach --no-resolve-image --network host --stop-grace-period 1s \
		--constraint node.hostname==w1 "${opts[@]}" $LAB_IMAGE sh -c "$*" >/dev/null || fail "service create $name"
}
create web --replicas 3 -- 'sleep 100000'
create codes --replicas 20 --restart-condition none -- 'busybox usleep 3000; exit 7'
create tick --restart-condition none -- 'i=0; while :; do i=$((i+1)); echo $i; busybox usleep 50000; done'
wait_for 120 "3/3 web" service_has web 3
wait_for 120 "1/1 tick" service_has tick 1
"$DOCKER" -H "unix://$(engine_sock mgr)" service logs --raw --follow tick >"$LAB/tick.out" 2>/dev/null 9>&- &
reader=$!
disown
lines_reach() { [ "$(wc -l <"$LAB/tick.out")" -ge "$1" ]; }
wait_for 60 "lines of tick" lines_reach 20

say "connections are cut, tasks end meanwhile"
before=$(docker_on e1 ps -q --filter label=com.docker.swarm.service.name=web | sort)
for i in 1 2 3; do
	on_host e1 iptables -I INPUT -p tcp --dport 2376 -j REJECT --reject-with tcp-reset || skip "no iptables here"
	[ $i = 2 ] && docker_on e1 ps -q --filter label=com.docker.swarm.service.name=web | head -1 | xargs "$DOCKER" -H "unix://$(engine_sock e1)" kill >/dev/null
	sleep 1
	on_host e1 iptables -D INPUT -p tcp --dport 2376 -j REJECT --reject-with tcp-reset
	n=$(wc -l <"$LAB/tick.out")
	wait_for 60 "lines of tick after cut $i" lines_reach $((n + 40))
done
ended_137() { mgr service ps --no-trunc web | grep -q 'non-zero exit (137)'; }
wait_for 60 "the end that nobody saw" ended_137
wait_for 60 "3/3 web" service_has web 3
sevens() { [ "$(mgr service ps --no-trunc codes | grep -c 'non-zero exit (7)')" = 20 ]; }
wait_for 120 "20 times exit code 7" sevens
[ "$(docker_on e1 ps -q --filter label=com.docker.swarm.service.name=web | sort | comm -12 - <(echo "$before") | wc -l)" = 2 ] ||
	fail "a cut connection cost a task"
awk '$1 != NR { exit 1 }' "$LAB/tick.out" || fail "followed lines are lost or doubled"
end_pid $reader INT
mgr service rm web codes tick >/dev/null
for s in web codes tick; do wait_for 120 "nothing left of $s" all_containers_are e1 $s 0; done
agent_stop w1
[ "$AGENT_CODE" = 0 ] || fail "the agent ended with $AGENT_CODE"
say "done"
