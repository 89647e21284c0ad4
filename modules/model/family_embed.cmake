# Run as a script (cmake -D output=... -D folder=... -D "files=a.toml,b.toml" -P), it writes the maps of the
# model families into one C++ source, so that the library needs no file at run time.
cmake_minimum_required(VERSION 3.25)
set(content "// Generated from share/families.\n#include \"family.hpp\"\n\nnamespace tessera::model {\n
const std::vector<FamilyText>& family_texts() {\n  static const std::vector<FamilyText> texts = {\n")
string(REPLACE "," ";" files "${files}")
foreach(file IN LISTS files)
  file(READ ${folder}/${file} text)
  string(APPEND content "      {\"${file}\", R\"map(${text})map\"},\n")
endforeach()
string(APPEND content "  };\n  return texts;\n}\n\n}  // namespace tessera::model\n")
file(WRITE ${output} "${content}")
