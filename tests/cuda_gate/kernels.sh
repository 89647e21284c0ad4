#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What the device compiler made of each kernel in the gate's build: registers, spilled bytes, shared memory.
# Usage: kernels.sh print BUILD           the table of share/doc/gpu_kernels.md
#        kernels.sh check BUILD TABLE     fails if a kernel spills above the limit that does not in TABLE
set -euo pipefail
verb=$1 build=$2
max_registers=128  # of 255; with more, fewer than four warps have room on a quarter of a multiprocessor
max_spill=64       # bytes per thread, stores and loads

# file, kernel, architecture, registers, spilled bytes, stack bytes, one line per kernel. The name of a kernel is that
# of the function that launches it, with the number of the lambda there.
measured() {
  find "$build" -name '*.ptxas' | sort | while read -r file; do
    local source=${file#"$build"/}
    source=${source/CMakeFiles\/*.dir\//}
    printf 'source %s\n' "${source%.o.ptxas}"
    cat "$file"
  done | c++filt | awk '
    /^source / { source = $2 }
    /Compiling entry function/ {
      text = $0
      architecture = text
      sub(/^.* for .sm_/, "sm_", architecture); sub(/[^a-z0-9_].*$/, "", architecture)
      gsub(/_INTERNAL_[A-Za-z0-9_]*::/, "", text)
      gsub(/\(anonymous namespace\)::|tessera::kernel::|tessera::/, "", text)
      kernel = ""
      if ($0 ~ /tessera/ && match(text, /[a-z_0-9]+(<[a-z0-9_, :]*>)?\(/)) {
        kernel = substr(text, RSTART, RLENGTH - 1)
        number = 1
        if (match(text, /#[0-9]+\}/)) number = substr(text, RSTART + 1, RLENGTH - 2)
        kernel = kernel "#" number
      }
    }
    /bytes stack frame/ { stack = $1; spill = $5 + $9 }
    /: Used [0-9]+ registers/ && kernel != "" {
      match($0, /Used [0-9]+/)
      print source, kernel, architecture, substr($0, RSTART + 5, RLENGTH - 5), spill, stack
      kernel = ""
    }' | sort -u
}

print_table() {
  measured | awk -v max_registers="$max_registers" -v max_spill="$max_spill" '
    {
      key = $1 " " $2
      if (!(key in seen)) { seen[key] = 1; order[++count] = key }
      registers[key, $3] = $4 > registers[key, $3] ? $4 : registers[key, $3]
      spill[key, $3] = $5 > spill[key, $3] ? $5 : spill[key, $3]
      if ($4 > max_registers || $5 > max_spill) above[key] = 1
    }
    END {
      print "| file | kernel | registers sm_80 | registers sm_90 | spilled bytes sm_80 | spilled bytes sm_90 | |"
      print "|---|---|---:|---:|---:|---:|---|"
      for (i = 1; i <= count; ++i) {
        split(order[i], part, " ")
        printf "| %s | `%s` | %d | %d | %d | %d | %s |\n", part[1], part[2], registers[order[i], "sm_80"],
          registers[order[i], "sm_90"], spill[order[i], "sm_80"], spill[order[i], "sm_90"],
          order[i] in above ? "above the limit" : ""
      }
    }'
}

check_spills() {
  local table=$1 failed=0 file kernel architecture registers spill stack
  while read -r file kernel architecture registers spill stack; do
    ((spill > max_spill)) || continue
    if ! grep -F "| $file | \`$kernel\` |" "$table" | grep -q 'above the limit'; then
      echo "$file: $kernel spills $spill bytes per thread on $architecture (limit $max_spill) with $registers registers"
      failed=1
    fi
  done < <(measured)
  ((failed == 0)) || echo "Keep less alive in the kernel; or, if it must be, write the table anew (its head says how)."
  return $failed
}

[[ -n $(find "$build" -name '*.ptxas' -print -quit 2>/dev/null) ]] || { echo "no gate build in $build; run ctest -L cuda_gate"; exit 1; }
case $verb in
  print) print_table ;;
  check) check_spills "$3" ;;
  *) echo "kernels.sh: no verb $verb" >&2; exit 2 ;;
esac
