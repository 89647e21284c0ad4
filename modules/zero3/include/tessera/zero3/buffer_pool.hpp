// SPDX-License-Identifier: Apache-2.0
// Buffers for gathered parameters and whole-unit gradients, on loan from an arena, so that a steady
// step allocates nothing, with a counter that shows what is in use.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>

#include "kernel/allocate.hpp"
#include "kernel/arena.hpp"

namespace tessera::zero3 {

class BufferPool {
 public:
  /// A buffer on loan; gives itself back when destroyed. Content is undefined.
  class Loan {
   public:
    Loan() = default;
    Loan(Loan&& other) noexcept
        : state_(std::move(other.state_)),
          guarded_(std::exchange(other.guarded_, {})),
          block_(std::exchange(other.block_, {})) {}
    Loan& operator=(Loan&& other) noexcept;
    ~Loan() { give_back(); }

    template <class T>
    T* as() const {
      return reinterpret_cast<T*>(block_.data);
    }
    void give_back();

   private:
    friend class BufferPool;
    explicit Loan(std::shared_ptr<struct PoolState> state) : state_(std::move(state)) {}

    std::shared_ptr<struct PoolState> state_;
    kernel::Vector<std::uint8_t> guarded_;  ///< in a run that checks device memory, not the arena's
    kernel::Arena::Block block_;
  };

  BufferPool();
  Loan borrow(std::int64_t bytes);  ///< local

  /// What the loans are taken from. Whoever takes from it, too, shares the memory that one of them
  /// needs at a time.
  const std::shared_ptr<kernel::Arena>& arena() const;
  std::int64_t bytes_in_use() const;  ///< on loan now; 0 between steps
  std::int64_t peak_bytes() const;    ///< on loan at most

 private:
  std::shared_ptr<struct PoolState> state_;
};

}  // namespace tessera::zero3
