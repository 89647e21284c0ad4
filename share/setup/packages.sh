# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC2034
# Sourced by debian.sh and by share/stacks: Debian's packages that Tessera is built from, those whose names are
# the same from Debian 12 on, and how to install what is missing. After common.sh.
tool_packages=(g++ gfortran cmake ninja-build pkg-config git ca-certificates)
open_mpi_packages=(libopenmpi-dev openmpi-bin libhdf5-openmpi-dev)
library_packages=(
  hdf5-tools                                            # h5dump
  libdnnl-dev ocl-icd-opencl-dev                        # oneDNN, and what its CMake package asks for
  libfmt-dev libspdlog-dev nlohmann-json3-dev libcli11-dev libtomlplusplus-dev libxxhash-dev
  catch2 gnuplot-nox
  bible-kjv                                             # the example's text, in the public domain
)
# tests/cluster: Slurm's daemons, which only start where there is a slurm.conf, and network namespaces.
cluster_packages=(slurm-wlm munge iproute2)

is_installed() {
  [[ $(dpkg-query --show --showformat='${db:Status-Abbrev}' "$1" 2>/dev/null) == "ii " ]]
}

# install_missing PACKAGE...: as root or with sudo; says nothing and asks apt nothing when all are there.
install_missing() {
  local sudo=() apt=(apt-get --quiet --yes -o DPkg::Lock::Timeout=120) package missing=()
  for package in "$@"; do
    is_installed "$package" || missing+=("$package")
  done
  ((${#missing[@]} > 0)) || return 0
  if [[ $(id -u) != 0 ]]; then
    command -v sudo >/dev/null || die "these packages are missing, and neither root nor sudo is at hand to install them:
  ${missing[*]}"
    sudo=(sudo)
  fi
  step "update the package lists" "${sudo[@]}" "${apt[@]}" update
  step "install ${#missing[@]} packages" "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive "${apt[@]}" install \
    --no-install-recommends "${missing[@]}"
}
