#!/bin/bash
# The rules of tests/integration/truths.sql find each disagreement, and none where all agree: one good
# picture of a small swarm, and one change to it after the other.
. "$(dirname "$0")/../integration/lib.sh"
command -v sqlite3 >/dev/null || skip "sqlite3 is not installed"
sql=$LAB_TOP/tests/integration/truths.sql
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir" || exit 1

task() { # ID SVC SLOT DESIRED STATE ERR CID CODE NODE
	printf '{"ID":"%s","ServiceID":"%s","Slot":%s,"DesiredState":"%s","NodeID":"%s","Status":{"State":"%s","Message":"m","Err":"%s","ContainerStatus":{"ContainerID":"%s","ExitCode":%s}}}' \
		"$1" "$2" "$3" "$4" "${9-n1}" "$5" "$6" "$7" "$8"
}
container() { # CID TASK NAME RUNNING STATUS CODE CMD
	printf '{"Id":"%s","Name":"/%s","Config":{"Image":"lab:1","Cmd":["life",%s],"Labels":{"com.docker.swarm.task.id":"%s","com.docker.swarm.service.name":"%s"}},"State":{"Status":"%s","Running":%s,"ExitCode":%s}}' \
		"$1" "$3" "$7" "$2" "${3%%.*}" "$5" "$4" "$6"
}
good() { # web runs, codes ended with 4
	rm -f ./*
	printf 'web|steady|1|1|lab:1||0\ncodes|once|1|1|lab:1|4|0\n' >wanted.txt
	echo '[{"ID":"v1","Spec":{"Name":"web"}},{"ID":"v2","Spec":{"Name":"codes"}}]' >services.json
	echo '[{"ID":"n1","Description":{"Hostname":"w1"},"Status":{"State":"ready"},"Spec":{"Availability":"active"}}]' >nodes.json
	echo "[$(task t1 v1 1 running running '' c1 0),$(task t2 v2 1 shutdown failed 'exit 4' c2 4)]" >tasks.json
	echo "[$(container c1 t1 web.1 true running 0 '"steady","1"'),$(container c2 t2 codes.1 false exited 4 '"once","1","4","0"')]" >containers.json
	sqlite3 agent.db "
		CREATE TABLE states (state INTEGER PRIMARY KEY, name TEXT);
		INSERT INTO states VALUES (512,'RUNNING'),(576,'COMPLETE'),(640,'SHUTDOWN'),(704,'FAILED');
		CREATE TABLE tasks (task_id, service_name, phase, desired_state);
		CREATE TABLE task_status (task_id, state, message, err, container_id, exit_code, seq, acked_seq);
		INSERT INTO tasks VALUES ('t1','web','assigned',512),('t2','codes','assigned',640);
		INSERT INTO task_status VALUES ('t1',512,'m','','c1',NULL,1,1),('t2',704,'m','exit 4','c2',4,2,2);"
}
wrong() { { echo "ATTACH 'file:$dir/agent.db?mode=ro' AS a;" && cat "$sql"; } | sqlite3 -bail :memory: 2>&1; }
bad=0
finds() { # WHAT COMMAND...: the good picture, changed by the command
	local what=$1 out
	shift
	good
	"$@"
	out=$(wrong)
	grep -qF -- "$what" <<<"$out" || {
		echo "not found: $what, but: $out"
		bad=1
	}
}
change() { sed -i "$2" "$1"; }
store() { sqlite3 agent.db "$1"; }

good
out=$(wrong)
[ -z "$out" ] || fail "the good picture shows: $out"

finds 'node is not ready' change nodes.json 's/ready/down/'
finds 'the store lacks a task' store "DELETE FROM tasks WHERE task_id = 't2'"
finds 'the store has a task that the manager has not' store "INSERT INTO tasks VALUES ('t3','web','assigned',512)"
finds 'manager and store: state' store "UPDATE task_status SET state = 576 WHERE task_id = 't2'"
finds 'manager and store: desired state' store "UPDATE tasks SET desired_state = 640"
finds 'manager and store: text' store "UPDATE task_status SET err = 'x' WHERE task_id = 't2'"
finds 'manager and store: container' store "UPDATE task_status SET container_id = 'x' WHERE task_id = 't2'"
finds 'manager and store: exit code' store "UPDATE task_status SET exit_code = NULL WHERE task_id = 't2'"
finds 'a status was not acknowledged' store "UPDATE task_status SET acked_seq = 0 WHERE task_id = 't2'"
finds 'a status was not acknowledged' store "DELETE FROM task_status WHERE task_id = 't2'"
finds 'a removal is left' store "UPDATE tasks SET phase = 'removing' WHERE task_id = 't2'"
finds 'two containers of one task' change containers.json 's/"task.id":"t2"/"task.id":"t1"/;s/task.id":"t2/task.id":"t1/'
finds 'a container without a task' change containers.json 's/task.id":"t2/task.id":"t9/'
finds 'RUNNING, but its container is not' change containers.json 's/"Running":true/"Running":false/'
finds 'RUNNING, but its container is not' change containers.json 's/"Id":"c1"/"Id":"c9"/'
finds 'not RUNNING, but its container is' change containers.json 's/"exited"/"running"/'
finds 'store and engine: exit code' change containers.json 's/"ExitCode":4/"ExitCode":0/'
finds 'nobody wants the service' change wanted.txt '/^web/d'
finds 'the manager lacks a service' change services.json 's/"web"/"other"/'
finds 'a task of no service' change services.json 's/"v2"/"v9"/'
finds 'not settled' change tasks.json 's/"running","NodeID":"n1"/"shutdown","NodeID":"n1"/'
finds 'not settled' change tasks.json 's/"State":"running"/"State":"pending"/'
finds 'an update goes on' change services.json 's/"ID":"v1",/"ID":"v1","UpdateStatus":{"State":"updating"},/'
finds 'number of running tasks' change wanted.txt 's/^web|steady|1/web|steady|2/'
finds 'number of running tasks' change nodes.json 's/active/drain/'
finds 'two running tasks of one slot' change tasks.json "s/^\\[/[$(task t3 v1 1 running running '' c3 0),/"
finds 'what it runs is not what was wanted' change wanted.txt 's/^web|steady|1|1/web|steady|1|2/'
finds 'what it runs is not what was wanted' change wanted.txt '/^web/s/lab:1/lab:2/'
finds ' | t2 | codes FAILED 4 <> 5' change wanted.txt 's/|4|0$/|5|0/'
finds 'an end is missing' change wanted.txt 's/^codes|once|1/codes|once|2/'
[ $bad = 0 ] && say "done"
exit $bad
