// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <tessera/zero3/buffer_pool.hpp>

namespace tessera::zero3 {

struct PoolState {
  std::vector<BufferPool::Bytes> free;
  std::int64_t in_use = 0;
  std::int64_t peak = 0;
  std::int64_t reserved = 0;
};

BufferPool::BufferPool() : state_(std::make_shared<PoolState>()) {}

BufferPool::Loan BufferPool::borrow(std::int64_t bytes) {
  PoolState& s = *state_;
  auto best = s.free.end();
  for (auto it = s.free.begin(); it != s.free.end(); ++it) {
    const auto capacity = static_cast<std::int64_t>(it->size());
    const bool fits = capacity >= bytes && !is_too_large(capacity, bytes);
    if (fits && (best == s.free.end() || it->size() < best->size())) best = it;
  }
  Bytes buffer;
  if (best != s.free.end()) {
    buffer = *best;
    s.free.erase(best);
  } else {
    buffer = kernel::allocate<Bytes>("zero3 buffer", bytes);
    s.reserved += bytes;
  }
  const auto capacity = static_cast<std::int64_t>(buffer.size());
  s.in_use += capacity;
  s.peak = std::max(s.peak, s.in_use);
  return Loan(state_, std::move(buffer), capacity);
}

std::int64_t BufferPool::bytes_in_use() const { return state_->in_use; }
std::int64_t BufferPool::peak_bytes() const { return state_->peak; }
std::int64_t BufferPool::reserved_bytes() const { return state_->reserved; }

void BufferPool::Loan::give_back() {
  if (bytes_ == 0) return;
  if (const auto pool = pool_.lock()) {
    pool->in_use -= bytes_;
    pool->free.push_back(buffer_);
  }
  buffer_ = Bytes();
  bytes_ = 0;
}

BufferPool::Loan& BufferPool::Loan::operator=(Loan&& other) noexcept {
  if (this == &other) return *this;
  give_back();
  pool_ = std::move(other.pool_);
  buffer_ = std::move(other.buffer_);
  bytes_ = std::exchange(other.bytes_, 0);
  return *this;
}

BufferPool::Loan::Loan(Loan&& other) noexcept
    : pool_(std::move(other.pool_)),
      buffer_(std::move(other.buffer_)),
      bytes_(std::exchange(other.bytes_, 0)) {}

}  // namespace tessera::zero3
