// SPDX-License-Identifier: Apache-2.0
// Where two checkpoints' values of the same tensors differ first, and how often.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "base/parameter.hpp"
#include "comm/communicator.hpp"

namespace tessera::checkpoint {

class FirstDifferences {
 public:
  /// Of each expert of these parameters, or of the whole tensor where it is dense. local.
  explicit FirstDifferences(std::span<const Parameter> parameters);

  /// Looks at the elements of `slice`, of the parameter of that index: slice.size() values, bit for
  /// bit. local.
  void compare(std::size_t parameter_idx, const Slice& slice, const float* a, const float* b);

  /// The ranks' slices are disjoint, so one of them has seen the first element. collective over
  /// world.
  void sum(const comm::Communicator& world);

  /// Index in the parameter of the first element that differs. @pre count() > 0
  std::int64_t first(std::size_t parameter_idx, std::size_t expert) const {
    return first_[offsets_[parameter_idx] + expert];
  }
  std::int64_t count(std::size_t parameter_idx, std::size_t expert) const {
    return count_[offsets_[parameter_idx] + expert];
  }
  /// Of that first element.
  std::pair<float, float> values(std::size_t parameter_idx, std::size_t expert) const;

 private:
  std::vector<std::size_t> offsets_;  ///< of each parameter's first expert
  std::vector<std::int64_t> first_, count_;
  std::vector<std::uint64_t> values_;  ///< bits of both
};

}  // namespace tessera::checkpoint
