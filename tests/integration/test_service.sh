#!/bin/bash
# The ordinary life of services: Ready, 10 replicas, 30, 0, new arguments, removal, ports, sqlite.
. "$(dirname "$0")/lib.sh"
lab_init service
lab_host mgr 10.213.0.1
lab_host w1 10.213.0.2
engine_start mgr
engine_start w1
engine_import w1
swarm_init mgr

t=$(date +%s%N)
agent_start w1
wait_for 60 "w1 Ready" node_is w1 Ready
say "Ready $((($(date +%s%N) - t) / 1000000)) ms after start"
mgr node ls

on_w1=(--detach --no-resolve-image --constraint node.hostname==w1)
mgr service create --name web "${on_w1[@]}" --network host --replicas 10 --stop-grace-period 1s \
	--env GREETING=hello --label kind=test --container-label shelf=top --hostname task-host \
	--restart-condition any $LAB_IMAGE sleep 100000 >/dev/null || fail "service create"
wait_for 120 "10/10 web" service_has web 10
containers_are w1 web 10 || fail "not 10 containers on the worker engine"
no_doubles w1 web || fail "two containers of one task"
[ "$(containers_on mgr web)" = 0 ] || fail "the manager runs tasks"

say "the container is what the service asked for"
c=$(docker_on w1 ps -q --filter label=com.docker.swarm.service.name=web | head -1)
look() { docker_on w1 inspect -f "$1" "$c"; }
[ "$(look '{{.HostConfig.NetworkMode}}')" = host ] || fail "network mode"
look '{{.Config.Env}}' | grep -q GREETING=hello || fail "environment"
[ "$(look '{{index .Config.Labels "shelf"}}')" = top ] || fail "container label"
[ "$(look '{{.HostConfig.RestartPolicy.Name}}')" = no ] || [ -z "$(look '{{.HostConfig.RestartPolicy.Name}}')" ] ||
	fail "the engine would restart it"
[ "$(look '{{.Config.Hostname}}')" = task-host ] || fail "hostname"
look '{{.Name}}' | grep -qE '^/web\.[0-9]+\.[a-z0-9]{25}$' || fail "container name $(look '{{.Name}}')"

say "sqlite shows the same tasks as the manager"
mgr service ps --no-trunc -q --filter desired-state=running web | sort >"$LAB/ids.manager"
agent_sql w1 "select task_id from tasks_now where state = 'RUNNING' and service = 'web' order by 1" >"$LAB/ids.store" ||
	fail "tasks_now"
diff "$LAB/ids.manager" "$LAB/ids.store" || fail "store and manager differ"
agent_sql w1 'select * from tasks_now limit 3'

mgr service scale --detach web=30 >/dev/null
wait_for 180 "30/30 web" service_has web 30
containers_are w1 web 30 || fail "not 30 containers"
no_doubles w1 web || fail "two containers of one task"
mgr service scale --detach web=0 >/dev/null
wait_for 180 "no container of web" containers_are w1 web 0

say "an update replaces the tasks"
mgr service scale --detach web=3 >/dev/null
wait_for 120 "3/3 web" service_has web 3
before=$(docker_on w1 ps -q --filter label=com.docker.swarm.service.name=web | sort)
mgr service update --detach --update-parallelism 0 --args "sleep 200000" web >/dev/null
args_are() {
	[ "$(docker_on w1 ps --no-trunc --filter label=com.docker.swarm.service.name=web --format '{{.Command}}' |
		grep -c "sleep $1")" = "$2" ]
}
wait_for 120 "3 containers with new arguments" args_are 200000 3
wait_for 120 "no container with the old ones" args_are 100000 0
wait_for 120 "3/3 web" service_has web 3
after=$(docker_on w1 ps -q --filter label=com.docker.swarm.service.name=web | sort)
[ -z "$(comm -12 <(echo "$before") <(echo "$after"))" ] || fail "a container survived the update"

say "host-mode port"
mgr service create --name port "${on_w1[@]}" --publish mode=host,published=18080,target=80 $LAB_IMAGE \
	httpd -f -h /www -p 80 >/dev/null || fail "service create with port"
wait_for 120 "1/1 port" service_has port 1
port_shown() { mgr service ps --format '{{.Ports}}' port | grep -q '18080->80/tcp'; }
wait_for 60 "the port in service ps" port_shown
page() { on_host mgr busybox wget -qO- "http://10.213.0.2:18080/" | grep -q hello; }
wait_for 30 "the page behind the port" page

say "mounts, user, directory, limits"
mkdir -p "$LAB/bind"
mgr service create --name full "${on_w1[@]}" --mount "type=bind,source=$LAB/bind,target=/b" \
	--mount type=volume,source=labvol,target=/v --mount type=tmpfs,target=/t --user 1000:1000 --workdir /www \
	--limit-memory 64m --limit-cpu 0.5 --reserve-memory 16m --stop-signal SIGINT $LAB_IMAGE sleep 100000 >/dev/null ||
	fail "service create with mounts"
wait_for 120 "1/1 full" service_has full 1
c=$(docker_on w1 ps -q --filter label=com.docker.swarm.service.name=full)
[ "$(look '{{.Config.User}} {{.Config.WorkingDir}} {{.HostConfig.Memory}} {{.HostConfig.NanoCpus}} {{.Config.StopSignal}}')" = \
	"1000:1000 /www 67108864 500000000 SIGINT" ] || fail "user, directory or limits"
[ "$(look '{{range .Mounts}}{{.Type}}:{{.Destination}} {{end}}' | tr ' ' '\n' | sort | xargs)" = "bind:/b tmpfs:/t volume:/v" ] ||
	[ "$(look '{{range .Mounts}}{{.Type}}:{{.Destination}} {{end}}' | tr ' ' '\n' | sort | xargs)" = "bind:/b volume:/v" ] ||
	fail "mounts: $(look '{{json .Mounts}}')"

mgr service rm web port full >/dev/null
for s in web port full; do wait_for 120 "nothing left of $s" all_containers_are w1 $s 0; done
nothing_stored() { [ "$(agent_sql w1 'select count(*) from tasks_now')" = 0 ]; }
wait_for 60 "no task in the store" nothing_stored
[ -z "$(docker_on w1 ps -aq)" ] || fail "a container is left behind"
agent_stop w1
[ "$AGENT_CODE" = 0 ] || fail "the agent ended with $AGENT_CODE"
say "done"
