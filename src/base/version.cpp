// SPDX-License-Identifier: Apache-2.0
// The values come from CMake: TESSERA_BUILT_* at configure time, TESSERA_COMMIT at each build.
#include "base/version.hpp"

#include <fmt/format.h>
#include <tessera/version.h>

#include "version_commit.hpp"

namespace tessera {

std::string version() { return TESSERA_VERSION_STRING; }

std::string commit() { return TESSERA_COMMIT; }

std::string version_string() {
  return fmt::format("{} (commit {}, {}, {})", version(), commit(), TESSERA_BUILT_TYPE,
                     TESSERA_BUILT_COMPILER);
}

std::string dependency_versions() { return TESSERA_BUILT_DEPENDENCIES; }

}  // namespace tessera
