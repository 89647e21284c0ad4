// SPDX-License-Identifier: Apache-2.0
// Some parameters of a unit with this rank's slices of them.
#pragma once

#include <vector>

#include "tessera/trainer/model_state.hpp"
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

/// Those that the checkpoint has, under the names that it has for them. `parameters` and `slices`:
/// of the model's unit with that index. local.
inline UnitParts stored_parts(const ModelSource& model, std::size_t unit_idx,
                              const std::vector<Parameter>& parameters,
                              const std::vector<Slice>& slices) {
  const std::vector<Parameter>& named = model.units[unit_idx].parameters;
  UnitParts parts;
  for (const Parameter& parameter : named) {
    if (model.has(parameter)) parts.parameters.push_back(parameter);
  }
  for (Slice slice : slices) {
    slice.parameter = &named[static_cast<std::size_t>(slice.parameter - parameters.data())];
    if (model.has(*slice.parameter)) parts.slices.push_back(slice);
  }
  return parts;
}

}  // namespace tessera::trainer
