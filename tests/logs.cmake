# Logs, exits and engines of other kinds, against a real manager.
if(TARGET swarm-agentd AND NOT SWARM_SANITIZE)
  sw_script(integration_logs TIMEOUT 600 COMMAND test_logs.sh)
  sw_script(integration_exits TIMEOUT 900 COMMAND test_exits.sh 120)
  sw_script(integration_podman TIMEOUT 600 COMMAND test_podman.sh)
  sw_script(integration_engine_tls TIMEOUT 600 COMMAND test_engine_tls.sh)
endif()
