sw_test(unit_template LABEL unit ROOMS base template LIBS -Wl,--wrap=malloc,--wrap=free
  SOURCES unit/test_template.c)
sw_fuzz(fuzz_template ROOMS base template SOURCES fuzz/fuzz_template.c)
