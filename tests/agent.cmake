if(NOT TARGET sw_agent)
  return()
endif()
# agent: memstore.c answers for store.h, so the real store stays in its archive
set(agent_fakes lib/memstore.c lib/fakeexec.c lib/fakesource.c)
set(agent_rooms base api store agent)
sw_test(unit_do LABEL unit ROOMS ${agent_rooms} PRIVATE agent SOURCES unit/test_do.c)
sw_test(unit_status LABEL unit ROOMS ${agent_rooms} PRIVATE agent SOURCES unit/test_status.c)
sw_test(unit_reporter LABEL unit ROOMS ${agent_rooms} PRIVATE agent
  SOURCES unit/test_reporter.c ${agent_fakes})
foreach(t unit_do unit_status unit_reporter)
  sw_doors(${t} executor)
endforeach()
