#!/bin/bash
# Images against real registries: open, with a password, slow, dying in the middle of a layer, and one
# whose name look-up times out; and what a rolling update does meanwhile.
. "$(dirname "$0")/lib.sh"
for t in docker-registry tc perl unshare; do command -v $t >/dev/null || skip "$t is not installed"; done
lab_init images
lab_host mgr 10.213.0.1
lab_host w1 10.213.0.2
lab_host reg 10.213.0.3
OPEN=10.213.0.3:5000 CLOSED=10.213.0.3:5001 LOST=registry.lost.example:5000

# ---- registries
# bcrypt by the C library
printf 'me:%s\n' "$(perl -e 'print crypt("hidden-word", "\$2y\$04\$abcdefghijklmnopqrstuu")')" >"$LAB/htpasswd"
registry_start() { # PORT [auth]
	local conf=$LAB/registry-$1.yml
	{
		printf 'version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nstorage:\n  filesystem: {rootdirectory: %s}\n' "$LAB/registry-$1"
		printf 'http:\n  addr: 10.213.0.3:%s\n' "$1"
		[ "${2:-}" != auth ] || printf 'auth:\n  htpasswd: {realm: lab, path: %s}\n' "$LAB/htpasswd"
	} >"$conf"
	exec_on_host reg docker-registry serve "$conf" >>"$LAB/log/registry-$1.log" 2>&1 9>&- &
	echo $! >"$LAB/registry-$1.pid"
	disown
	wait_for 30 "registry $1" on_host reg curl -s -o /dev/null "http://10.213.0.3:$1/v2/"
}
registry_kill() { end_pid "$(cat "$LAB/registry-$1.pid")" KILL; }
slow() { on_host reg tc qdisc replace dev eth0 root tbf rate "$1" burst 64kb latency 300ms; }
fast() { on_host reg tc qdisc del dev eth0 root 2>/dev/null; }
registry_start 5000
registry_start 5001 auth

# ---- a node whose resolver never hears an answer: a name server behind a host that forwards nothing
ip -n "$(lab_ns w1)" route add default via 10.213.0.3
printf 'nameserver 203.0.113.1\noptions timeout:2 attempts:1\n' >"$LAB/resolv.conf"
cat >"$LAB/resolver" <<END
#!/bin/sh
mount --bind $LAB/resolv.conf /etc/resolv.conf || exit
exec "\$@"
END
chmod +x "$LAB/resolver"
insecure=(--insecure-registry $OPEN --insecure-registry $CLOSED)
ENGINE_WRAP="unshare -m $LAB/resolver" engine_launch w1 "${insecure[@]}"
engine_start mgr "${insecure[@]}"
wait_quiet 60 docker_on w1 version || skip "dockerd does not start in a mount namespace of its own"
engine_import mgr
swarm_init mgr

push() { # IMAGE [MiB of noise]
	if [ -n "${2:-}" ]; then
		head -c "$2M" /dev/urandom >"$LAB/rootfs/noise"
		engine_import mgr "$1"
		rm "$LAB/rootfs/noise"
	else
		mgr tag $LAB_IMAGE "$1"
	fi
	mgr push "$1" >"$LAB/push" 2>&1 || { cat "$LAB/push"; fail "push $1"; }
}
push $OPEN/app:1
digest=$(sed -n 's/.*digest: \(sha256:[0-9a-f]*\).*/\1/p' "$LAB/push")
push $OPEN/big:1 8
push $OPEN/big:2 8
push $OPEN/big:3 4
mgr login -u me -p hidden-word $CLOSED >/dev/null 2>&1 || fail "login"
push $CLOSED/own:1
push $CLOSED/task:1
push $CLOSED/stale:1

mkdir -p "$LAB/bin"
cat >"$LAB/bin/docker-credential-lab" <<END
#!/bin/sh
read server
[ "\$1 \$server" = "get $CLOSED" ] || { echo credentials not found in native keychain; exit 1; }
echo '{"ServerURL":"$CLOSED","Username":"me","Secret":"hidden-word"}'
END
chmod +x "$LAB/bin/docker-credential-lab"
mkdir "$LAB/node-config"
AGENT_WRAP="env PATH=$LAB/bin:$PATH" agent_start w1 --pull-policy always --docker-config "$LAB/node-config"
wait_for 60 "w1 Ready" node_is w1 Ready

run=(service create --detach --no-resolve-image --constraint node.hostname==w1 --network host
	--stop-grace-period 1s --restart-delay 1s)
service() { # NAME IMAGE [OPTION...]
	local name=$1 image=$2
	shift 2
	mgr "${run[@]}" --name "$name" "$@" "$image" sleep 100000 >/dev/null || fail "service create $name"
}
task_of() { mgr service ps -q --no-trunc --filter desired-state="${2:-running}" "$1" | head -1; }
message_is() { mgr inspect -f '{{.Status.Message}}' "$(task_of "$1" "${3:-running}")" | grep -q "$2"; }
error_is() { mgr service ps --no-trunc --format '{{.Error}}' "$1" | grep -q "$2"; }
gone() { mgr service rm "$@" >/dev/null; }

say "an open registry; the digest is in the log"
service app $OPEN/app:1
wait_for 60 "app runs" service_has app 1
agent_logged w1 "image pulled image=$OPEN/app:1 digest=$digest" || fail "digest $digest"
agent_logged w1 "container created .*image=$OPEN/app:1 digest=$digest" || fail "digest at the container"

say "a password: nobody's, the task's, the node's own by its helper, and when the task's is out of date"
service own $CLOSED/own:1
wait_for 60 "own is rejected" error_is own "no basic auth credentials"
service task $CLOSED/task:1 --with-registry-auth
wait_for 60 "task runs" service_has task 1
printf '{"credsStore":"lab"}' >"$LAB/node-config/config.json"
wait_for 60 "own runs" service_has own 1
printf '{"auths":{"%s":{"auth":"%s"}}}' $CLOSED "$(printf me:wrong | base64)" >"$LAB/docker-config/config.json"
service stale $CLOSED/stale:1 --with-registry-auth
wait_for 60 "stale runs" service_has stale 1
agent_logged w1 "credentials are refused, trying the node's own image=$CLOSED/stale:1" || fail "the task's own were not tried"
if grep -qE "hidden-word|$(printf me:hidden-word | base64)" "$LAB"/log/agent-w1.log; then fail "a password is in the log"; fi
gone own task stale

say "slow: the progress is in the task's message; then it dies within the layer and comes back"
slow 4mbit
service big $OPEN/big:1
wait_for 60 "progress" message_is big "^preparing: pulling $OPEN/big:1: downloading 0/1 layers"
registry_kill 5000
fast
registry_start 5000
wait_for 90 "big runs" service_has big 1

say "start-first: the old task runs until the new image is there"
old=$(docker_on w1 ps -q --filter label=com.docker.swarm.service.name=big)
slow 4mbit
mgr service update --detach --no-resolve-image --update-order start-first --image $OPEN/big:2 big >/dev/null
wait_for 60 "progress of big:2" agent_logged w1 "^<7>pulling image=$OPEN/big:2 status=\"?Downloading"
[ "$(docker_on w1 inspect -f '{{.State.Running}}' "$old")" = true ] || fail "the old task was stopped before"
fast
big_is() { docker_on w1 ps --filter label=com.docker.swarm.service.name=big --format '{{.Image}}' | grep -qx "$OPEN/big:$1"; }
wait_for 90 "big:2 runs" big_is 2
gone big

say "stop-first: the new image is pulled while the old task still takes its time to stop"
mgr "${run[@]}" --name two --stop-grace-period 20s $OPEN/big:2 sh -c 'trap "" TERM; while :; do sleep 1; done' >/dev/null ||
	fail "service create two"
wait_for 60 "two runs" service_has two 1
old=$(docker_on w1 ps -q --no-trunc --filter label=com.docker.swarm.service.name=two)
mgr service update --detach --no-resolve-image --update-order stop-first --image $OPEN/big:3 two >/dev/null
wait_for 60 "big:3 is pulled" agent_logged w1 "image pulled image=$OPEN/big:3"
[ "$(docker_on w1 inspect -f '{{.State.Running}}' "$old")" = true ] || fail "the image came after the stop"
mgr service rm two >/dev/null

say "a registry whose name look-up times out, images that are here"
for i in 1 2 3; do docker_on w1 tag $OPEN/app:1 "$LOST/app:$i"; done
SECONDS=0
docker_on w1 pull "$LOST/app:1" >"$LAB/lookup" 2>&1 && fail "a name that is none was found"
one=$SECONDS
say "one look-up: $one s: $(tail -n 1 "$LAB/lookup")"
SECONDS=0
service many "$LOST/app:1" --replicas 20
wait_for 120 "20 of many" service_has many 20
say "20 tasks: $SECONDS s"
pulls() { grep -c "^<7>step op=image id=$LOST.* step=pull$" "$LAB/log/agent-w1.log"; }
[ "$(pulls)" -le 2 ] || fail "$(pulls) look-ups for the tasks of one image"
agent_logged w1 "registry is away, local images are used without asking it registry=$LOST" || fail "no word about the registry"
service more "$LOST/app:2" --replicas 5
service most "$LOST/app:3" --replicas 5
wait_for 60 "5 of more" service_has more 5
wait_for 60 "5 of most" service_has most 5
[ "$(pulls)" -le 3 ] || fail "$(pulls) look-ups while the registry is known to be away" # a probe may be due
service none "$LOST/none:1"
wait_for 120 "the registry's words about an image that is not here" message_is none \
	"^preparing: pulling $LOST/none:1 failed, trying again: .*dial tcp: lookup"
agent_stop w1
[ "$AGENT_CODE" = 0 ] || fail "exit code $AGENT_CODE"
