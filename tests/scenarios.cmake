sw_script(component_truths LABEL component TIMEOUT 60 PARALLEL
  COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/component/test_truths.sh)
if(TARGET swarm-agentd)
  # another seed each time; it is printed
  if(SWARM_SANITIZE)
    sw_script(integration_scenarios TIMEOUT 1200 COMMAND scenarios.sh --count 3)
  else()
    sw_script(integration_scenarios TIMEOUT 1200 COMMAND scenarios.sh --count 6)
    sw_script(integration_scenarios_again TIMEOUT 1200 COMMAND scenarios.sh --plan scenarios.failed)
  endif()
endif()
