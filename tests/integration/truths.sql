-- truths.sql - what was wanted, what the manager believes, what the store says, what the engine runs:
-- every disagreement is one row. Run in an empty database with the store attached as "a", in a folder
-- with tasks.json services.json nodes.json (manager), containers.json (engine) and wanted.txt.

CREATE TABLE w (name TEXT PRIMARY KEY, kind, replicas INT, version INT, image, code INT, violent INT);
.separator |
.import wanted.txt w

CREATE TABLE sv AS SELECT value ->> 'ID' AS id, value ->> '$.Spec.Name' AS name,
	coalesce(value ->> '$.UpdateStatus.State', '') AS updating
	FROM json_each(readfile('services.json'));
CREATE TABLE nd AS SELECT value ->> 'ID' AS id, value ->> '$.Description.Hostname' AS host,
	value ->> '$.Status.State' AS state, value ->> '$.Spec.Availability' AS avail
	FROM json_each(readfile('nodes.json'));
CREATE TABLE m AS SELECT value ->> 'ID' AS id, value ->> 'ServiceID' AS svc_id,
	(SELECT name FROM sv WHERE sv.id = value ->> 'ServiceID') AS svc, coalesce(value ->> 'Slot', 0) AS slot,
	coalesce(value ->> 'NodeID', '') AS node, upper(value ->> 'DesiredState') AS desired,
	upper(value ->> '$.Status.State') AS state, coalesce(value ->> '$.Status.Message', '') AS message,
	coalesce(value ->> '$.Status.Err', '') AS err,
	coalesce(value ->> '$.Status.ContainerStatus.ContainerID', '') AS cid,
	coalesce(value ->> '$.Status.ContainerStatus.ExitCode', 0) AS code
	FROM json_each(readfile('tasks.json'));
CREATE TABLE s AS SELECT t.task_id AS id, t.service_name AS svc, t.phase AS phase,
	coalesce(d.name, t.desired_state) AS desired, coalesce(n.name, ts.state) AS state, ts.message AS message,
	ts.err AS err, coalesce(ts.container_id, '') AS cid, coalesce(ts.exit_code, 0) AS code,
	ts.acked_seq >= ts.seq AS acked
	FROM a.tasks t LEFT JOIN a.task_status ts USING (task_id) LEFT JOIN a.states n ON n.state = ts.state
	LEFT JOIN a.states d ON d.state = t.desired_state;
CREATE TABLE e AS SELECT value ->> 'Id' AS cid, ltrim(value ->> 'Name', '/') AS name,
	value ->> '$.Config.Labels."com.docker.swarm.task.id"' AS id,
	value ->> '$.Config.Labels."com.docker.swarm.service.name"' AS svc, value ->> '$.State.Status' AS status,
	value ->> '$.State.Running' AS running, value ->> '$.State.ExitCode' AS code, value ->> '$.Config.Image' AS image,
	(SELECT group_concat(j.value, ' ') FROM json_each(x.value, '$.Config.Cmd') j) AS cmd
	FROM json_each(readfile('containers.json')) x;
CREATE TEMP VIEW final AS SELECT name AS state FROM a.states WHERE state >= 576;
CREATE TEMP VIEW here AS SELECT id, state, avail FROM nd WHERE host = 'w1';

CREATE TEMP VIEW wrong AS
-- the node
SELECT 'node is not ready' AS what, id, state AS detail FROM here WHERE state <> 'ready'
-- manager and store
UNION ALL SELECT 'the store lacks a task of the manager', id, svc || ' ' || state || '/' || desired FROM m
	WHERE node = (SELECT id FROM here) AND id NOT IN (SELECT id FROM s)
UNION ALL SELECT 'the store has a task that the manager has not', id, svc || ' ' || state || '/' || desired FROM s
	WHERE id NOT IN (SELECT id FROM m)
UNION ALL SELECT 'manager and store: state', id, m.state || ' <> ' || s.state FROM m JOIN s USING (id)
	WHERE m.state <> s.state
UNION ALL SELECT 'manager and store: desired state', id, m.desired || ' <> ' || s.desired FROM m JOIN s USING (id)
	WHERE m.desired <> s.desired
UNION ALL SELECT 'manager and store: text', id, m.message || ': ' || m.err || ' <> ' || s.message || ': ' || s.err
	FROM m JOIN s USING (id) WHERE m.message <> s.message OR m.err <> s.err
UNION ALL SELECT 'manager and store: container', id, m.cid || ' <> ' || s.cid FROM m JOIN s USING (id)
	WHERE m.cid <> s.cid
UNION ALL SELECT 'manager and store: exit code', id, m.code || ' <> ' || s.code FROM m JOIN s USING (id)
	WHERE m.code <> s.code
UNION ALL SELECT 'a status was not acknowledged', id, state FROM s WHERE NOT coalesce(acked, 0)
UNION ALL SELECT 'a removal is left', id, svc FROM s WHERE phase <> 'assigned'
-- store and engine
UNION ALL SELECT 'two containers of one task', id, group_concat(name, ' ') FROM e GROUP BY id HAVING count(*) > 1
UNION ALL SELECT 'a container without a task', id, name || ' ' || status FROM e WHERE id NOT IN (SELECT id FROM s)
UNION ALL SELECT 'RUNNING, but its container is not', id, s.svc || ' ' || s.cid FROM s WHERE state = 'RUNNING'
	AND NOT EXISTS (SELECT 1 FROM e WHERE e.id = s.id AND e.cid = s.cid AND e.running)
UNION ALL SELECT 'not RUNNING, but its container is', id, s.svc || ' ' || s.state || ' ' || e.cid
	FROM s JOIN e USING (id) WHERE s.state <> 'RUNNING' AND e.status NOT IN ('exited', 'created', 'dead')
UNION ALL SELECT 'store and engine: exit code', id, s.code || ' <> ' || e.code FROM s JOIN e USING (id)
	WHERE s.state IN ('COMPLETE', 'FAILED', 'SHUTDOWN') AND s.cid = e.cid AND s.code <> e.code
-- all of it and what was wanted
UNION ALL SELECT 'nobody wants the service', id, name FROM sv WHERE name NOT IN (SELECT name FROM w)
UNION ALL SELECT 'the manager lacks a service', '', name FROM w WHERE name NOT IN (SELECT name FROM sv)
UNION ALL SELECT 'a task of no service', id, state || '/' || desired FROM m WHERE svc IS NULL
	AND node = (SELECT id FROM here)
UNION ALL SELECT 'not settled', id, svc || ' ' || state || '/' || desired FROM m
	WHERE state NOT IN (SELECT state FROM final) AND NOT (state = 'RUNNING' AND desired = 'RUNNING')
	AND NOT (node = '' AND (svc IS NULL OR desired = 'SHUTDOWN' OR desired = 'REMOVE'))
	AND NOT (node = '' AND state IN ('NEW', 'PENDING') AND (SELECT avail FROM here) <> 'active')
UNION ALL SELECT 'an update goes on', id, name || ' ' || updating FROM sv
	WHERE updating NOT IN ('', 'completed') AND (SELECT avail FROM here) = 'active'
UNION ALL SELECT 'number of running tasks', '', name || ' ' || have || ' <> ' || want FROM (
	SELECT name, CASE WHEN (SELECT avail FROM here) = 'drain' OR kind IN ('once', 'fails', 'sick', 'nobind')
		THEN 0 ELSE replicas END AS want, (SELECT count(DISTINCT slot) FROM m WHERE svc = name AND state = 'RUNNING') AS have
	FROM w) WHERE have <> want AND (SELECT avail FROM here) <> 'pause'
UNION ALL SELECT 'two running tasks of one slot', '', svc || '.' || slot FROM m WHERE state = 'RUNNING'
	GROUP BY svc_id, slot HAVING count(*) > 1
UNION ALL SELECT 'what it runs is not what was wanted', e.id, e.name || ': ' || e.image || ' ' || e.cmd
	FROM e JOIN w ON w.name = e.svc WHERE e.running AND (e.image <> w.image
	OR e.cmd || ' ' NOT LIKE 'life ' || w.kind || ' ' || w.version || ' %')
	AND (SELECT avail FROM here) = 'active'
-- the end that the program itself chose
UNION ALL SELECT 'exit code', m.id, w.name || ' ' || m.state || ' ' || m.code || ' <> ' || w.code
	FROM m JOIN w ON w.name = m.svc WHERE w.kind IN ('once', 'fails') AND NOT w.violent
	AND m.state IN ('COMPLETE', 'FAILED', 'REJECTED') AND m.code <> w.code
UNION ALL SELECT 'an end is missing', '', w.name FROM w WHERE w.kind = 'once' AND NOT w.violent
	AND (SELECT count(*) FROM m WHERE m.svc = w.name) <> w.replicas;

.mode list
.separator " | "
SELECT * FROM wrong ORDER BY 1, 2;
