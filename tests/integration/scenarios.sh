#!/bin/bash
# scenarios.sh: random scenarios against real engines, four truths compared after each.
#   --count N     how many (default 6)
#   --seed S      of the first one, the next has S+1 (default: by chance; it is printed)
#   --plan FILE   runs the plans of a file instead: steps as printed, each plan begun by "plan NAME"
#   --verbose     prints each step when it is done
# A scenario is a plan, made from its seed before anything runs: services come, change and go while the
# agent, the engines, the network and the disk have accidents. When all accidents are over it must come to
# rest, and what was wanted, what the manager believes, what the store says and what the engine runs
# must be the same; the rules are in truths.sql, the verbs in scenario_steps.sh. Then everything is removed, and
# nothing may be left anywhere.
here=$(dirname "$0")
. "$here/lib.sh"
. "$here/scenario_steps.sh"
count=6 seed=$((RANDOM * 32768 + RANDOM)) plan_file="" verbose=""
while [ $# -gt 0 ]; do
	case $1 in
	--count) count=${2:?--count needs a number} && shift ;;
	--seed) seed=${2:?--seed needs a number} && shift ;;
	--plan) plan_file=$(realpath "${2:?--plan needs a file}") && shift ;;
	--verbose) verbose=1 ;;
	*)
		sed -n '2,6s/^# \{0,1\}//p' "$0"
		[ "$1" = --help ] || [ "$1" = -h ]
		exit $(($? * 2))
		;;
	esac
	shift
done

# ---- plans

# Own numbers: those of the shell differ from version to version.
rnd_seed() {
	X=$(($1 * 2654435761 % 2147483648))
	rnd 2
	rnd 2
	rnd 2
}
rnd() { # N: R is 0..N-1
	X=$(((X * 1103515245 + 12345) & 0x7fffffff))
	R=$(((X >> 8) % $1))
}
pick() { # WORD...: R is one of them
	rnd $#
	shift $R
	R=$1
}
emit() { PLAN+=("$*"); }

# What is open while a plan is made: accidents with the number of steps until they end.
declare -A open g_kind g_repl g_ver
g_avail=active g_next=0

g_total() {
	local s
	TOTAL=0
	for s in "${!g_kind[@]}"; do TOTAL=$((TOTAL + g_repl[$s])); done
}
g_pick_service() { # KIND-REGEX: R is one of those services, or ""
	local s list=()
	for s in $(printf '%s\n' "${!g_kind[@]}" | sort); do
		[[ ${g_kind[$s]} =~ ^($1)$ ]] && list+=("$s")
	done
	R=""
	[ ${#list[@]} = 0 ] || pick "${list[@]}"
}
g_create() {
	local name kind repl net code secs
	g_total
	[ $TOTAL -lt 20 ] || return 1
	g_next=$((g_next + 1))
	name=s$g_next
	pick steady steady steady trap trap stubborn once once fails healthy late sick nobind && kind=$R
	rnd 8 && repl=$((R + 1))
	case $kind in sick | fails | nobind | stubborn) repl=$(((repl + 2) / 3)) ;; esac
	pick host host host host bridge && net=$R
	pick 0 1 3 42 && code=$R
	[ $kind != fails ] || [ "$code" != 0 ] || code=7
	rnd 5 && secs=$R
	g_kind[$name]=$kind g_repl[$name]=$repl g_ver[$name]=1
	emit create $name $kind $repl "$net" "$code" "$secs"
}
g_open() { # WHAT STEP...: an accident that ends some steps later
	local what=$1
	shift
	[ -z "${open[$what]:-}" ] || return 1
	rnd 3
	open[$what]=$((R + 1))
	emit "$@"
}
g_close() { # WHAT
	unset "open[$1]"
	case $1 in
	cut) emit uncut ;;
	agent) emit agent_thaw ;;
	engine) emit engine_thaw ;;
	disk) emit unfull ;;
	esac
}
g_one() {
	local s t
	rnd 12 && t=$R
	case $1 in
	create) g_create ;;
	scale)
		g_pick_service 'steady|trap|stubborn|healthy|late'
		[ -n "$R" ] || return 1
		s=$R
		rnd 9
		g_repl[$s]=$R
		emit scale "$s" $R
		;;
	update)
		g_pick_service 'steady|trap|stubborn|healthy|late'
		[ -n "$R" ] || return 1
		s=$R
		g_ver[$s]=$((g_ver[$s] + 1))
		pick stop-first stop-first start-first && t=$R
		rnd 4
		emit update "$s" "${g_ver[$s]}" "$t" $R
		;;
	rm)
		g_pick_service '.*'
		[ -n "$R" ] || return 1
		unset "g_kind[$R]" "g_repl[$R]" "g_ver[$R]"
		emit rm "$R"
		;;
	avail)
		[ $g_avail = active ] || return 1
		pick drain drain pause
		g_avail=$R
		open[avail]=2
		emit avail $g_avail
		;;
	agent_kill)
		[ -z "${open[disk]:-}" ] || return 1
		emit agent_kill $t
		unset "open[agent]"
		;;
	agent_storm)
		[ -z "${open[disk]:-}" ] || return 1
		rnd 5
		emit agent_storm $((R + 2)) $((t / 2))
		unset "open[agent]"
		;;
	agent_term)
		[ -z "${open[disk]:-}${open[agent]:-}${open[engine]:-}" ] || return 1
		emit agent_term $t
		;;
	engine_kill)
		pick live dead
		emit engine_kill "$R" $t
		unset "open[engine]"
		;;
	engine_restart)
		[ -z "${open[engine]:-}" ] || return 1
		pick live dead
		emit engine_restart "$R" $t
		;;
	agent_freeze) g_open agent agent_freeze ;;
	engine_freeze) g_open engine engine_freeze ;;
	mgr_kill | mgr_restart) emit "$1" $t ;;
	mgr_freeze) emit mgr_freeze $((t * 5)) ;;
	cut)
		pick both in out lossy
		g_open cut cut "$R"
		;;
	full) g_open disk full ;;
	die | gone)
		[ -z "${open[engine]:-}" ] || return 1
		rnd 20
		emit "$1" $R
		;;
	settle)
		[ -z "${open[cut]:-}${open[agent]:-}${open[engine]:-}${open[disk]:-}" ] || return 1
		emit settle
		;;
	esac
}
g_later() { # accidents whose time is over
	local o
	for o in $(printf '%s\n' "${!open[@]}" | sort); do
		open[$o]=$((open[$o] - 1))
		[ "${open[$o]}" -le 0 ] || [ -n "${1:-}" ] || continue
		if [ "$o" = avail ]; then
			unset "open[avail]"
			g_avail=active
			emit avail active
		else
			g_close "$o"
		fi
	done
}
make_plan() { # SEED
	local i first steps
	rnd_seed "$1"
	PLAN=() open=() g_kind=() g_repl=() g_ver=()
	g_avail=active g_next=0
	rnd 3 && first=$R
	for ((i = 0; i <= first; i++)); do g_create; done
	rnd 7
	steps=$((R + 5))
	for ((i = 0; i < steps; i++)); do
		rnd 10
		[ $R -ge 6 ] || { rnd 25 && emit wait $R; }
		[ ${#open[@]} = 0 ] || { rnd 8 && [ $R != 0 ]; } || emit wait 90 # long enough to be taken for dead
		pick create create scale scale scale update update rm avail agent_kill agent_kill agent_kill agent_storm agent_term \
			agent_freeze engine_kill engine_kill engine_restart engine_freeze mgr_kill mgr_restart mgr_freeze \
			cut cut full die gone settle
		g_one "$R" || i=$((i - 1)) # not possible now: another one
		g_later
	done
	g_later all
}

# ---- runs
run_plan() { # of PLAN
	local line t=$SECONDS
	SCENARIO=$1
	VIOLENT=0
	W_KIND=() W_REPLICAS=() W_VERSION=() W_IMAGE=() W_CODE=()
	: >"$LAB/plan"
	for line in "${PLAN[@]}"; do
		local -a words
		read -ra words <<<"$line"
		echo "$line" >>"$LAB/plan"
		declare -F "do_${words[0]}" >/dev/null || fail "$SCENARIO: no such step: $line"
		"do_${words[0]}" "${words[@]:1}"
		[ -z "$verbose" ] || echo "   $((SECONDS - t)) s: $line"
	done
	end_disturbances
	settle "at the end"
	local services=${#W_KIND[@]} tasks
	tasks=$(wc -l < <(docker_on w1 ps -q))
	do_avail active
	for line in "${!W_KIND[@]}"; do do_rm "$line"; done
	settle "everything removed"
	[ -z "$(docker_on w1 ps -aq)" ] || disagree "containers are left"
	[ "$(agent_sql w1 'select count(*) from tasks')" = 0 ] || disagree "tasks are left in the store"
	if grep -E 'ERROR: (Address|Leak|Thread)Sanitizer|runtime error:|status would go back|desired state goes back' "$LAB/log/agent-w1.log"; then
		disagree "see the agent's log"
	fi
	say "$SCENARIO: $((SECONDS - t)) s, ${#PLAN[@]} steps, $services services and $tasks containers at the end, agent $(agent_size)"
	for line in "$LAB"/log/*.log; do : >"$line"; done
	AGENT_LOG_AT=0
}
agent_size() {
	echo "$(awk '/^VmRSS/ { print $2 " kB" }' "/proc/$(agent_pid w1)/status"), $(find "/proc/$(agent_pid w1)/fd" -type l 2>/dev/null | wc -l) fds"
}

say "scenarios: seed $seed, count $count, agent $AGENTD"
lab_init scenarios
lab_host mgr 10.213.0.1
lab_host w1 10.213.0.2
lab_rootfs
cat >"$LAB/rootfs/bin/life" <<'LIFE'
#!/bin/sh
# life KIND VERSION [CODE SECONDS]
case $1 in
trap) trap 'exit 0' TERM ;;
stubborn) trap '' TERM ;;
late) sleep 2; : >/tmp/ok ;;
once | fails) sleep "$4"; exit "$3" ;;
esac
sleep 100000 &
wait
wait
LIFE
chmod 755 "$LAB/rootfs/bin/life"
ln -sf busybox "$LAB/rootfs/bin/test"
mkdir -p "$LAB/truth"
engine_launch mgr
engine_start w1
wait_quiet 60 docker_on mgr version || skip "dockerd does not start here"
engine_import w1
docker_on w1 tag "$LAB_IMAGE" lab:2
swarm_init mgr
# sooner taken for dead, and a disk that can be filled
mgr swarm update --dispatcher-heartbeat 2s --task-history-limit 3 >/dev/null
mkdir -p "$LAB/w1/state"
mount -t tmpfs -o size=24m,mode=700 lab-state "$LAB/w1/state"
agent_start w1
wait_for 60 "w1 Ready" node_is w1 Ready

if [ -n "$plan_file" ]; then
	REPLAY="$0 --plan $plan_file"
	PLAN=() name=""
	while IFS= read -r line; do
		case $line in
		"" | "#"*) ;;
		"plan "*)
			[ -z "$name" ] || run_plan "$name"
			name=$line PLAN=()
			;;
		*) PLAN+=("$line") ;;
		esac
	done <"$plan_file"
	[ -z "$name" ] || run_plan "$name"
else
	for ((k = 0; k < count; k++)); do
		REPLAY="$0 --seed $((seed + k)) --count 1"
		make_plan $((seed + k))
		run_plan "$((k + 1))/$count seed $((seed + k))"
	done
fi
agent_stop w1
[ "$AGENT_CODE" = 0 ] || fail "the agent ended with $AGENT_CODE"
say "done: no disagreement${NUDGES:+, the manager was nudged $NUDGES times}"
