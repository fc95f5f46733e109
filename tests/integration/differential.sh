#!/bin/bash
# The differential test: the same services run on a dockerd worker and on swarm-agentd in one swarm. What
# the manager shows of the tasks, `docker inspect` of the containers, a probe from inside them and what
# is left behind are compared line by line. Every difference is none or stands in
# differential/known-differences with its reason; entries that no longer occur fail the test, too.
#   differential.sh [NAME...]   only these specs (known differences of others are not asked for then)
# DIFF_OUT=DIR keeps what was compared.
. "$(dirname "$0")/lib.sh"
here=$LAB_TOP/tests/integration/differential
for t in jq curl; do command -v $t >/dev/null || skip "$t is not installed"; done

lab_init diff
only=${*:+ $* }
B=127.0.0.1:1/lab:1 # a registry that refuses at once: the worker that always pulls takes the local image
X=127.0.0.1:1/lab:x
H=127.0.0.1:1/lab:health
D=$LAB/files
mkdir -p "$D/bind" "$LAB/spec"
probing=()
export B X H D

# ---- two workers that differ in nothing but who runs the tasks
lab_host mgr 10.213.0.1
lab_host w1 10.213.0.2
lab_host w2 10.213.0.3
for w in w1 w2; do
	engine_start $w --label shelf=top --node-generic-resource gpu=UUID1 --node-generic-resource gpu=UUID2 --node-generic-resource ssd=3 &
done
engine_start mgr
wait
for w in w1 w2; do [ -f "$LAB/$w/dockerd.pid" ] && wait_quiet 60 docker_on $w version || skip "dockerd does not start here"; done

lab_rootfs
r=$LAB/rootfs
cp "$here/probe" "$r/bin/probe"
for a in $(busybox --list | grep -vE '[[]|/'); do [ -e "$r/bin/$a" ] || ln -sf busybox "$r/bin/$a"; done
printf '%s\n' 'app:x:1000:1000::/home/app:/bin/sh' 'nobody:x:65534:65534::/:/bin/sh' >>"$r/etc/passwd"
printf '%s\n' root:x:0: app:x:1000: extra:x:2000:app more:x:2001:app >"$r/etc/group"
tar -C "$r" -c . | docker_on w1 import - $B >/dev/null || fail "import"
mkdir "$LAB/build" # "import" knows no STOPSIGNAL
cat >"$LAB/build/Dockerfile" <<DOCKERFILE
FROM $B
ENTRYPOINT ["/bin/sleep"]
CMD ["1000"]
ENV FROM_IMAGE=image B=1
WORKDIR /www
USER app
LABEL from=image b=image
STOPSIGNAL SIGUSR1
EXPOSE 8080/tcp 9090/udp
VOLUME /data
DOCKERFILE
DOCKER_BUILDKIT=0 docker_on w1 build -q -t $X "$LAB/build" >/dev/null 2>"$LAB/build/err" || fail "build: $(cat "$LAB/build/err")"
printf 'FROM %s\nHEALTHCHECK --interval=5s --timeout=20s --retries=4 CMD test -d /www\n' $X >"$LAB/build/Dockerfile"
DOCKER_BUILDKIT=0 docker_on w1 build -q -t $H "$LAB/build" >/dev/null 2>"$LAB/build/err" || fail "build: $(cat "$LAB/build/err")"
docker_on w1 save $B $X $H | docker_on w2 load >/dev/null || fail "load"

echo text >"$D/file"
mkdir -p "$D/shared/below"
mount --bind "$D/shared" "$D/shared" && mount --make-shared "$D/shared" && mount -t tmpfs below "$D/shared/below" ||
	fail "cannot mount the shared folder"
for w in w1 w2; do on_host $w busybox httpd -p 18999 -h "$LAB/files" || fail "the port that is taken"; done

swarm_init mgr
agent_start w1 --hostname "$(docker_on w2 info -f '{{.Name}}')" --pull-policy always
docker_on w2 swarm join --token "$(cat "$LAB/worker-token")" "$(host_ip mgr):2377" >/dev/null || fail "w2 cannot join"
all_ready() { [ "$(mgr node ls --format '{{.Status}}' | grep -c Ready)" = 3 ]; }
wait_for 60 "3 nodes ready" all_ready
n2=$(docker_on w2 info -f '{{.Swarm.NodeID}}')
n1=$(mgr node ls --format '{{.ID}} {{.ManagerStatus}}' | awk -v n2="$n2" 'NF == 1 && $1 != n2 { print $1 }')
api() { curl -sS --max-time 60 --unix-socket "$(engine_sock mgr)" "http://localhost/v1.41$1" "${@:2}"; }
say "$(api /nodes | jq -r --arg a "$n1" --arg b "$n2" '.[] | select(.ID == $a or .ID == $b) |
	"\(if .ID == $a then "swarm-agentd" else "dockerd worker" end): engine \(.Description.Engine.EngineVersion), \(.Description.Resources.GenericResources | length) generic resources"')"

# ---- the specs: what is expected of each, and a command that creates it
pending="" n_pending=0
pending() { pending=$1; }
landed() { pending=""; }
wanted() {
	[ -z "$only" ] || [[ $only == *" $1 "* ]] || return 1
	if [ -n "$pending" ] && [ -z "${DIFF_PENDING:-}" ]; then
		n_pending=$((n_pending + 1))
		return 1
	fi
	[ ! -e "$LAB/spec/$1" ] || fail "two specs are named $1"
}
spec() {
	local name=$1 state=$2 mode=(--mode global)
	wanted "$name" || return 0
	shift 2
	[ "$1" != @replicated ] || { mode=(--replicas 2 --replicas-max-per-node 1) && shift; }
	local -a options=()
	while [ "$1" != -- ]; do
		options+=("$1")
		shift || fail "spec $name has no --"
	done
	shift
	echo "$state" >"$LAB/spec/$name"
	todo+=("$(printf '%q ' create "$name" "${mode[@]}" "${options[@]}" "$@")")
}
raw() {
	wanted "$1" || return 0
	echo "$2" >"$LAB/spec/$1"
	todo+=("$(printf '%q ' create_raw "$1" "$3")")
}
create() {
	local name=$1
	shift
	mgr service create --quiet --detach --no-resolve-image --name "$name" --constraint node.role==worker --restart-condition none "$@" \
		>/dev/null 2>"$LAB/spec/$name.refused" || echo "$name: $(cat "$LAB/spec/$name.refused")" >>"$LAB/refused"
}
create_raw() {
	jq -n --arg name "$1" --arg B $B --arg X $X --arg H $H '{Name: $name, Mode: {Global: {}}, TaskTemplate: {RestartPolicy: {Condition: "none"},
		Placement: {Constraints: ["node.role==worker"]}, ContainerSpec: {Image: $B, Command: ["sleep", "1000"]}}} | '"$2" |
		api /services/create -H 'Content-Type: application/json' -d @- -o "$LAB/spec/$1.answer"
	jq -e .ID "$LAB/spec/$1.answer" >/dev/null || echo "$1: $(cat "$LAB/spec/$1.answer")" >>"$LAB/refused"
}
printf payload | mgr secret create diffsecret - >/dev/null
printf 'second payload' | mgr secret create diffsecret2 - >/dev/null
printf 'some configuration' | mgr config create diffconfig - >/dev/null
echo '{{.Service.Name}} {{env "WHO"}} {{secret "diffsecret"}}' | mgr config create --template-driver golang difftemplate - >/dev/null
# networks of each node's own, of which the manager knows the names
for w in w1 w2; do docker_on $w network create --config-only --subnet 192.168.77.0/24 diffcfg >/dev/null || fail "config-only network"; done
mgr network create --config-only --subnet 192.168.77.0/24 diffcfg >/dev/null
mgr network create --config-only --subnet 192.168.78.0/24 diffnocfg >/dev/null
mgr network create --scope swarm --driver bridge --label k=v --opt com.docker.network.bridge.name=difflan difflan >/dev/null
mgr network create --scope swarm --driver bridge --config-from diffcfg difflanconfig >/dev/null
mgr network create --scope swarm --driver bridge --config-from diffnocfg difflannoconfig >/dev/null
todo=()
. "$here/specs"
[ ${#todo[@]} -gt 0 ] || fail "no spec is named $*"

say "${#todo[@]} specs, $n_pending pending"
for cmd in "${todo[@]}"; do
	[ "$(jobs -rp | wc -l)" -lt 8 ] || wait -n
	eval "$cmd" &
done
# not plain "wait": the agent is a job of ours, too
for job in $(jobs -rp); do [ "$job" = "$(agent_pid w1)" ] || wait "$job"; done
[ ! -s "$LAB/refused" ] || fail "the manager refuses specs: $(cat "$LAB/refused")"

# ---- until every task is where it should be, or somewhere else for good
for f in "$LAB"/spec/*; do case $f in *.*) ;; *) echo "{\"${f##*/}\": \"$(cat "$f")\"}" ;; esac; done | jq -s add >"$LAB/expected.json"
api /services | jq 'map({key: .ID, value: .Spec.Name}) | from_entries' >"$LAB/services.json"
unsettled() {
	api /tasks >"$LAB/tasks.json"
	jq -r --slurpfile want "$LAB/expected.json" --slurpfile names "$LAB/services.json" '
		group_by(.ServiceID)[] | $names[0][.[0].ServiceID] as $spec | $want[0][$spec] as $state
		| [.[] | select(.Status.State as $s | $s != $state and ($s | IN("complete", "failed", "rejected", "shutdown", "orphaned") | not))] as $open
		| select(length != 2 or ($open | length > 0)) | "\($spec): \(length) tasks, not \($state) yet: \([$open[] | .Status.State, .Status.Err] | tostring)"
	' "$LAB/tasks.json" >"$LAB/unsettled"
	[ -s "$LAB/unsettled" ]
}
settled() { ! unsettled; }
wait_quiet 150 settled || fail "not settled: $(cat "$LAB/unsettled")"
say "all tasks are settled after $SECONDS s"

# ---- what there is to see
# (nsenter and not "docker exec", which costs an engine twenty times as much)
for w in w1 w2; do
	docker_on $w ps -q --no-trunc | xargs "$DOCKER" -H "unix://$(engine_sock $w)" inspect -f '{{.Id}} {{.State.Pid}}' |
		while read -r id pid; do
			nsenter --target "$pid" --mount --uts --ipc --net --pid --cgroup --root --wd env -i /bin/sh /bin/probe 2>&1 | sed "s/^/$id\t/"
		done >"$LAB/$w.probes" &
	probing+=($!)
done
for job in "${probing[@]}"; do wait "$job" || fail "probing"; done
collect() { # HOST NODEID PHASE: its lines
	local ids
	ids=$(docker_on "$1" ps -aq --no-trunc --filter label=com.docker.swarm.task)
	# shellcheck disable=SC2086
	if [ -n "$ids" ]; then docker_on "$1" inspect $ids; else echo '[]'; fi >"$LAB/$1.containers"
	jq -rn --arg phase "$3" --arg node "$2" --arg lab "$LAB" --arg root "$LAB/$1/data" --slurpfile names "$LAB/services.json" \
		--slurpfile tasks "$LAB/tasks.json" --slurpfile containers "$LAB/$1.containers" --rawfile probes "$LAB/$1.probes" \
		-f "$here/normalise.jq" >>"$LAB/$1.lines" || fail "what $1 shows cannot be read"
}
collect_both() {
	local a b
	collect w1 "$n1" "$1" &
	a=$!
	collect w2 "$n2" "$1" &
	b=$!
	wait $a && wait $b || fail "collecting"
}
collect_both ""
say "looked at after $SECONDS s"
# the specs mean what they say, or two failures would pass for equal
sed -n 's/\ttask\.state / /p' "$LAB/w2.lines" | tr -d '"' | sort >"$LAB/states"
for f in "$LAB"/spec/*; do case $f in *.*) ;; *) echo "${f##*/} $(cat "$f")" ;; esac; done | sort | comm -23 - "$LAB/states" >"$LAB/wrong"
[ ! -s "$LAB/wrong" ] || fail "the dockerd worker's tasks do not end as these specs say: $(cat "$LAB/wrong"; grep -P '\ttask\.(state|err)' "$LAB/w2.lines" | grep -f <(cut -d' ' -f1 "$LAB/wrong"))"

# ---- how tasks stop
stopping=$(jq -r 'map(select(startswith("stop-")))[]' "$LAB/services.json")
for s in $stopping; do
	mgr service update --quiet --detach --force --update-parallelism 0 --update-order stop-first "$s" >/dev/null || fail "update of $s"
done
stopped() {
	api /tasks >"$LAB/tasks.json"
	jq -e --slurpfile names "$LAB/services.json" --arg n "$(echo "$stopping" | grep -c .)" '
		[.[] | select(.DesiredState == "shutdown" and ($names[0][.ServiceID] | startswith("stop-"))
			and (.Status.State | IN("complete", "failed", "shutdown")))] | length == 2 * ($n | tonumber)' "$LAB/tasks.json"
}
wait_quiet 90 stopped || fail "services that should stop do not: $(mgr service ps $stopping)"
collect_both stopped
say "stopped after $SECONDS s"

# ---- what stays: named volumes as they were made, no containers
mgr service ls -q | xargs "$DOCKER" -H "unix://$(engine_sock mgr)" service rm >/dev/null
no_containers() { [ -z "$(docker_on w1 ps -aq)$(docker_on w2 ps -aq)" ]; }
wait_quiet 120 no_containers || fail "containers stay: $(docker_on w1 ps -a; docker_on w2 ps -a)"
for w in w1 w2; do
	docker_on $w volume ls -q >"$LAB/$w.volumes"
	[ ! -s "$LAB/$w.volumes" ] || xargs "$DOCKER" -H "unix://$(engine_sock $w)" volume inspect <"$LAB/$w.volumes" |
		jq -r --arg root "$LAB/$w/data" '.[] | "volumes\t\(.Name) \(del(.CreatedAt, .Name) | .Labels //= {} | .Options //= {} | tojson | split($root) | join("<root>"))" | gsub("[0-9a-f]{64}"; "<hex64>")' >>"$LAB/$w.lines"
	sort -o "$LAB/$w.lines" "$LAB/$w.lines"
done
own_networks() { docker_on "$1" network ls --format '{{.Name}}' | grep -c '^difflan'; }
no_networks() { [ "$(own_networks w1)$(own_networks w2)" = 00 ]; }
wait_quiet 60 no_networks || fail "networks stay: $(docker_on w1 network ls; docker_on w2 network ls)"
say "removed after $SECONDS s"

# ---- the differences, and the ones that are known
LAB_LOG_LINES=${LAB_LOG_LINES:-0}
# "-": only the dockerd worker shows the line, "+": only swarm-agentd does
comm -3 "$LAB/w1.lines" "$LAB/w2.lines" | awk -F'\t' '
	$1 != "" { print $1 " + " substr($0, length($1) + 2); next }
	{ sub("^\t", ""); n = index($0, "\t"); print substr($0, 1, n - 1) " - " substr($0, n + 1) }' >"$LAB/all"
# another state, or a container that only one of them keeps, is one difference, not all that follows
awk 'NR == FNR { if ($3 == "task.state") ends[$1] = 1; if ($3 == "container") lone[$1] = 1; next }
	$1 in ends { if ($3 ~ /^task\.(state|err)$/) print; next }
	!(($1 in lone) && $3 ~ /^(inspect|probe)\./)' "$LAB/all" "$LAB/all" >"$LAB/found"
if [ -n "${DIFF_OUT:-}" ]; then
	mkdir -p "$DIFF_OUT"
	cp "$LAB"/w[12].lines "$LAB/found" "$LAB/tasks.json" "$LAB"/w[12].containers "$DIFF_OUT"
fi
awk -v only="$only" '
	FNR == 1 { file++ }
	file == 1 && /^#/ { reason = 1; next }
	file == 1 && /^ *$/ { reason = 0; next }
	file == 1 {
		if (!reason) { print "without a reason above it: " $0; bad++ }
		sign = $2; rest = substr($0, length($1) + length($2) + 3)
		maybe = sub("[?]$", "", sign)
		n = split($1, specs, ",")
		for (i = 1; i <= n; i++) {
			k = specs[i] " " sign " " rest
			known[k] = 0
			if (maybe) optional[k] = 1
		}
		next
	}
	{
		any = "* " substr($0, length($1) + 2)
		if ($0 in known) known[$0]++
		else if (any in known) known[any]++
		else { print "not known: " $0; bad++ }
	}
	END {
		for (k in known) {
			used += known[k]
			split(k, w, " ")
			if (!known[k] && !(k in optional) && (only == "" || (index(only, " " w[1] " ")))) { print "known, but no longer there: " k; bad++ }
		}
		print (bad + 0) " unexpected differences, " (used + 0) " known ones by " length(known) " entries"
		exit bad > 0
	}' "$here/known-differences" "$LAB/found" || fail "the workers differ"
say "done after $SECONDS s: ${#todo[@]} specs, $n_pending pending"
