#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What the device compiler made of each kernel in the gate's build: registers, spilled bytes, shared memory.
# Usage: kernels.sh print BUILD           the table of share/doc/gpu_kernels.md
#        kernels.sh check BUILD TABLE     fails if a kernel spills above the limit that does not in TABLE
set -euo pipefail
(($# >= 2)) || { echo "usage: kernels.sh print BUILD | check BUILD TABLE" >&2; exit 2; }
verb=$1 build=$2
max_registers=128  # of 255; with more, fewer than four warps have room on a quarter of a multiprocessor
max_spill=64       # bytes per thread, stores and loads

# file, kernel, architecture, registers, spilled bytes, one line per kernel of ours: those whose lambda stands in a
# function that takes the execution space first. The name is that function's with its types, and the number of the
# lambda in the function that launches it. Taken from the mangled name, which c++filt does not always know.
measured() {
  find "$build" -name '*.ptxas' | sort | while read -r file; do
    source=${file#"$build"/}
    source=${source/CMakeFiles\/*.dir\//}
    printf 'source %s\n' "${source%.o.ptxas}"
    cat "$file"
  done | awk '
    function kernel_name(mangled,  before, types, i, all, last) {
      if (!(i = index(mangled, "RKNS_4CudaE"))) return ""
      before = substr(mangled, 1, i - 1)
      if (!match(before, /[a-z_]+IK?(f|NS[0-9A-Z]*_4bf16E)E+N[A-Za-z0-9_]*$/) &&  # returns a class
          !match(before, /[a-z_]+(I[KfdNS0-9A-Z_]*(4bf16E[KfdNS0-9A-Z_]*)*E)?E+[vd]?$/)) return ""
      before = substr(before, RSTART)
      match(before, /^[a-z_]+/)
      types = substr(before, RLENGTH + 1)
      before = substr(before, 1, RLENGTH)
      sub(/^I/, "", types)
      all = ""
      while (types != "") {
        sub(/^K/, "", types)
        if (types ~ /^f/) { last = "float"; types = substr(types, 2) }
        else if (match(types, /^NS[0-9A-Z]*_4bf16E?/)) { last = "bf16"; types = substr(types, RLENGTH + 1) }
        else if (match(types, /^S[0-9A-Z]*_/)) types = substr(types, RLENGTH + 1)
        else break
        all = all (all == "" ? "" : ",") last
      }
      i = 1
      if (match(mangled, /E[0-9]*_NS_1[01](Range|Team)Policy/)) {
        last = substr(mangled, RSTART + 1)
        i = last ~ /^_/ ? 1 : last + 2
      }
      return before (all == "" ? "" : "<" all ">") "#" i
    }
    /^source / { source = $2 }
    /Compiling entry function/ {
      kernel = $7 ~ /7tessera/ ? kernel_name($7) : ""
      architecture = $NF
      gsub(/[^a-z0-9_]/, "", architecture)
    }
    /bytes stack frame/ { spill = $5 + $9 }
    /: Used [0-9]+ registers/ && kernel != "" {
      match($0, /Used [0-9]+/)
      print source, kernel, architecture, substr($0, RSTART + 5, RLENGTH - 5), spill
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
  local table=$1 failed=0 file kernel architecture registers spill
  while read -r file kernel architecture registers spill; do
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
