// SPDX-License-Identifier: Apache-2.0
// Some parameters of a unit with this rank's slices of them.
#pragma once

#include <vector>

#include "tessera/zero3/unit.hpp"

namespace tessera::trainer {

struct UnitParts {
  std::vector<Parameter> parameters;
  std::vector<Slice> slices;
};

/// Those that `selects(parameter)`. local.
template <class Predicate>
UnitParts select(const zero3::Unit& unit, const Predicate& selects) {
  UnitParts parts;
  for (const Parameter& parameter : unit.parameters()) {
    if (selects(parameter)) parts.parameters.push_back(parameter);
  }
  for (const Slice& slice : unit.slices()) {
    if (selects(*slice.parameter)) parts.slices.push_back(slice);
  }
  return parts;
}

/// Those with a gradient and an optimizer state. local.
inline UnitParts trainable(const zero3::Unit& unit) {
  return select(unit, [](const Parameter& parameter) { return parameter.trainable; });
}

}  // namespace tessera::trainer
