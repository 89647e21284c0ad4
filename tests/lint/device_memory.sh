#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Arrays come from kernel/allocate.hpp and the host sees them through it, so that a run that checks device
# memory knows them all. Tests and bench's own arrays are the host's.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

# Where arrays are made, and memory that no kernel sees.
exempt='^src/kernel/(allocate|view_pool|arena|view_types)\.'
view='(Vector|Matrix|Tensor3|Tensor4)<[^;]*>'
while IFS= read -r file; do
  [[ $file =~ ^(src|modules)/ && ! $file =~ $exempt ]] || continue
  while IFS= read -r line; do
    report "$file:${line%%:*}: an array with memory of its own; use kernel::new_matrix, new_vector or allocate"
  done < <(grep -nE "$view"'( [a-z_]+)?\((("|uninitialized)|Kokkos::view_alloc)' "$file" | grep -v 'allocate' || true)
  while IFS= read -r line; do
    report "$file:${line%%:*}: a mirror of Kokkos'; use kernel::host_mirror or kernel::host_copy"
  done < <(grep -n 'create_mirror' "$file" || true)
done < <(project_files '*.cpp' '*.hpp')
finish "let kernel/allocate.hpp make it"
