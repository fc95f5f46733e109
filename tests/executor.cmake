sw_test(unit_executor_spec LABEL unit ROOMS base api uio engine template executor PRIVATE executor
  LIBS PkgConfig::JSONC SOURCES unit/test_executor_spec.c)
sw_test(unit_executor_parts LABEL unit ROOMS base api uio engine template executor PRIVATE executor
  SOURCES unit/test_executor_parts.c)
sw_test(unit_secret_files LABEL unit ROOMS base api uio engine template executor PRIVATE executor
  LIBS PkgConfig::JSONC SOURCES unit/test_secret_files.c)
sw_test(component_secrets LABEL component ROOMS base api uio engine template executor PRIVATE executor
  LIBS PkgConfig::JSONC sw_testengine SOURCES component/test_secrets.c)
sw_test(component_executor LABEL component ROOMS base api uio engine template executor
  LIBS PkgConfig::JSONC sw_testengine SOURCES component/test_executor.c)
sw_real_test(integration_executor_real TIMEOUT 300 ROOMS base api uio engine template executor
  LIBS PkgConfig::JSONC SOURCES integration/test_executor_real.c)
sw_test(unit_images_parts LABEL unit ROOMS base api uio engine template executor PRIVATE executor
  SOURCES unit/test_images_parts.c)
sw_test(component_images LABEL component ROOMS base api uio engine template executor PRIVATE executor
  LIBS PkgConfig::JSONC sw_testengine SOURCES component/test_images.c)
sw_script(integration_images TIMEOUT 400 COMMAND test_images.sh)
