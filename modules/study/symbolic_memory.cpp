// SPDX-License-Identifier: Apache-2.0
#include "symbolic_memory.hpp"

namespace tessera::study {
namespace {

bool is_loan(MemoryKind kind) {
  return kind == MemoryKind::gathered_parameters || kind == MemoryKind::gathered_gradients;
}

}  // namespace

SymbolicMemory::Block SymbolicMemory::take(MemoryKind kind, std::int64_t bytes) {
  if (bytes == 0) return {};
  if (!is_loan(kind)) {
    for (const Taken& taken : over_) give_back(taken);
    over_.clear();
  }
  const std::int64_t before = map_.size_bytes();
  const Taken taken{kind, *map_.take(bytes), bytes};
  live_[static_cast<std::size_t>(kind)] += kernel::BlockMap::rounded(bytes);
  if (map_.size_bytes() > before) at_peak_ = live_;
  return {&map_, [this, taken](const void*) {
            if (is_loan(taken.kind)) return give_back(taken);
            over_.push_back(taken);
          }};
}

void SymbolicMemory::give_back(const Taken& taken) {
  map_.give_back(taken.offset, taken.bytes);
  live_[static_cast<std::size_t>(taken.kind)] -= kernel::BlockMap::rounded(taken.bytes);
}

}  // namespace tessera::study
