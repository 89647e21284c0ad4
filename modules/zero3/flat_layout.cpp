// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <tessera/zero3/flat_layout.hpp>

#include "base/contract.hpp"

namespace tessera::zero3 {
namespace {

std::int64_t round_up(std::int64_t n) {
  return (n + flat_alignment - 1) / flat_alignment * flat_alignment;
}

}  // namespace

FlatLayout::FlatLayout(const std::vector<Parameter>& parameters, ExpertRange experts,
                       int group_size, RowRange rows)
    : experts_(experts), group_size_(group_size), rows_(rows) {
  std::int64_t end = 0;
  for (const Parameter& parameter : parameters) {
    TESSERA_EXPECT(rows.is_all() || !parameter.is_expert);
    const std::int64_t row_size = parameter.size() / parameter.shape[0];
    const std::int64_t size = parameter.is_expert ? row_size * experts.count()
                              : rows.is_all()     ? parameter.size()
                                                  : row_size * (rows.end - rows.begin);
    offsets_.push_back(end);
    local_sizes_.push_back(size);
    end = round_up(end + size);
  }
  shard_size_ = round_up((end + group_size - 1) / group_size);
}

/// Of the unit's part. What is local is consecutive, so a local range is a global one moved by
/// this.
std::int64_t FlatLayout::first_element(const Parameter& parameter) const {
  return parameter.size() / parameter.shape[0] *
         (parameter.is_expert ? experts_.begin : rows_.begin);
}

std::vector<Slice> FlatLayout::slices(const std::vector<Parameter>& parameters,
                                      int group_rank) const {
  const std::int64_t shard_begin = group_rank * shard_size_;
  const std::int64_t shard_end = shard_begin + shard_size_;
  std::vector<Slice> slices;
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    const std::int64_t begin = std::max(shard_begin, offsets_[i]);
    const std::int64_t end = std::min(shard_end, offsets_[i] + local_sizes_[i]);
    if (begin >= end) continue;
    const Parameter& parameter = parameters[i];
    const std::int64_t global_begin = first_element(parameter) + begin - offsets_[i];
    slices.push_back({&parameter, global_begin, global_begin + (end - begin), begin - shard_begin});
  }
  return slices;
}

}  // namespace tessera::zero3
