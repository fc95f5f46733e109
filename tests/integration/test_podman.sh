#!/bin/bash
# podman's Docker API as the engine: services of a real manager on it, and what it cannot do is
# refused by name. See docs/podman.md.
. "$(dirname "$0")/lib.sh"
command -v podman >/dev/null || skip "podman is not installed"
lab_init podman
lab_host mgr 10.213.0.1
lab_host w1 10.213.0.2
P=$LAB/w1
export CONTAINERS_CONF=$LAB/containers.conf
cat >"$CONTAINERS_CONF" <<END
[containers]
default_ulimits = []
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
tmp_dir = "$P/tmp"
[network]
network_config_dir = "$P/net"
END
mkdir -p "$DOCKER_CONFIG"
echo '{}' >"$DOCKER_CONFIG/config.json" # podman wants the file
pod() { on_host w1 podman --root "$P/root" --runroot "$P/run" "$@"; }
pod_serve() {
	exec_on_host w1 podman --root "$P/root" --runroot "$P/run" system service --time=0 "unix://$(engine_sock w1)" \
		>>"$LAB/log/podman.log" 2>&1 9>&- &
	echo $! >"$P/podman.pid"
	disown
	wait_quiet 60 docker_on w1 version || { tail -n 5 "$LAB/log/podman.log"; skip "podman does not serve here: $(tail -n 1 "$LAB/log/podman.log")"; }
}
pod_end() {
	local code=$?
	pod rm -fa -t 0 >/dev/null 2>&1
	(exit $code)
	lab_exit
}
trap pod_end EXIT
engine_start mgr
swarm_init mgr
lab_rootfs
tar -C "$LAB/rootfs" -c . | pod import - docker.io/library/lab:1 >/dev/null 2>&1 || skip "podman cannot import an image here"
pod run --rm --network host docker.io/library/lab:1 true 2>"$LAB/log/why.log" || skip "podman starts no container here: $(tail -n 1 "$LAB/log/why.log")"
pod_serve
agent_start w1
wait_for 60 "w1 Ready" node_is w1 Ready
say "engine version on the manager: $(mgr node inspect w1 -f '{{.Description.Engine.EngineVersion}}')"

create() { # NAME [OPTION...] -- COMMAND
	local name=$1 opts=()
	shift
	while [ "$1" != -- ]; do opts+=("$1") && shift; done
	shift
	mgr service create --name "$name" --detach --no-resolve-image --network host --stop-grace-period 1s \
		--constraint node.hostname==w1 "${opts[@]}" docker.io/library/lab:1 sh -c "$*" >/dev/null || fail "service create $name"
}
status_of() { mgr service ps --no-trunc --format '{{.CurrentState}} {{.Error}}' "$1" | head -1; }
status_is() { status_of "$1" | grep -qiE "$2"; }
containers_of() { pod ps -q "${@:2}" --filter "label=com.docker.swarm.service.name=$1" | wc -l; }
have() { [ "$(containers_of "$1")" = "$2" ]; }
gone() { [ "$(containers_of "$1" -a)" = 0 ]; }

say "three replicas, five, one; a container that dies is replaced"
create web --replicas 3 -- 'echo started; trap "exit 0" TERM; while :; do sleep 1; done'
wait_for 120 "3/3 web" service_has web 3
have web 3 || fail "not 3 containers"
mgr service scale --detach web=5 >/dev/null
wait_for 120 "5/5 web" service_has web 5
pod kill "$(pod ps -q --filter label=com.docker.swarm.service.name=web | head -1)" >/dev/null
wait_for 120 "an end with 137" eval 'mgr service ps --no-trunc web | grep -q "non-zero exit (137)"'
wait_for 120 "5/5 web" service_has web 5
mgr service scale --detach web=1 >/dev/null
wait_for 120 "one container of web" have web 1

say "exit codes"
create five --restart-condition none -- 'exit 5'
create zero --restart-condition none -- 'exit 0'
mgr service create --name nofile --detach --no-resolve-image --network host --restart-condition none --constraint node.hostname==w1 \
	docker.io/library/lab:1 /no/such/file >/dev/null
wait_for 120 "five" status_is five '^failed.*non-zero exit \(5\)'
wait_for 120 "zero" status_is zero '^complete'
wait_for 120 "nofile" status_is nofile '^failed'
say "$(status_of nofile)"

say "logs"
create talk --restart-condition none -- 'echo out; echo err >&2; busybox head -c 40000 /dev/zero | busybox tr "\0" x; echo; i=0; while :; do i=$((i+1)); echo $i; sleep 1; done'
wait_for 120 "1/1 talk" service_has talk 1
logs_are() { timeout 60 "$DOCKER" -H "unix://$(engine_sock mgr)" service logs --raw talk >"$LAB/out" 2>"$LAB/err" &&
	[ "$(head -1 "$LAB/out")" = out ] && [ "$(cat "$LAB/err")" = err ] && [ "$(sed -n 2p "$LAB/out" | wc -c)" = 40001 ]; }
wait_for 60 "logs of talk" logs_are || fail "$(head -c 300 "$LAB/out" "$LAB/err")"
"$DOCKER" -H "unix://$(engine_sock mgr)" service logs --raw --follow talk >"$LAB/follow" 2>/dev/null 9>&- &
reader=$!
disown
lines_reach() { [ "$(wc -l <"$LAB/follow")" -ge "$1" ]; }
wait_for 60 "followed lines" lines_reach 5

say "podman's service restarts: tasks stay, the follow goes on"
before=$(pod ps -q --no-trunc | sort)
end_pid "$(cat "$P/podman.pid")" TERM
n=$(wc -l <"$LAB/follow")
pod_serve
wait_for 120 "more followed lines" lines_reach $((n + 5))
[ "$(pod ps -q --no-trunc | sort)" = "$before" ] || fail "containers were replaced"
end_pid $reader INT
sed 1,2d "$LAB/follow" | awk '$1 != NR { exit 1 }' || fail "followed lines are lost or doubled: $(sed 1,2d "$LAB/follow" | xargs)"

say "resources, mounts, environment"
mkdir -p "$LAB/bind"
create full --mount "type=bind,source=$LAB/bind,target=/b" --mount type=tmpfs,target=/t --user 1000:1000 --workdir /www \
	--limit-memory 64m --env GREETING=hello --hostname here -- 'echo "$GREETING $(id -u)"; sleep 100000'
wait_for 120 "1/1 full" service_has full 1
c=$(pod ps -q --filter label=com.docker.swarm.service.name=full)
[ "$(pod inspect -f '{{.Config.User}} {{.Config.WorkingDir}} {{.HostConfig.Memory}}' "$c")" = "1000:1000 /www 67108864" ] ||
	fail "user, directory or memory: $(pod inspect -f '{{.Config.User}} {{.Config.WorkingDir}} {{.HostConfig.Memory}}' "$c")"

say "a host-mode port"
mgr service create --name port --detach --no-resolve-image --constraint node.hostname==w1 --publish mode=host,published=18080,target=80 \
	--restart-condition none docker.io/library/lab:1 httpd -f -h /www -p 80 >/dev/null
page() { on_host mgr busybox wget -qO- http://10.213.0.2:18080/ | grep -q hello; }
port_settled() { service_has port 1 || status_is port '^(failed|rejected)'; }
wait_for 120 "port settled" port_settled
if service_has port 1; then
	wait_for 60 "the page" page
	mgr service ps --format '{{.Ports}}' port | grep -q '18080->80/tcp' || fail "the port is not shown: $(mgr service ps --format '{{.Ports}}' port)"
else
	say "no bridge network for podman here: $(status_of port)"
fi

say "what it cannot"
create missing --restart-condition none --mount "type=bind,source=$LAB/not-there,target=/b" -- true
wait_for 120 "missing" status_is missing '^(rejected|failed).*not-there'
[ ! -e "$LAB/not-there" ] || fail "podman made the missing folder"
if [ ! -d /run/systemd/system ]; then
	create checked --restart-condition none --health-cmd true --health-interval 1s -- 'sleep 100000'
	wait_for 120 "checked" status_is checked '^(rejected|failed).*health'
	say "$(status_of checked)"
	mgr service rm checked >/dev/null
fi

mgr service rm web five zero nofile talk full port missing >/dev/null
for s in web five zero nofile talk full port missing; do wait_for 120 "nothing left of $s" gone $s; done
agent_stop w1
[ "$AGENT_CODE" = 0 ] || fail "the agent ended with $AGENT_CODE"
say "done"
