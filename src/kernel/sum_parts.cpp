// SPDX-License-Identifier: Apache-2.0
#include "kernel/sum_parts.hpp"

#include <algorithm>
#include <array>

#include "base/contract.hpp"

namespace tessera::kernel {
namespace {

// The sum of a block stays in the first cache while the parts stream by.
constexpr std::int64_t block_size = 1024;

template <class Transport>
void sum_block(std::span<const float* const> parts, std::int64_t begin, std::int64_t count,
               Into into, float* __restrict destination) {
  std::array<float, block_size> sum;
  for (std::int64_t i = 0; i < count; ++i) {
    sum[i] = static_cast<float>(static_cast<Transport>(parts[0][begin + i]));
  }
  for (const float* whole : parts.subspan(1)) {
    const float* part = whole + begin;
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
  Kokkos::parallel_for("tessera::sum_parts",
                       Range(execution, 0, (size + block_size - 1) / block_size),
                       [=](const std::int64_t block) {
                         const std::int64_t begin = block * block_size;
                         sum_block<Transport>(parts, begin, std::min(block_size, size - begin),
                                              into, destination + begin);
                       });
}

template void sum_parts<float>(const Execution&, std::span<const float* const>, Into,
                               Vector<float>);
template void sum_parts<bf16>(const Execution&, std::span<const float* const>, Into, Vector<float>);

}  // namespace tessera::kernel
