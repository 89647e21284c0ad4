#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs what Tessera is built from on Debian 12, as root or with sudo. Says nothing and asks apt nothing
# when all of it is there. Usage: share/setup/debian.sh
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
source "$(dirname "${BASH_SOURCE[0]}")/packages.sh"

if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
  note "no apt here: taking the packages in README.md, Requirements, as installed"
  exit 0
fi
install_missing "${tool_packages[@]}" "${open_mpi_packages[@]}" "${library_packages[@]}" "${cluster_packages[@]}" \
  libtrilinos-kokkos-dev \
  clang-14 libclang-rt-14-dev `# libFuzzer` \
  doxygen `# for the test of the reference of tessera.h`
