// SPDX-License-Identifier: Apache-2.0
#include "kernel/block_map.hpp"

#include <algorithm>

#include "base/contract.hpp"

namespace tessera::kernel {

std::optional<std::int64_t> BlockMap::take(std::int64_t bytes, std::int64_t limit_bytes) {
  if (bytes == 0) return 0;  // a unit without elements: it is nowhere, and given back to nowhere
  bytes = rounded(bytes);
  auto best = holes_.end();
  for (auto it = holes_.begin(); it != holes_.end(); ++it) {
    if (it->second >= bytes && (best == holes_.end() || it->second < best->second)) best = it;
  }
  std::int64_t offset = end_;
  if (best != holes_.end()) {
    const std::int64_t left = best->second - bytes;
    offset = best->first;
    holes_.erase(best);
    if (left > 0) holes_.emplace(offset + bytes, left);
  } else {
    if (end_ + bytes > limit_bytes) return std::nullopt;
    end_ += bytes;
    size_bytes_ = std::max(size_bytes_, end_);
  }
  used_bytes_ += bytes;
  return offset;
}

void BlockMap::give_back(std::int64_t offset, std::int64_t bytes) {
  if (bytes == 0) return;
  bytes = rounded(bytes);
  TESSERA_EXPECT(offset >= 0 && offset + bytes <= end_);
  used_bytes_ -= bytes;
  auto here = holes_.emplace(offset, bytes).first;
  const auto next = std::next(here);
  if (next != holes_.end() && next->first == offset + bytes) {
    here->second += next->second;
    holes_.erase(next);
  }
  if (here != holes_.begin()) {
    const auto before = std::prev(here);
    if (before->first + before->second == offset) {
      before->second += here->second;
      holes_.erase(here);
      here = before;
    }
  }
  if (here->first + here->second == end_) {
    end_ = here->first;
    holes_.erase(here);
  }
}

}  // namespace tessera::kernel
