// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <tessera/zero3/gather_buffer.hpp>

#include "base/contract.hpp"

namespace tessera::zero3 {

kernel::Vector<const float> gather_buffer(const Unit& unit, std::string_view suffix) {
  TESSERA_EXPECT(!unit.placement().is_expert());
  const auto parameter = std::find_if(unit.parameters().begin(), unit.parameters().end(),
                                      [&](const Parameter& p) { return p.name.ends_with(suffix); });
  TESSERA_EXPECT(parameter != unit.parameters().end());
  const auto master = kernel::host_copy(unit.master());
  const auto whole = kernel::allocate_zeros<kernel::Vector<float>>("buffer", parameter->size());
  const auto host = kernel::host_mirror(whole);
  for (const Slice& slice : unit.slices()) {
    if (slice.parameter != &*parameter) continue;
    std::copy_n(master.data() + slice.shard_offset, slice.size(), host.data() + slice.begin);
  }
  // Every element has one owner and zeros elsewhere, so the sum is exact.
  unit.group().all_reduce("gather buffer", std::span<float>(host.data(), host.size()),
                          comm::ReduceOp::sum);
  Kokkos::deep_copy(whole, host);
  return whole;
}

}  // namespace tessera::zero3
