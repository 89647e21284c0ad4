#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Launches the compilers of the gate's build.
#
# nvcc: what ptxas says of registers and spills stays beside the object, as <object>.ptxas.
# The C++ compiler: a source that the gate compiles with the definitions of the ordinary build (TESSERA_GATE_HOST_BUILD)
# becomes a copy of that build's object, which the gate only links.
set -euo pipefail
object= source= definitions=
for ((i = 1; i <= $#; ++i)); do
  case ${!i} in
    -o) next=$((i + 1)) object=${!next} ;;
    -c) next=$((i + 1)) source=${!next} ;;
    -MF) next=$((i + 1)) depfile=${!next} ;;
    -D*) definitions+="${!i} " ;;
  esac
done
launcher=(${CMAKE_CXX_COMPILER_LAUNCHER-})

if [[ $1 == *nvcc ]]; then
  status=0
  "${launcher[@]}" "$@" 2>"$object.log" || status=$?
  grep '^ptxas info' "$object.log" >"$object.ptxas" || true
  grep -v '^ptxas info\|^ *[0-9]* bytes stack frame' "$object.log" >&2 || true
  sed -n '/^ptxas info/p; /bytes stack frame/p' "$object.log" >"$object.ptxas"
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
