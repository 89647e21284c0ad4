// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <tessera/zero3/buffer_pool.hpp>

namespace tessera::zero3 {

struct PoolState {
  std::shared_ptr<kernel::Arena> arena = std::make_shared<kernel::Arena>();
  std::int64_t in_use = 0;
  std::int64_t peak = 0;
};

BufferPool::BufferPool() : state_(std::make_shared<PoolState>()) {}

BufferPool::Loan BufferPool::borrow(std::int64_t bytes) {
  Loan loan(state_);
  if (device_memory_is_checked()) {
    loan.guarded_ = kernel::allocate<kernel::Vector<std::uint8_t>>("zero3 buffer", bytes);
    loan.block_.data = reinterpret_cast<std::byte*>(loan.guarded_.data());
    loan.block_.bytes = bytes;
  } else {
    loan.block_ = state_->arena->take(bytes);
  }
  state_->in_use += bytes;
  state_->peak = std::max(state_->peak, state_->in_use);
  return loan;
}

const std::shared_ptr<kernel::Arena>& BufferPool::arena() const { return state_->arena; }
std::int64_t BufferPool::bytes_in_use() const { return state_->in_use; }
std::int64_t BufferPool::peak_bytes() const { return state_->peak; }

void BufferPool::Loan::give_back() {
  if (!state_) return;
  state_->in_use -= block_.bytes;
  if (guarded_.data() == nullptr) state_->arena->give_back(block_);
  guarded_ = {};
  state_.reset();
  block_ = {};
}

BufferPool::Loan& BufferPool::Loan::operator=(Loan&& other) noexcept {
  if (this == &other) return *this;
  give_back();
  state_ = std::move(other.state_);
  guarded_ = std::exchange(other.guarded_, {});
  block_ = std::exchange(other.block_, {});
  return *this;
}

}  // namespace tessera::zero3
