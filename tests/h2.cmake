set(h2_libs PkgConfig::SSL PkgConfig::NGHTTP2 PkgConfig::UV)
set(h2_peer lib/h2server.c lib/testca.c lib/looptest.c lib/h2pair.c)

sw_test(unit_tls LABEL unit ROOMS base uio h2 LIBS ${h2_libs}
  SOURCES unit/test_tls.c lib/testca.c)
sw_test(component_h2 LABEL component ROOMS base uio h2 LIBS ${h2_libs}
  SOURCES component/test_h2.c ${h2_peer})

sw_test(unit_frame LABEL unit ROOMS base uio wire PRIVATE wire SOURCES unit/test_frame.c)
sw_test(component_grpc LABEL component ROOMS base uio api h2 wire LIBS ${h2_libs}
  SOURCES component/test_grpc.c lib/complete.c ${h2_peer})
sw_fuzz(fuzz_grpc_frame ROOMS base uio wire PRIVATE wire SOURCES fuzz/fuzz_grpc_frame.c)
sw_test_program(bench_grpc ROOMS base uio api h2 wire LIBS ${h2_libs}
  SOURCES bench/bench_grpc.c lib/complete.c lib/h2server.c lib/testca.c)
add_test(NAME bench_grpc COMMAND bench_grpc --quick)
set_tests_properties(bench_grpc PROPERTIES LABELS bench TIMEOUT 120)
sw_test_program(wire_probe ROOMS base uio api h2 wire SOURCES integration/wire_probe.c)
sw_script(integration_wire TIMEOUT 300 COMMAND test_wire.sh $<TARGET_FILE:wire_probe>)
sw_test(component_grpc_faults LABEL component ROOMS base uio api h2 wire LIBS ${h2_libs}
  SOURCES component/test_grpc_faults.c ${h2_peer})
foreach(f block_new chain_append uv_try_write uv_write uv_tcp_connect)
  target_link_options(component_grpc_faults PRIVATE -Wl,--wrap=${f})
endforeach()
