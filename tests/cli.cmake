sw_test(unit_config LABEL unit ROOMS base cli PRIVATE cli SOURCES unit/test_config.c)
sw_test(unit_notify LABEL unit ROOMS base cli PRIVATE cli SOURCES unit/test_notify.c)
