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

class FlatLayout {
 public:
  FlatLayout(const std::vector<Parameter>& parameters, ExpertRange experts, int group_size);

  std::int64_t offset(std::size_t parameter_idx) const { return offsets_[parameter_idx]; }
  /// Elements of a parameter on this expert rank: all of a dense one, the local experts' of others.
  std::int64_t local_size(std::size_t parameter_idx) const { return local_sizes_[parameter_idx]; }
  std::int64_t shard_size() const {
    return shard_size_;
  }  ///< elements, the same on all ranks of the group
  std::int64_t flat_size() const { return shard_size_ * group_size_; }  ///< with padding

  /// What `group_rank` owns, ordered by parameter; padding is in no slice.
  std::vector<Slice> slices(const std::vector<Parameter>& parameters, int group_rank) const;

 private:
  ExpertRange experts_;
  int group_size_;
  std::int64_t shard_size_ = 0;
  std::vector<std::int64_t> offsets_;
  std::vector<std::int64_t> local_sizes_;
};

}  // namespace tessera::zero3
