# The test manager as a program, and the show of contrib/quickstart where no engine can run.
if(TARGET sw_testmanager)
  add_executable(swarm-testmanager tools/swarm_testmanager.c)
  target_link_libraries(swarm-testmanager PRIVATE sw_flags sw_testmanager sw_api sw_base)
  target_include_directories(swarm-testmanager PRIVATE lib tools)
  sw_doors(swarm-testmanager base uio api h2 wire)
endif()
if(TARGET swarm-testmanager AND TARGET swarm-testengine AND TARGET swarm-agentd)
  sw_script(component_pretend LABEL component TIMEOUT 120 PARALLEL
    ENV SWARM_BUILD_DIR=${CMAKE_BINARY_DIR} COMMAND ${CMAKE_SOURCE_DIR}/contrib/quickstart --check --pretend)
endif()
