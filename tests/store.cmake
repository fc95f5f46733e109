set(store_lib lib/store_help.c)
sw_test(unit_store LABEL unit ROOMS base store SOURCES unit/test_store.c ${store_lib})
sw_test(unit_store_open LABEL unit ROOMS base store PRIVATE store SOURCES unit/test_store_open.c
  ${store_lib})
sw_test(component_store_faults LABEL component TIMEOUT 300 ROOMS base store LIBS PkgConfig::SQLITE
  SOURCES component/test_store_faults.c lib/faultvfs.c ${store_lib})
sw_test(component_store_people LABEL component TIMEOUT 300 ROOMS base store LIBS PkgConfig::SQLITE
  SOURCES component/test_store_people.c ${store_lib})
sw_test(component_store_kill LABEL component TIMEOUT 300 ROOMS base store LIBS PkgConfig::SQLITE
  SOURCES component/test_store_kill.c ${store_lib})
sw_test(component_store_full LABEL component ROOMS base store LIBS PkgConfig::SQLITE
  SOURCES component/test_store_full.c ${store_lib})
sw_test_program(bench_store ROOMS base store SOURCES bench/bench_store.c)
add_test(NAME ${SWARM_TEST_PREFIX}bench_store COMMAND bench_store --quick)
set_tests_properties(${SWARM_TEST_PREFIX}bench_store PROPERTIES LABELS bench TIMEOUT 120)
# hundreds of forked children: TSan's second of rest at every exit would be minutes
set_tests_properties(${SWARM_TEST_PREFIX}component_store_faults PROPERTIES
  ENVIRONMENT "TSAN_OPTIONS=atexit_sleep_ms=0")
