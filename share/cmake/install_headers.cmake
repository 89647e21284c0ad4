# Run at installation, once for each part: copies `headers` of `folder`, or all, to `destination`, with the includes of the source
# tree, "comm/x.hpp" and "tessera/moe/x.hpp", as a user's compiler finds them.
if(NOT headers)
  file(GLOB headers RELATIVE ${folder} ${folder}/*.hpp)
endif()
foreach(header IN LISTS headers)
  file(READ ${folder}/${header} text)
  string(REGEX REPLACE "#include \"(tessera/)?((base|comm|kernel|[a-z0-9]+)/[^\"]+)\"" "#include <tessera/\\2>" text "${text}")
  file(WRITE ${rewritten}/${header} "${text}")
  file(INSTALL ${rewritten}/${header} DESTINATION ${destination})
endforeach()
