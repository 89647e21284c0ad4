// SPDX-License-Identifier: Apache-2.0
#include "fault.hpp"

#include <fmt/format.h>

#include <cstdlib>
#include <string>

namespace tessera::checkpoint {

bool fault_injected(std::string_view kind, int rank) {
  const char* list = std::getenv("TESSERA_FAULT");
  if (list == nullptr) return false;
  // Commas at both ends, so that rank 1 does not match rank 11.
  return fmt::format(",{},", list).find(fmt::format(",{}:{},", kind, rank)) != std::string::npos;
}

}  // namespace tessera::checkpoint
