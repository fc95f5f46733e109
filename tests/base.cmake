sw_test(unit_base LABEL unit ROOMS base SOURCES unit/test_base.c)
sw_test(unit_loop LABEL unit ROOMS base SOURCES unit/test_loop.c)
sw_test(unit_steps LABEL unit ROOMS base SOURCES unit/test_steps.c)
