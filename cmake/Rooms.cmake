# A room is one folder of src/ built as one static library. It offers doors (headers in
# include/swarm/) and sees only the doors of the rooms it names in DEPS: every room gets a
# private folder of links to the doors it may open, so a wrong include does not compile.
#
#   sw_room(engine DOORS engine.h DEPS base uio http LIBS PkgConfig::JSONC SOURCES client.c ...)

add_library(sw_flags INTERFACE)
target_compile_definitions(sw_flags INTERFACE _GNU_SOURCE _FILE_OFFSET_BITS=64
  SWARM_VERSION="${PROJECT_VERSION}")
target_compile_options(sw_flags INTERFACE
  -Wall -Wextra -Wshadow -Wconversion -Wno-sign-conversion -Wvla -Wformat=2 -Wundef
  -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wwrite-strings
  -Wno-missing-field-initializers
  -fno-omit-frame-pointer -fstack-protector-strong)
if(SWARM_WERROR)
  target_compile_options(sw_flags INTERFACE -Werror)
endif()
if(SWARM_SANITIZE)
  target_compile_options(sw_flags INTERFACE -fsanitize=${SWARM_SANITIZE} -fno-sanitize-recover=all)
  target_link_options(sw_flags INTERFACE -fsanitize=${SWARM_SANITIZE})
elseif(CMAKE_BUILD_TYPE STREQUAL "RelWithDebInfo" OR CMAKE_BUILD_TYPE STREQUAL "Release")
  target_compile_definitions(sw_flags INTERFACE _FORTIFY_SOURCE=2)
endif()
if(SWARM_FUZZ)
  target_compile_options(sw_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()
if(SWARM_COVERAGE)
  target_compile_options(sw_flags INTERFACE --coverage)
  target_link_options(sw_flags INTERFACE --coverage)
endif()
target_link_options(sw_flags INTERFACE -Wl,-z,relro,-z,now)

function(sw_doors target)
  foreach(room ${ARGN})
    target_include_directories(${target} PRIVATE ${CMAKE_BINARY_DIR}/doors/${room})
  endforeach()
endfunction()

function(sw_room name)
  cmake_parse_arguments(R "" "" "DOORS;DEPS;LIBS;SOURCES" ${ARGN})
  set(dir ${CMAKE_BINARY_DIR}/doors/${name}/swarm)
  file(REMOVE_RECURSE ${dir})
  file(MAKE_DIRECTORY ${dir})
  foreach(door ${R_DOORS})
    file(CREATE_LINK ${CMAKE_SOURCE_DIR}/include/swarm/${door} ${dir}/${door} SYMBOLIC)
  endforeach()
  add_library(sw_${name} STATIC ${R_SOURCES})
  set_target_properties(sw_${name} PROPERTIES POSITION_INDEPENDENT_CODE ON)
  target_link_libraries(sw_${name} PRIVATE sw_flags)
  sw_doors(sw_${name} ${name} ${R_DEPS})
  foreach(dep ${R_DEPS})
    target_link_libraries(sw_${name} PUBLIC sw_${dep})
  endforeach()
  target_link_libraries(sw_${name} PUBLIC ${R_LIBS})
endfunction()
