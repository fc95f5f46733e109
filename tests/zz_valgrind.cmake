# Some test programs again under valgrind: it sees uninitialised reads, which ASan does not. This file
# comes last so that the targets exist.
# unit_uio is not among them: it hands the kernel bad addresses on purpose, which valgrind reports.
find_program(VALGRIND valgrind)
if(VALGRIND AND NOT SWARM_SANITIZE AND NOT SWARM_COVERAGE)
  foreach(name unit_config unit_chain unit_store unit_frame component_store component_grpc
      component_engine component_session component_agent component_executor component_identity)
    if(TARGET ${name})
      add_test(NAME valgrind.${name} COMMAND ${VALGRIND} --quiet --error-exitcode=99 --leak-check=full
        --errors-for-leak-kinds=definite,indirect --trace-children=no $<TARGET_FILE:${name}>)
      set_tests_properties(valgrind.${name} PROPERTIES LABELS valgrind TIMEOUT 600 SKIP_RETURN_CODE 77)
    endif()
  endforeach()
endif()
