# The tests' peers as programs, for contrib/quickstart where no engine can run.
if(TARGET sw_testengine AND TARGET sw_testmanager AND TARGET swarm-agentd)
  foreach(peer testengine testmanager)
    add_executable(swarm-${peer} tools/swarm-${peer}.c)
    target_link_libraries(swarm-${peer} PRIVATE sw_flags sw_${peer} sw_api sw_base)
    target_include_directories(swarm-${peer} PRIVATE lib tools)
    sw_doors(swarm-${peer} base uio api h2 wire http engine)
  endforeach()
  sw_script(component_pretend LABEL component TIMEOUT 120 PARALLEL
    ENV SWARM_BUILD_DIR=${CMAKE_BINARY_DIR} COMMAND ${CMAKE_SOURCE_DIR}/contrib/quickstart --check --pretend)
endif()
