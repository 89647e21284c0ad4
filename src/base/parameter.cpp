// SPDX-License-Identifier: Apache-2.0
#include "base/parameter.hpp"

#include <fmt/ranges.h>

namespace tessera {

std::string to_string(const Shape& shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

}  // namespace tessera
