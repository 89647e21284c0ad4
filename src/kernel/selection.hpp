// SPDX-License-Identifier: Apache-2.0
// Selecting the largest of few values without moving them: each pass over the values finds the next
// one in a total order.
#pragma once

#include <Kokkos_Core.hpp>
#include <cstdint>
#include <cstring>

namespace tessera::kernel {

/// An integer that orders (value, expert) as the router does: larger value first, then lower
/// expert. All keys of a row differ and NaN is the largest value, as in torch.topk, so that every
/// pass of the selection finds an expert and a NaN reaches the loss.
KOKKOS_INLINE_FUNCTION std::int64_t selection_key(float value, std::int64_t expert) {
  std::int32_t bits;
  memcpy(&bits, &value, sizeof bits);
  const std::int32_t magnitude = bits & 0x7fffffff;
  std::int32_t order = bits < 0 ? -magnitude : magnitude;  // -0 and +0 tie
  if (magnitude > 0x7f800000) order = 0x7f800001;
  return static_cast<std::int64_t>(order) * (std::int64_t{1} << 32) + (0xffffffff - expert);
}

KOKKOS_INLINE_FUNCTION std::int32_t expert_of(std::int64_t key) {
  return static_cast<std::int32_t>(0xffffffff - (key & 0xffffffff));
}

/// The largest key of values [count] below `previous`; INT64_MAX finds the first of all.
KOKKOS_INLINE_FUNCTION std::int64_t next_key(const float* values, std::int64_t count,
                                             std::int64_t previous) {
  std::int64_t best = INT64_MIN;
  for (std::int64_t e = 0; e < count; ++e) {
    const std::int64_t key = selection_key(values[e], e);
    best = key < previous && key > best ? key : best;
  }
  return best;
}

}  // namespace tessera::kernel
