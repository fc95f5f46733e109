sw_test(unit_remotes LABEL unit ROOMS base api session SOURCES unit/test_remotes.c)
sw_test(unit_token LABEL unit ROOMS base api session SOURCES unit/test_token.c)
