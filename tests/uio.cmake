sw_test(unit_uio LABEL unit ROOMS base uio SOURCES unit/test_uio.c)
sw_test(unit_chain LABEL unit ROOMS base uio SOURCES unit/test_chain.c lib/chain_model.c)
sw_fuzz(fuzz_chain ROOMS base uio SOURCES fuzz/fuzz_chain.c lib/chain_model.c)
