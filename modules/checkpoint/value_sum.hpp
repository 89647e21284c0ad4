// SPDX-License-Identifier: Apache-2.0
// A sum over values in which each counts by its place: the quick way to see whether what lies in
// memory is what was read.
#pragma once

#include <cstdint>
#include <span>

namespace tessera::checkpoint {

/// Sum over i of the bits of values[i] times a number made of its place `first` + i, modulo 2^64.
/// Of a tensor's parts, in whatever order and pieces, it is that of the whole. A change of any one
/// value changes it; values in wrong places change it but for one case in billions. Goes into no
/// file. local.
std::uint64_t value_sum(std::int64_t first, std::span<const float> values);
std::uint64_t value_sum(std::int64_t first, std::span<const std::uint8_t> values);

}  // namespace tessera::checkpoint
