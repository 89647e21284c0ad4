#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Headers of a Kokkos with its Cuda backend, for compiling alone: those of Debian unstable's package, which is
# downloaded and unpacked, not installed, with the configuration of a CUDA build. Exit code 77 where they cannot be
# had. Usage: kokkos.sh FOLDER    leaves FOLDER/include
set -euo pipefail
mkdir -p "$1"
out=$(cd "$1" && pwd)
[[ -e $out/include/KokkosCore_config.h ]] && exit 0

skip() {
  echo "skipped: $*"
  exit 77
}

# The whole of apt's state in a folder of its own, so that nothing of the machine's changes.
download_package() {
  local apt=$out/apt mirror
  mirror=$(sed -n 's/^URIs: *//p' /etc/apt/sources.list.d/debian.sources 2>/dev/null | head -n 1) || mirror=
  [[ -n $mirror ]] || mirror=$(sed -n 's/^deb \(\[[^]]*\] \)\?\([^ ]*\) .*/\2/p' /etc/apt/sources.list 2>/dev/null | head -n 1) || mirror=
  [[ -n $mirror ]] || skip "no Debian mirror is configured here, from which to get Kokkos' headers"
  mkdir -p "$apt/lists/partial" "$apt/archives/partial"
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror sid main" >"$apt/sources.list"
  : >"$apt/status"
  local options=(-o Dir::Etc::sourcelist="$apt/sources.list" -o Dir::Etc::sourceparts=/dev/null
    -o Dir::Etc::preferencesparts=/dev/null -o Dir::State="$apt" -o Dir::State::lists="$apt/lists"
    -o Dir::State::status="$apt/status" -o Dir::Cache="$apt" -o Acquire::Languages=none -o APT::Sandbox::User=root)
  apt-get "${options[@]}" -qq update || skip "Debian unstable cannot be reached"
  (cd "$out" && apt-get "${options[@]}" -qq download libkokkos-dev) || skip "libkokkos-dev cannot be downloaded"
  dpkg-deb -x "$out"/libkokkos-dev_*.deb "$out/package"
  rm -rf "$apt" "$out"/libkokkos-dev_*.deb
}

# switch_on FILE MACRO: a "#undef" of the configuration becomes a "#define".
switch_on() {
  sed -i "s|^/\* #undef $2 \*/|#define $2|" "$1"
  grep -q "^#define $2\$" "$1" || skip "this Kokkos' configuration has another form: no $2 to switch on"
}

# Cuda and Serial, and Hopper: the architecture matters to the host's part alone.
configure_for_cuda() {
  local headers=$1 macro backend=Cuda
  for macro in ENABLE_SERIAL ENABLE_CUDA ARCH_HOPPER ARCH_HOPPER90; do
    switch_on "$headers/KokkosCore_config.h" KOKKOS_$macro
  done
  sed -i -E 's/^#define KOKKOS_(ENABLE_OPENMP|IMPL_BUILD_SHARED_LIBS)/\/\/ &/' "$headers/KokkosCore_config.h"
  switch_on "$headers/desul/atomics/Config.hpp" DESUL_ATOMICS_ENABLE_CUDA
  sed -i 's/^#define DESUL_IMPL_BUILD_SHARED_LIBS/\/\/ &/' "$headers/desul/atomics/Config.hpp"
  printf '#pragma once\n#include <decl/Kokkos_Declare_%s.hpp>\n' SERIAL >"$headers/KokkosCore_Config_DeclareBackend.hpp"
  printf '#include <decl/Kokkos_Declare_%s.hpp>\n' ${backend^^} >>"$headers/KokkosCore_Config_DeclareBackend.hpp"
  printf '#pragma once\n#include <fwd/Kokkos_Fwd_%s.hpp>\n' SERIAL >"$headers/KokkosCore_Config_FwdBackend.hpp"
  printf '#include <fwd/Kokkos_Fwd_%s.hpp>\n' ${backend^^} >>"$headers/KokkosCore_Config_FwdBackend.hpp"
  printf '#pragma once\n#include <setup/Kokkos_Setup_%s.hpp>\n' $backend >"$headers/KokkosCore_Config_SetupBackend.hpp"
}

command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || skip "no apt here, from which to get Kokkos' headers"
rm -rf "$out/package" "$out/include"
download_package
configure_for_cuda "$out/package/usr/include/kokkos"
mv "$out/package/usr/include/kokkos" "$out/include"
rm -rf "$out/package"
grep -h 'define KOKKOS_VERSION_' "$out/include/KokkosCore_config.h"
