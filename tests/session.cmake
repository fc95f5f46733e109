sw_test(unit_remotes LABEL unit ROOMS base api session SOURCES unit/test_remotes.c)
sw_test(unit_token LABEL unit ROOMS base api session SOURCES unit/test_token.c)
sw_test(unit_credentials LABEL unit ROOMS base api session PRIVATE session LIBS PkgConfig::SSL
  SOURCES unit/test_credentials.c lib/testca.c)
sw_test(unit_assignments LABEL unit ROOMS base api session PRIVATE session
  SOURCES unit/test_assignments.c)
sw_fuzz(fuzz_token ROOMS base api session SOURCES fuzz/fuzz_token.c)
sw_fuzz(fuzz_assignments ROOMS base api session PRIVATE session SOURCES fuzz/fuzz_assignments.c)

# The test manager: for the tests of every room that talks to one.
add_library(sw_testmanager STATIC lib/testmanager.c lib/tm_nodes.c lib/tm_tasks.c lib/tm_services.c
  lib/tm_logs.c lib/h2server.c lib/testca.c)
target_include_directories(sw_testmanager PUBLIC ${CMAKE_CURRENT_SOURCE_DIR}/lib)
sw_doors(sw_testmanager base api)
target_link_libraries(sw_testmanager PRIVATE sw_flags
  PUBLIC sw_base sw_api PkgConfig::SSL PkgConfig::NGHTTP2 PkgConfig::UV)
set(node_kit lib/nodekit.c lib/looptest.c)
sw_test(component_join LABEL component ROOMS base uio api h2 wire session
  LIBS sw_testmanager PkgConfig::SSL SOURCES component/test_join.c ${node_kit})
sw_test(component_dispatch LABEL component ROOMS base uio api h2 wire session
  LIBS sw_testmanager PkgConfig::SSL SOURCES component/test_dispatch.c ${node_kit})
sw_test_program(session_probe ROOMS base uio api h2 wire session
  SOURCES integration/session_probe.c)
sw_script(integration_session TIMEOUT 400 COMMAND test_session.sh $<TARGET_FILE:session_probe>)
