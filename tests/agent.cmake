# agent: memstore.c answers for store.h, so the real store stays in its archive
set(agent_fakes lib/memstore.c lib/fakeexec.c lib/fakesource.c)
set(agent_rooms base api store agent)
sw_test(unit_do LABEL unit ROOMS ${agent_rooms} PRIVATE agent SOURCES unit/test_do.c)
sw_test(unit_status LABEL unit ROOMS ${agent_rooms} PRIVATE agent SOURCES unit/test_status.c)
sw_test(unit_reporter LABEL unit ROOMS ${agent_rooms} PRIVATE agent
  SOURCES unit/test_reporter.c ${agent_fakes})
sw_test(comp_agent LABEL component ROOMS ${agent_rooms} PRIVATE agent
  SOURCES component/test_agent.c lib/agentkit.c ${agent_fakes})
sw_test(comp_agent_storm LABEL component ROOMS ${agent_rooms} PRIVATE agent
  SOURCES component/test_agent_storm.c lib/agentkit.c ${agent_fakes})
sw_test(unit_deps LABEL unit ROOMS ${agent_rooms} PRIVATE agent
  SOURCES unit/test_deps.c lib/fakesource.c)
# these two on the real store
sw_test(comp_agent_store LABEL component ROOMS ${agent_rooms} LIBS PkgConfig::SQLITE
  SOURCES component/test_agent_store.c lib/store_help.c lib/fakeexec.c lib/fakesource.c)
sw_test(comp_agent_many LABEL component ROOMS ${agent_rooms} LIBS PkgConfig::SQLITE TIMEOUT 300
  SOURCES component/test_agent_many.c lib/store_help.c lib/fakeexec.c lib/fakesource.c)
# and this one with the real dispatcher, against the test manager (session.cmake, read later)
sw_test(comp_agent_manager LABEL component ROOMS base uio api h2 wire session store agent
  LIBS sw_testmanager PkgConfig::SSL
  SOURCES component/test_agent_manager.c lib/fakeexec.c lib/nodekit.c lib/looptest.c)
foreach(t unit_do unit_status unit_reporter unit_deps comp_agent comp_agent_storm comp_agent_store
    comp_agent_many comp_agent_manager)
  sw_doors(${t} executor)
endforeach()
