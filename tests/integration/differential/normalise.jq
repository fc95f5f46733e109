# All that one node shows of its tasks -> lines "SPEC<TAB>path value", the same on every node but for
# what differs by nature: ids, addresses, times, names made of them.
# $phase is "" for the tasks that came up, "stopped" for those that were told to stop.
#   jq -rn --arg phase P --arg node ID --arg lab DIR --arg root DIR --slurpfile names F
#      --slurpfile tasks F --slurpfile containers F --rawfile probes F

def scrub($words): reduce $words[] as $w (.; split($w[0]) | join($w[1]))
	| gsub("[0-9a-f]{64}"; "<hex64>")
	| gsub("(?<![0-9.])(172\\.[0-9]+|192\\.168)\\.[0-9]+\\.[0-9]+"; "<ip>")
	| gsub("(/tasks/<task>/[0-9]+ ro,relatime \\[\\] tmpfs tmpfs .*|/[a-z0-9]{25} ro,relatime \\[master\\] tmpfs tmpfs ro)$"; "<file> ro tmpfs")
	| gsub("02:42(:[0-9a-f]{2}){4}"; "<mac>");

# chosen by the engine from the ephemeral range
def port: if test("^[0-9]+$") and tonumber >= 32768 then "<ephemeral>" else . end;

# to the API these are one
def nothing: . == null or . == "" or . == [] or . == {};
def plain: type != "object" and type != "array";
def key_of: .Target // .Destination // .Name // tojson;

def leaves($path):
	if nothing then empty
	elif plain then "\($path) \(tojson)"
	elif type == "array" and all(.[]; plain) then "\($path) \(tojson)"
	elif type == "array" then
		# lists of objects have no order that means something, but bindings of one port do not have names
		sort_by(key_of) | to_entries[] | .key as $i | .value
		| (if has("HostPort") then "\($i)" else key_of end) as $l | leaves("\($path)[\($l)]")
	else to_entries | sort_by(.key)[] | .key as $k | .value | leaves("\($path).\($k)")
	end;

# files of the agent's own folder: one line, if they are as they must be
def files($task):
	def own: (.Source // "") | test("/w1/run/tasks/" + $task + "/[0-9]+$");
	{files: [.HostConfig.Mounts[]? | select(own and .ReadOnly and .BindOptions.Propagation == "rprivate") | .Target]} as $f
	| if $f.files == [] then . else
		.HostConfig.Mounts |= map(select(own | not)) | .Mounts |= map(select((own and .RW == false) | not)) | . + $f
	end;

def container:
	del(.Id, .Created, .LogPath, .State.Pid, .State.StartedAt, .State.FinishedAt, .State.Health.Log, .State.Health.FailingStreak, .ExecIDs, .GraphDriver,
		.NetworkSettings.SandboxKey)
	| if .Config.Labels["io.swarm-agentd.cluster"] then .Config.Labels["io.swarm-agentd.cluster"] = "<cluster>" else . end
	# dockerd walks a map here: the order is another each time
	| if .Config.Env then .Config.Env |= map(select(startswith("DOCKER_RESOURCE_") | not)) + (map(select(startswith("DOCKER_RESOURCE_"))) | sort) else . end
	# the command line sorts networks by id: which one is the first differs from run to run
	| if (.HostConfig.NetworkMode // "") | startswith("difflan") then .HostConfig.NetworkMode = "<first>" else . end
	| (.NetworkSettings.Networks // {} | keys) as $nets | reduce $nets[] as $n (.; .NetworkSettings.Networks[$n].NetworkID |= if nothing then . else "<id>" end)
	| walk(if type == "object" and has("HostPort") and (.HostPort | type) == "string" then .HostPort |= port else . end);

def task: {
		state: .Status.State, message: .Status.Message, err: .Status.Err, desired: .DesiredState,
		exit: .Status.ContainerStatus.ExitCode,
		ports: [.Status.PortStatus.Ports[]? | "\(.PublishedPort | tostring | port)->\(.TargetPort)/\(.Protocol) \(.PublishMode)"] | unique,
		ports_twice: ([.Status.PortStatus.Ports[]?] | if length > (unique | length) then true else null end),
		generic: .AssignedGenericResources | tojson
	};

($containers[0] | INDEX(.Config.Labels["com.docker.swarm.task.id"])) as $by_task
| ($probes | split("\n") | map(select(contains("\t")) | split("\t"))
	| group_by(.[0]) | map({key: .[0][0], value: .}) | from_entries) as $by_container
| $tasks[0][] | select(.NodeID == $node and $names[0][.ServiceID])
| select($phase == "" or (.DesiredState == "shutdown" and ($names[0][.ServiceID] | startswith("stop-"))))
| . as $task | $names[0][.ServiceID] as $spec | $by_task[.ID] as $c
| (if $c then [[$c.Id, "<container>"], [$c.Id[0:12], "<container12>"]] else [] end
	+ (if .Slot then [["\($spec).\(.Slot).\(.ID)", "\($spec).<slot>.<task>"], ["SLOT=\(.Slot)", "SLOT=<slot>"],
		["r-\(.Slot)", "r-<slot>"]] else [] end)
	+ [[.ID, "<task>"], [$node, "<node>"], [$root, "<root>"], [$lab, "<lab>"]]) as $words
| if $phase == "" then
		($task | task | leaves("task")), "container \($c != null)", ($c // {} | files($task.ID) | container | leaves("inspect")),
		($by_container[$c.Id? // ""][]? | select(.[2] != "") | "probe.\(.[1]) \(.[2:] | join(" "))")
	else
		($task | task | leaves("\($phase).task")), ($c // {} | container | .State | leaves("\($phase).inspect.State"))
	end
| scrub($words) | gsub("\n"; " ") | "\($spec)\t\(.)"
