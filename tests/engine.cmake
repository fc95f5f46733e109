# The test engine: other rooms' tests link it with LIBS sw_testengine.
add_library(sw_testengine STATIC lib/testengine.c lib/testengine_http.c)
target_link_libraries(sw_testengine PRIVATE sw_flags PUBLIC sw_base PkgConfig::JSONC PkgConfig::UV)
target_include_directories(sw_testengine PUBLIC ${CMAKE_CURRENT_SOURCE_DIR}/lib)
sw_doors(sw_testengine base)
sw_test(component_http LABEL component ROOMS base uio http LIBS sw_testengine
  SOURCES component/test_http.c)

sw_test_program(swarm-testengine ROOMS base LIBS sw_testengine SOURCES tools/swarm_testengine.c)
sw_test(component_engine LABEL component ROOMS base uio engine LIBS sw_testengine
  SOURCES component/test_engine.c)
sw_test(component_engine_streams LABEL component ROOMS base uio engine LIBS sw_testengine
  SOURCES component/test_engine_streams.c)
sw_test(unit_engine_parts LABEL unit ROOMS base uio http engine PRIVATE engine LIBS PkgConfig::JSONC
  SOURCES unit/test_engine_parts.c)
sw_fuzz(fuzz_engine_json ROOMS base uio http engine PRIVATE engine LIBS PkgConfig::JSONC
  SOURCES fuzz/fuzz_engine_json.c)
sw_fuzz(fuzz_engine_logs ROOMS base uio http engine PRIVATE engine LIBS PkgConfig::JSONC
  SOURCES fuzz/fuzz_engine_logs.c)
sw_real_test(integration_engine ROOMS base uio engine LIBS PkgConfig::JSONC
  SOURCES integration/test_engine_real.c)
sw_test_program(bench_engine ROOMS base uio http engine LIBS sw_testengine PkgConfig::CURL
  SOURCES bench/bench_engine.c)
add_test(NAME ${SWARM_TEST_PREFIX}bench_engine COMMAND bench_engine --quick)
set_tests_properties(${SWARM_TEST_PREFIX}bench_engine PROPERTIES LABELS bench TIMEOUT 120)
sw_test(component_engine_tls LABEL component ROOMS base uio engine LIBS PkgConfig::SSL
  SOURCES component/test_engine_tls.c lib/testca.c)
