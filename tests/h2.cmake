set(h2_lib lib/testca.c)
set(h2_libs PkgConfig::SSL PkgConfig::NGHTTP2 PkgConfig::UV)

sw_test(unit_tls LABEL unit ROOMS base uio h2 LIBS ${h2_libs}
  SOURCES unit/test_tls.c lib/testca.c)
