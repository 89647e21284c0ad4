// SPDX-License-Identifier: Apache-2.0
// Which Tessera this is and what it was built from; printed by `tessera --version` and `tessera
// doctor`, and stored in every checkpoint.
#pragma once

#include <string>

namespace tessera {

/// "0.1.0". local.
std::string version();

/// The git commit of the source tree at the last build, "-dirty" appended when tracked files
/// differed from it; "unknown" outside a git checkout. local.
std::string commit();

/// One line: "0.1.0 (commit 1a2b3c4d5e6f, Release, GNU 12.2.0)". local.
std::string version_string();

/// One line with the packages at build time: "HDF5 1.10.8, Kokkos 3.4.01, oneDNN 2.6.3, MPI 3.1".
/// local.
std::string dependency_versions();

}  // namespace tessera
