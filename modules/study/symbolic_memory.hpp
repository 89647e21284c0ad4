// SPDX-License-Identifier: Apache-2.0
// The arena of a step, without memory: which kinds of bytes live when it reaches farthest.
#pragma once

#include <array>
#include <memory>
#include <vector>

#include "kernel/block_map.hpp"
#include "tessera/study/memory_plan.hpp"

namespace tessera::study {

/// Of an element that is f32 whatever the arithmetic.
inline constexpr std::int64_t f32_bytes = 4;

class SymbolicMemory {
 public:
  using Kinds = std::array<std::int64_t, num_memory_kinds>;

  /// Given back when the last copy is gone: a loan at once, a view's bytes when the pool is next
  /// asked for some, since only then it looks (kernel/view_pool.cpp).
  using Block = std::shared_ptr<const void>;
  /// What is kept and given back together.
  using Blocks = std::vector<Block>;

  /// Loans are of whole units and their gradients, all else are views. 0 bytes: nothing. local.
  Block take(MemoryKind kind, std::int64_t bytes);
  /// What lives no longer than the statement. local.
  void touch(MemoryKind kind, std::int64_t bytes) { take(kind, bytes); }

  std::int64_t reserved_bytes() const { return map_.size_bytes(); }
  /// At the moment at which reserved_bytes() was reached.
  const Kinds& kinds_at_peak() const { return at_peak_; }

 private:
  struct Taken {
    MemoryKind kind;
    std::int64_t offset, bytes;
  };
  void give_back(const Taken& taken);

  kernel::BlockMap map_;
  std::vector<Taken> over_;  // views that the pool has not looked at since
  Kinds live_{};
  Kinds at_peak_{};
};

}  // namespace tessera::study
