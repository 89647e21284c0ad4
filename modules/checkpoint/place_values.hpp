// SPDX-License-Identifier: Apache-2.0
// The way of elements from a buffer into a shard.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/dtype.hpp"
#include "tessera/checkpoint/fingerprint.hpp"

namespace tessera::checkpoint {

/// Widens `count` elements to `to` and hashes them as elements [first, first + count) of the
/// tensor, a little at a time, so that they are in the first cache until they go to memory, past
/// the caches where the processor can do that. `from` and `to` as in widen(); `first` is between
/// blocks of the fingerprint. Other threads and processes see them after finish_placing(). local.
void place_values(Dtype dtype, const std::byte* from, std::int64_t count, float* to,
                  std::int64_t first, TensorHash& hash);

/// After the last of them. local.
void finish_placing();

}  // namespace tessera::checkpoint
