// SPDX-License-Identifier: Apache-2.0
// Reusable device buffers for gathered parameters and whole-unit gradients, so that a steady step
// allocates nothing, with a counter that shows what is in use.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "kernel/view.hpp"

namespace tessera::zero3 {

class BufferPool {
 public:
  using Bytes = kernel::Vector<std::uint8_t>;

  /// A buffer on loan; gives itself back when destroyed. Content is undefined.
  class Loan {
   public:
    Loan() = default;
    Loan(Loan&& other) noexcept;
    Loan& operator=(Loan&& other) noexcept;
    ~Loan() { give_back(); }

    template <class T>
    T* as() const {
      return reinterpret_cast<T*>(buffer_.data());
    }
    void give_back();

   private:
    friend class BufferPool;
    Loan(std::weak_ptr<struct PoolState> pool, Bytes buffer, std::int64_t bytes)
        : pool_(std::move(pool)), buffer_(std::move(buffer)), bytes_(bytes) {}

    std::weak_ptr<struct PoolState> pool_;
    Bytes buffer_;
    std::int64_t bytes_ = 0;
  };

  BufferPool();
  /// The smallest free buffer that is large enough and not too large, else a new one. local.
  Loan borrow(std::int64_t bytes);

  /// Lent to a small borrower, a large buffer would be missing, and made a second time.
  static bool is_too_large(std::int64_t capacity_bytes, std::int64_t bytes) {
    return capacity_bytes > bytes + bytes / 4;
  }

  std::int64_t bytes_in_use() const;    ///< on loan now; 0 between steps
  std::int64_t peak_bytes() const;      ///< on loan at most
  std::int64_t reserved_bytes() const;  ///< held, in use or free

 private:
  std::shared_ptr<struct PoolState> state_;
};

}  // namespace tessera::zero3
