#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Launches the compilers of the gate's build.
#
# nvcc: for both architectures where the source has a kernel. What ptxas says of registers and spills stays beside the
# object, as <object>.ptxas.
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

if [[ $1 == *nvcc ]]; then
  command=("$@")
  if ! grep -q KOKKOS_LAMBDA "$source"; then  # no kernel of its own: one architecture tells all
    command=()
    for word in "$@"; do [[ $word == --generate-code=*compute_80* ]] || command+=("$word"); done
  fi
  status=0
  "${launcher[@]}" "${command[@]}" 2>"$object.log" || status=$?
  grep '^ptxas info\|bytes stack frame' "$object.log" >"$object.ptxas" || true
  grep -v '^ptxas info\|bytes stack frame' "$object.log" >&2 || true
  rm "$object.log"
  exit $status
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
