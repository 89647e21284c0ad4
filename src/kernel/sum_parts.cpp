// SPDX-License-Identifier: Apache-2.0
#include "kernel/sum_parts.hpp"

#include <vector>

#include "base/contract.hpp"
#include "kernel/addressed_rows.hpp"
#include "kernel/launch.hpp"

namespace tessera::kernel {
namespace {

// The sum of a block stays in the first cache while the parts stream by.
constexpr std::int64_t block_size = elements_per_index(1024);

template <class Transport>
KOKKOS_INLINE_FUNCTION void sum_block(const RowAddresses<const float>& parts, std::int64_t begin,
                                      std::int64_t count, Into into,
                                      float* KOKKOS_RESTRICT destination) {
  float sum[block_size];
  for (std::int64_t i = 0; i < count; ++i) {
    sum[i] = static_cast<float>(static_cast<Transport>(parts(0).first[begin + i]));
  }
  for (std::int64_t p = 1; p < std::int64_t(parts.extent(0)); ++p) {
    const float* part = parts(p).first + begin;
    for (std::int64_t i = 0; i < count; ++i) {
      sum[i] += static_cast<float>(static_cast<Transport>(part[i]));
    }
  }
  if (into == Into::overwrite) {
    for (std::int64_t i = 0; i < count; ++i) {
      destination[i] = static_cast<float>(static_cast<Transport>(sum[i]));
    }
  } else {
    for (std::int64_t i = 0; i < count; ++i) {
      destination[i] += static_cast<float>(static_cast<Transport>(sum[i]));
    }
  }
}

}  // namespace

template <class Transport>
void sum_parts(const Execution& execution, std::span<const float* const> parts, Into into,
               Vector<float> sum) {
  TESSERA_EXPECT(!parts.empty());
  const std::int64_t size = sum.extent(0);
  float* destination = sum.data();
  std::vector<RowAddress<const float>> table;
  for (const float* part : parts) table.push_back({part});
  const auto all = on_device<RowAddress<const float>>(execution, "parts of a sum", table);
  Kokkos::parallel_for(
      "tessera::sum_parts", Range(execution, 0, (size + block_size - 1) / block_size),
      KOKKOS_LAMBDA(const std::int64_t block) {
        const std::int64_t begin = block * block_size;
        const std::int64_t count = size - begin < block_size ? size - begin : block_size;
        sum_block<Transport>(all, begin, count, into, destination + begin);
      });
}

template void sum_parts<float>(const Execution&, std::span<const float* const>, Into,
                               Vector<float>);
template void sum_parts<bf16>(const Execution&, std::span<const float* const>, Into, Vector<float>);

}  // namespace tessera::kernel
