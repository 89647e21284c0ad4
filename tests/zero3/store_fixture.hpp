// SPDX-License-Identifier: Apache-2.0
// A model of one dense and one expert unit, small but in several blocks, for the store's tests.
#pragma once

#include <vector>

#include "tessera/zero3/parameter_store.hpp"

namespace tessera::zero3::test {

inline constexpr std::int64_t num_experts = 12;  // dealt to 1, 2, 3, 4 or 6 ranks

/// The divisors of the number of ranks.
inline std::vector<int> expert_axes() {
  int size = 1;
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  std::vector<int> axes;
  for (int expert = 1; expert <= size; ++expert) {
    if (size % expert == 0) axes.push_back(expert);
  }
  return axes;
}

/// How many ranks to take for one node: as it is, and every division into nodes of two or more.
inline std::vector<int> node_sizes() {
  std::vector<int> sizes{0};
  for (const int size : expert_axes()) {
    if (size > 1) sizes.push_back(size);
  }
  return sizes;
}

inline std::vector<UnitSpec> specs(const comm::ProcessGrid& grid) {
  const Parameter matrix{"a", {61, 70}};
  const Parameter norm{"norm", {5}, false, false, false};
  return {{"first", {matrix, norm}, Placement::dense(grid)},
          {"expert",
           {{"w", {num_experts, 30, 21}, true, true}, {"b", {num_experts, 3}, true}},
           Placement::expert(grid, num_experts)},
          {"second", {matrix, norm}, Placement::dense(grid)}};
}

/// body(parameter, index in the whole unit, global element) for all elements of this rank's unit.
template <class T, class Body>
void for_each_element(const ParameterStore<T>& store, std::size_t unit_idx, const Body& body) {
  const Unit& unit = store.unit(unit_idx);
  for (std::size_t p = 0; p < unit.parameters().size(); ++p) {
    const Parameter& parameter = unit.parameters()[p];
    const std::int64_t first = parameter.is_expert ? unit.placement().experts().begin *
                                                         parameter.size() / parameter.shape[0]
                                                   : 0;
    for (std::int64_t i = 0; i < unit.layout().local_size(p); ++i) {
      body(parameter, unit.layout().offset(p) + i, first + i);
    }
  }
}

/// Writes value(parameter, global element) into this rank's masters.
template <class T, class Value>
void fill(ParameterStore<T>& store, const Value& value) {
  for (std::size_t i = 0; i < store.num_units(); ++i) {
    for (const Slice& slice : store.unit(i).slices()) {
      for (std::int64_t e = slice.begin; e < slice.end; ++e) {
        store.unit(i).master()(slice.shard_offset + e - slice.begin) = value(*slice.parameter, e);
      }
    }
  }
}

}  // namespace tessera::zero3::test
