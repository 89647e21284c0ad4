// SPDX-License-Identifier: Apache-2.0
// Where the parameters of one ZeRO-3 unit lie in its flat buffer, and which part of it a rank owns.
#pragma once

#include <cstdint>
#include <vector>

#include "base/parameter.hpp"
#include "tessera/zero3/placement.hpp"

namespace tessera::zero3 {

/// Parameters and shards begin at multiples of this many elements: whole cache lines in f32 and
/// bf16, and a shard border never falls into a 32-element quantisation block.
inline constexpr std::int64_t flat_alignment = 64;

/// Consecutive rows (of the slowest dimension) of a dense parameter; none: all of it.
struct RowRange {
  std::int64_t begin = 0;
  std::int64_t end = 0;
  bool is_all() const { return end == 0; }
};

class FlatLayout {
 public:
  /// `rows`: the unit has only those of each parameter, all of which are dense.
  FlatLayout(const std::vector<Parameter>& parameters, ExpertRange experts, int group_size,
             RowRange rows = {});

  std::int64_t offset(std::size_t parameter_idx) const { return offsets_[parameter_idx]; }
  /// Elements of a parameter in the unit on this expert rank: of a dense one all or those of its
  /// rows, of others the local experts'.
  std::int64_t local_size(std::size_t parameter_idx) const { return local_sizes_[parameter_idx]; }
  std::int64_t shard_size() const {
    return shard_size_;
  }  ///< elements, the same on all ranks of the group
  std::int64_t flat_size() const { return shard_size_ * group_size_; }  ///< with padding

  /// What `group_rank` owns, ordered by parameter; padding is in no slice.
  std::vector<Slice> slices(const std::vector<Parameter>& parameters, int group_rank) const;

 private:
  std::int64_t first_element(const Parameter& parameter) const;

  ExpertRange experts_;
  int group_size_;
  RowRange rows_;
  std::int64_t shard_size_ = 0;
  std::vector<std::int64_t> offsets_;
  std::vector<std::int64_t> local_sizes_;
};

}  // namespace tessera::zero3
