#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs what Tessera is built from on Debian 12, as root or with sudo. Says nothing and asks apt nothing
# when all of it is there. Usage: share/setup/debian.sh
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

packages=(
  g++ cmake ninja-build pkg-config git ca-certificates  # build
  libopenmpi-dev openmpi-bin                            # MPI
  libhdf5-openmpi-dev hdf5-tools                        # parallel HDF5, h5dump
  libdnnl-dev ocl-icd-opencl-dev                        # oneDNN, and what its CMake package asks for
  libtrilinos-kokkos-dev                                # Kokkos
  libfmt-dev libspdlog-dev nlohmann-json3-dev libcli11-dev libtomlplusplus-dev libxxhash-dev
  catch2 gnuplot-nox
  clang-14 libclang-rt-14-dev                           # libFuzzer
  bible-kjv                                             # the example's text, in the public domain
)

is_installed() {
  [[ $(dpkg-query --show --showformat='${db:Status-Abbrev}' "$1" 2>/dev/null) == "ii " ]]
}

install_missing() {
  local sudo=() apt=(apt-get --quiet --yes -o DPkg::Lock::Timeout=120)
  if [[ $(id -u) != 0 ]]; then
    command -v sudo >/dev/null || die "these packages are missing, and neither root nor sudo is at hand to install them:
  $*"
    sudo=(sudo)
  fi
  step "update the package lists" "${sudo[@]}" "${apt[@]}" update
  step "install $# packages" "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive "${apt[@]}" install --no-install-recommends "$@"
}

if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
  note "no apt here: taking the packages in README.md, Requirements, as installed"
  exit 0
fi
missing=()
for package in "${packages[@]}"; do
  is_installed "$package" || missing+=("$package")
done
if ((${#missing[@]} > 0)); then
  install_missing "${missing[@]}"
fi
