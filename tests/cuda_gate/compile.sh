#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Launches the compilers of the gate's builds.
#
# nvcc: for both architectures where the source has a kernel. With TESSERA_GATE_PASS=device the device's part alone, a
# third of the time; the object is then no object. What ptxas says of registers and spills stays beside it, as
# <object>.ptxas.
# The C++ compiler: a source that the gate compiles with the definitions of the ordinary build (TESSERA_GATE_HOST_BUILD)
# becomes a copy of that build's object, which the gate only links.
set -euo pipefail
object= source= depfile= definitions= previous=
for word in "$@"; do
  case $previous in
    -o) object=$word ;;
    -MF) depfile=$word ;;
  esac
  case $word in
    *.cpp) source=$word ;;
    -D*) definitions+="$word " ;;
  esac
  previous=$word
done
launcher=(${CMAKE_CXX_COMPILER_LAUNCHER-})

# compile WORD...: runs nvcc; its report goes to the object's, the rest where it belongs.
compile() {
  local status=0
  "${launcher[@]}" "$@" 2>"$object.log" || status=$?
  grep '^ptxas info\|bytes stack frame' "$object.log" >>"$object.ptxas" || true
  grep -v '^ptxas info\|bytes stack frame' "$object.log" >&2 || true
  rm "$object.log"
  return $status
}

# Sources whose names collide do not compile in one batch (batches.sh), but one by one.
compile_each() {
  local each
  : >"$object.all.d"
  while IFS= read -r each; do
    compile "${words[@]}" "$each" -arch=sm_90 || return 1
    sed '1s/^[^:]*://; s/\\$//' "$depfile" >>"$object.all.d"
  done < <(sed -n 's/^#include "\(.*\)"$/\1/p' "$source")
  { printf '%s: %s ' "$object" "$source"; tr '\n' ' ' <"$object.all.d"; } >"$depfile"
}

if [[ $1 == *nvcc ]]; then
  architectures=(90)
  grep -q KOKKOS_LAMBDA "$source" && architectures=(80 90)  # elsewhere one tells all
  words=()
  for word in "$@"; do
    [[ $word == --generate-code=* ]] && continue
    [[ $word == "$source" ]] && continue  # named last
    [[ $word == -c && ${TESSERA_GATE_PASS-} == device ]] && word=-cubin
    words+=("$word")
  done
  : >"$object.ptxas"
  if [[ $source == batches/* ]]; then
    compile "${words[@]}" "$source" -arch=sm_90 2>/dev/null || compile_each
  elif [[ ${TESSERA_GATE_PASS-} == device ]]; then
    for each in "${architectures[@]}"; do compile "${words[@]}" "$source" "-arch=sm_$each"; done
  else
    for each in "${architectures[@]}"; do words+=("-gencode=arch=compute_$each,code=sm_$each"); done
    compile "${words[@]}" "$source"
  fi
  exit
fi

# The ordinary build's command for the object that has the same place in its tree.
built=$TESSERA_GATE_HOST_BUILD/$object
command=$(grep -F -e "-o $object -c" "$TESSERA_GATE_HOST_BUILD/compile_commands.json" | head -n 1) || command=
same_definitions() {
  [[ $(tr ' ' '\n' <<<"$definitions" | sort -u | grep .) == $(grep -o -e '-D[^ ]*' <<<"$command" | sort -u) ]]
}
if [[ -f $built && -n $command ]] && same_definitions; then
  cp "$built" "$object"
  echo "$object: $source $built" >"$depfile"
else
  exec "${launcher[@]}" "$@"
fi
