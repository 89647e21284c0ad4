#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs the build, uninstalls it, installs it again and moves it to PREFIX: nothing is left behind, nothing of the
# source or build tree is in the package, and only public headers are. Usage: install.sh SOURCE BUILD PREFIX
set -euo pipefail
source=$1 build=$2 prefix=$3
first=$build/tests/consumer/installed

fail() {
  echo "FAILED: $*"
  exit 1
}

rm -rf "$first" "$prefix"
cmake --install "$build" --prefix "$first" >/dev/null
[[ -f $first/include/tessera/tessera.h ]] || fail "tessera.h was not installed"
cmake -D manifest="$build/install_manifest.txt" -P "$source/share/cmake/uninstall.cmake" >/dev/null
left=$(find "$first" -type f)
[[ -z $left ]] || fail "left by uninstall: $left"

cmake --install "$build" --prefix "$first" >/dev/null
mkdir -p "${prefix%/*}"
mv "$first" "$prefix"
named=$(grep -rlIE "(^|-[IL]|[^[:alnum:]_.}-])($source|$build)/" "$prefix" --include=*.cmake --include=*.pc --include=*.hpp --include=*.h || true)
[[ -z $named ]] || fail "name the source or build tree: $named"
private=$(grep -rlE '#include "' "$prefix/include" || true)
[[ -z $private ]] || fail "headers with includes of the source tree: $private"
for header in base/hdf5_handle.hpp comm/wait.hpp kernel/gemm_onednn.hpp base/toml.hpp; do
  [[ ! -e $prefix/include/tessera/$header ]] || fail "$header is not public and was installed"
done
for file in bin/tessera lib*/pkgconfig/tessera-c.pc lib*/cmake/tessera/tesseraConfig.cmake \
  share/modulefiles/tessera share/doc/tessera/LICENSE; do
  compgen -G "$prefix/$file*" >/dev/null || fail "$file was not installed"
done
"$prefix/bin/tessera" --version
