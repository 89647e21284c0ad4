// SPDX-License-Identifier: Apache-2.0
// A contiguous flat range of a row-major tensor as few rectangular boxes: how a flat shard of a
// parameter is selected in a dataset of natural shape.
#pragma once

#include <cstdint>
#include <vector>

#include "base/parameter.hpp"

namespace tessera::checkpoint {

/// A rectangular part of a tensor: `start` and `count` have one entry per dimension, counts >= 1.
struct Box {
  std::vector<std::int64_t> start, count;

  std::int64_t size() const { return num_elements(count); }
  bool operator==(const Box&) const = default;
};

/// The elements [begin, end), counted row-major over `shape`, as disjoint boxes: at most 2 * rank -
/// 1 of them (rest of a row, rest of an expert, whole experts, rows, part of a row), in ascending
/// order, so that the boxes one after the other, each row-major, give the range's own order. An
/// empty range has no boxes. local. @pre 0 <= begin <= end <= num_elements(shape), at least one
/// dimension.
std::vector<Box> boxes_of_range(const Shape& shape, std::int64_t begin, std::int64_t end);

}  // namespace tessera::checkpoint
