// SPDX-License-Identifier: Apache-2.0
// How kernels are cut for a host and for a GPU, and small tables that they read.
#pragma once

#include <cstdint>
#include <span>

#include "kernel/view.hpp"

namespace tessera::kernel {

inline constexpr bool kernels_run_on_host =
    Kokkos::SpaceAccessibility<Execution, Kokkos::HostSpace>::accessible;

/// A team for each of `rows` rows, whose members share its `width` elements (TeamVectorRange): on a
/// GPU one to eight warps, four elements or more for each lane, so that short rows leave no lanes
/// idle and reductions of long ones stay short.
inline Team team_per_row(const Execution& execution, std::int64_t rows, std::int64_t width) {
  const int league = static_cast<int>(rows);
  if constexpr (kernels_run_on_host) return Team(execution, league, Kokkos::AUTO);
  constexpr int lanes = 32, max_warps = 8;
  const std::int64_t warps = width / (4 * lanes);
  return Team(execution, league, warps < 1 ? 1 : warps < max_warps ? int(warps) : max_warps, lanes);
}

/// How many consecutive elements one index of a Range takes. On a host a block, long enough to cost
/// nothing and to become vector instructions, short enough to be shared out among threads; on a GPU
/// one, so that neighbouring threads have neighbouring elements.
constexpr std::int64_t elements_per_index(std::int64_t host_block) {
  return kernels_run_on_host ? host_block : 1;
}

/// A copy of a table of the host in the kernels' memory, ready in the order of `execution`. The
/// table may go when this returns. local.
template <class T>
Vector<T> on_device(const Execution& execution, const char* label, std::span<const T> table) {
  using Host = Kokkos::View<const T*, Kokkos::LayoutRight, Kokkos::HostSpace,
                            Kokkos::MemoryTraits<Kokkos::Unmanaged>>;
  const auto copy = new_vector<T>(label, static_cast<std::int64_t>(table.size()));
  Kokkos::deep_copy(execution, copy, Host(table.data(), table.size()));
  return copy;
}

}  // namespace tessera::kernel
