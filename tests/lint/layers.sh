#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The layers: base < comm < kernel < {checkpoint, zero3, moe} < model < trainer < {study, c, fortran} <
# apps. A folder includes headers of lower layers and its own; besides, kernel never sees a communicator, and
# model and moe never see a file. Tests may include anything.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

# Prints what is wrong with one file's includes. `layer` is the folder below src/ or modules/, or apps.
check_includes() {
  awk -v file="$1" -v layer="$2" '
    BEGIN {
      split("base comm kernel checkpoint zero3 moe model trainer study c fortran apps", names)
      split("1 2 3 4 4 4 5 6 7 7 7 8", ranks)
      for (i in names) rank[names[i]] = ranks[i]
      if (!(layer in rank)) print file ": folder " layer " has no place in the layer order"
    }
    function refuse(why) { print file ":" FNR ": " layer " includes " target " (" why ")" }
    /^[ \t]*#[ \t]*include/ {
      target = $0
      gsub(/^[^<"]*[<"]|[>"].*$/, "", target)
      part = target
      sub(/^tessera\//, "", part)
      is_path = sub(/\/.*$/, "", part)
      if (is_path && part in rank && part != layer) {
        if (rank[part] > rank[layer]) refuse("a higher layer")
        else if (rank[part] == rank[layer]) refuse("a sibling")
        else if (layer == "kernel" && part == "comm") refuse("kernels never see a communicator")
        else if (layer == "model" && part == "checkpoint") refuse("the model never sees a file")
      }
      if (layer == "kernel" && target == "mpi.h") refuse("kernels never see a communicator")
      if (layer == "base" && (target == "mpi.h" || target ~ /^Kokkos/)) refuse("base is plain C++")
      if (layer ~ /^(kernel|moe|model)$/ && target ~ /^(fstream|filesystem|fcntl\.h|hdf5\.h)$/)
        refuse("only checkpoint and what stands on it see files")
    }' "$1"
}

while IFS= read -r file; do
  case $file in
    src/* | modules/*) layer=${file#*/} layer=${layer%%/*} ;;
    apps/*) layer=apps ;;
    *) continue ;;
  esac
  while IFS= read -r line; do report "$line"; done < <(check_includes "$file" "$layer")
done < <(project_files '*.cpp' '*.hpp')
finish "move the code to the layer that may know both"
