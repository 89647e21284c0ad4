// SPDX-License-Identifier: Apache-2.0
// A stable counting sort (Knuth, The Art of Computer Programming, volume 3, section 5.2, algorithm
// D) in two halves, so that the counts can be sent on while the rest is sorted.
#pragma once

#include <cstdint>

#include "kernel/view.hpp"

namespace tessera::kernel {

/// How often each key occurs, and where the elements of each part of the input go.
struct KeyCounts {
  Vector<std::int64_t> count;  ///< [K]
  /// [parts, K] where the next element of that key in that part goes; parts are consecutive pieces
  /// of the input, one on a host with one thread
  Matrix<std::int32_t> next;
};

/// keys [N] i32 in 0 .. num_keys - 1, N < 2^31. local.
KeyCounts count_keys(const Execution& execution, Vector<const std::int32_t> keys,
                     std::int64_t num_keys);
/// Elements in order of key, equal keys in the order of the input: element i goes to position[i]
/// [N] i32, and group[position[i]] = i / group_size, [N] i32. Uses up the counts. local.
void sort_by_key(const Execution& execution, Vector<const std::int32_t> keys,
                 const KeyCounts& counts, std::int64_t group_size, Vector<std::int32_t> position,
                 Vector<std::int32_t> group);

/// Consecutive numbers in blocks: numbers[to[b] + i] = from[b] + i for i in 0 .. size[b] - 1; the
/// blocks, [B] i32 each, cover numbers [N] i32. local.
void number_blocks(const Execution& execution, Vector<const std::int32_t> to,
                   Vector<const std::int32_t> from, Vector<const std::int32_t> size,
                   Vector<std::int32_t> numbers);

namespace reference {
/// counts[k] for the keys; position and group as above. Host memory.
void sort_by_key(Vector<const std::int32_t> keys, std::int64_t group_size,
                 Vector<std::int64_t> count, Vector<std::int32_t> position,
                 Vector<std::int32_t> group);
}  // namespace reference

}  // namespace tessera::kernel
