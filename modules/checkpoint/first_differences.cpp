// SPDX-License-Identifier: Apache-2.0
#include "first_differences.hpp"

#include <bit>
#include <cstring>
#include <limits>

namespace tessera::checkpoint {
namespace {

constexpr std::int64_t nowhere = std::numeric_limits<std::int64_t>::max();

std::uint32_t bits_of(float value) { return std::bit_cast<std::uint32_t>(value); }

}  // namespace

FirstDifferences::FirstDifferences(std::span<const Parameter> parameters) {
  std::size_t num_entries = 0;
  for (const Parameter& parameter : parameters) {
    offsets_.push_back(num_entries);
    num_entries += parameter.is_expert ? static_cast<std::size_t>(parameter.shape[0]) : 1;
  }
  first_.resize(num_entries, nowhere);
  count_.resize(num_entries);
  values_.resize(num_entries);
}

void FirstDifferences::compare(std::size_t parameter_idx, const Slice& slice, const float* a,
                               const float* b) {
  const std::int64_t size = slice.size();
  if (std::memcmp(a, b, static_cast<std::size_t>(size) * sizeof(float)) == 0) return;
  const Parameter& parameter = *slice.parameter;
  const std::int64_t num_experts = parameter.is_expert ? parameter.shape[0] : 1;
  const std::int64_t expert_size = parameter.size() / num_experts;
  for (std::int64_t i = 0; i < size; ++i) {
    if (bits_of(a[i]) == bits_of(b[i])) continue;
    const std::int64_t at = slice.begin + i;
    const std::size_t entry = offsets_[parameter_idx] + static_cast<std::size_t>(at / expert_size);
    ++count_[entry];
    if (at >= first_[entry]) continue;
    first_[entry] = at;
    values_[entry] = std::uint64_t(bits_of(a[i])) << 32 | bits_of(b[i]);
  }
}

void FirstDifferences::sum(const comm::Communicator& world) {
  if (first_.empty()) return;
  const std::vector<std::int64_t> mine = first_;
  world.all_reduce("first differences", std::span<std::int64_t>(first_), comm::ReduceOp::min);
  world.all_reduce("differing elements", std::span<std::int64_t>(count_), comm::ReduceOp::sum);
  for (std::size_t i = 0; i < mine.size(); ++i) {
    if (mine[i] != first_[i]) values_[i] = 0;
  }
  world.all_reduce("differing values", std::span<std::uint64_t>(values_), comm::ReduceOp::sum);
}

std::pair<float, float> FirstDifferences::values(std::size_t parameter_idx,
                                                 std::size_t expert) const {
  const std::uint64_t bits = values_[offsets_[parameter_idx] + expert];
  return {std::bit_cast<float>(static_cast<std::uint32_t>(bits >> 32)),
          std::bit_cast<float>(static_cast<std::uint32_t>(bits))};
}

}  // namespace tessera::checkpoint
