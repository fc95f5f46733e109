sw_test(unit_config LABEL unit ROOMS base cli PRIVATE cli SOURCES unit/test_config.c)
sw_test(unit_notify LABEL unit ROOMS base cli PRIVATE cli SOURCES unit/test_notify.c)

if(NOT SWARM_SANITIZE)
  foreach(lint format house)
    add_test(NAME lint_${lint} COMMAND bash ${CMAKE_CURRENT_SOURCE_DIR}/lint/${lint}.sh)
    set_tests_properties(lint_${lint} PROPERTIES LABELS lint SKIP_RETURN_CODE 77 TIMEOUT 300)
  endforeach()
  file(GLOB rooms RELATIVE ${CMAKE_SOURCE_DIR}/src CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/*)
  foreach(room ${rooms})
    add_test(NAME lint_tidy_${room}
      COMMAND bash ${CMAKE_CURRENT_SOURCE_DIR}/lint/tidy.sh ${CMAKE_BINARY_DIR} ${room})
    set_tests_properties(lint_tidy_${room} PROPERTIES LABELS lint SKIP_RETURN_CODE 77 TIMEOUT 900)
  endforeach()
endif()

if(TARGET swarm-agentd)
  # command line and exit codes without any swarm
  sw_script(component_cli LABEL component TIMEOUT 60 PARALLEL
    COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/component/test_cli.sh)
  if(SWARM_SANITIZE)
    # one whole scenario under the sanitizers
    sw_script(integration_kill TIMEOUT 600 COMMAND test_kill.sh 8 12)
    sw_script(integration_service TIMEOUT 600 COMMAND test_service.sh)
  else()
    sw_script(integration_service TIMEOUT 400 COMMAND test_service.sh)
    sw_script(integration_errors TIMEOUT 400 COMMAND test_errors.sh)
    sw_script(integration_secrets TIMEOUT 600 COMMAND test_secrets.sh)
    sw_script(integration_join TIMEOUT 400 COMMAND test_join.sh)
    sw_script(integration_outage TIMEOUT 600 COMMAND test_outage.sh)
    sw_script(integration_kill TIMEOUT 600 COMMAND test_kill.sh 20 30)
    sw_script(integration_valgrind TIMEOUT 900 ENV AGENT_VALGRIND=1 COMMAND test_kill.sh 2 6)
    sw_script(integration_differential TIMEOUT 900 COMMAND differential.sh)
    sw_script(integration_idle TIMEOUT 300 PARALLEL COMMAND test_idle.sh)
    sw_script(integration_quickstart TIMEOUT 300
      ENV SWARM_BUILD_DIR=${CMAKE_BINARY_DIR} COMMAND ${CMAKE_SOURCE_DIR}/contrib/quickstart --check)
  endif()
endif()
