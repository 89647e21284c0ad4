# The installed package: libraries, the public headers, CMake and pkg-config files, all of them free of absolute paths of
# ours, so that the prefix may be moved.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)
set(tessera_package_folder ${CMAKE_INSTALL_LIBDIR}/cmake/tessera)

# tessera_install_headers(<part> <folder> [headers...]): these, or all of the folder, to include/tessera/<part>. There "comm/x.hpp" of the source tree
# is <tessera/comm/x.hpp>, since a folder named comm or base on a user's include path would meet his own.
function(tessera_install_headers part folder)
  set(rewritten ${PROJECT_BINARY_DIR}/include_installed/${part})
  install(CODE "set(part ${part})\nset(folder ${folder})\nset(rewritten ${rewritten})\nset(headers \"${ARGN}\")
    set(destination \"\${CMAKE_INSTALL_PREFIX}/${CMAKE_INSTALL_INCLUDEDIR}/tessera/${part}\")")
  install(SCRIPT ${PROJECT_SOURCE_DIR}/share/cmake/install_headers.cmake)
endfunction()

set(installed_targets "")
foreach(part base comm kernel checkpoint zero3 moe model trainer study c)
  if(NOT TARGET tessera_${part})
    continue()
  endif()
  list(APPEND installed_targets tessera_${part})
  get_target_property(folder tessera_${part} SOURCE_DIR)
  get_target_property(headers tessera_${part} TESSERA_HEADERS)
  if(IS_DIRECTORY ${folder}/include/tessera/${part})
    tessera_install_headers(${part} ${folder}/include/tessera/${part})
  elseif(headers)
    tessera_install_headers(${part} ${folder} ${headers})
  endif()
endforeach()
install(FILES ${PROJECT_BINARY_DIR}/include/tessera/version.h ${PROJECT_SOURCE_DIR}/modules/c/include/tessera/tessera.h
  DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/tessera)
set_target_properties(${installed_targets} PROPERTIES INSTALL_RPATH "$ORIGIN")  # shared ones find each other
install(TARGETS ${installed_targets} EXPORT tessera ARCHIVE LIBRARY INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(EXPORT tessera NAMESPACE tessera:: FILE tesseraTargets.cmake DESTINATION ${tessera_package_folder})
if(TARGET tessera_fortran)  # apart: its target wants MPI for Fortran
  install(TARGETS tessera_fortran EXPORT tesseraFortran ARCHIVE)
  install(EXPORT tesseraFortran NAMESPACE tessera:: FILE tesseraFortranTargets.cmake
    DESTINATION ${tessera_package_folder})
  get_target_property(modules tessera_fortran Fortran_MODULE_DIRECTORY)
  install(DIRECTORY ${modules}/ DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/tessera/fortran FILES_MATCHING PATTERN *.mod)
endif()

configure_package_config_file(${PROJECT_SOURCE_DIR}/share/cmake/tesseraConfig.cmake.in
  ${PROJECT_BINARY_DIR}/package/tesseraConfig.cmake INSTALL_DESTINATION ${tessera_package_folder})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/package/tesseraConfigVersion.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/package/tesseraConfig.cmake ${PROJECT_BINARY_DIR}/package/tesseraConfigVersion.cmake
  ${PROJECT_SOURCE_DIR}/share/cmake/TesseraDependencies.cmake DESTINATION ${tessera_package_folder})
install(FILES ${PROJECT_SOURCE_DIR}/LICENSE ${PROJECT_SOURCE_DIR}/modules/checkpoint/FORMAT.md
  DESTINATION ${CMAKE_INSTALL_DOCDIR})
if(TARGET tessera)
  set_target_properties(tessera PROPERTIES INSTALL_RPATH "$ORIGIN/../${CMAKE_INSTALL_LIBDIR}")
  install(TARGETS tessera RUNTIME)
endif()
install(FILES ${PROJECT_SOURCE_DIR}/share/modulefiles/tessera.tcl
  DESTINATION ${CMAKE_INSTALL_DATADIR}/modulefiles/tessera RENAME ${PROJECT_VERSION})
include(TesseraPkgConfig)

if(PROJECT_IS_TOP_LEVEL)
  add_custom_target(uninstall COMMAND ${CMAKE_COMMAND} -D manifest=${PROJECT_BINARY_DIR}/install_manifest.txt
    -P ${PROJECT_SOURCE_DIR}/share/cmake/uninstall.cmake VERBATIM)
endif()
