sw_test(unit_extras LABEL unit ROOMS base api uio engine executor PRIVATE executor
  LIBS PkgConfig::JSONC SOURCES unit/test_extras.c)
sw_test(component_policy LABEL component ROOMS base api uio engine executor
  LIBS PkgConfig::JSONC sw_testengine SOURCES component/test_policy.c)
if(TARGET swarm-agentd AND NOT SWARM_SANITIZE)
  sw_script(integration_policy TIMEOUT 300 COMMAND test_policy.sh)
  sw_script(integration_health TIMEOUT 300 COMMAND test_health.sh)
endif()
