// SPDX-License-Identifier: Apache-2.0
#include "kernel/view_pool.hpp"

#include <utility>

#include "base/contract.hpp"

namespace tessera::kernel {
namespace {

thread_local ViewPool* pool_of_thread = nullptr;

}  // namespace

ViewPool::~ViewPool() {
  collect();
  TESSERA_EXPECT(live_.empty());
}

const ViewPool::Live& ViewPool::take(const char* label, std::int64_t bytes) {
  collect();
  if (tokens_.empty()) tokens_.emplace_back(uninitialized("view of a pool"), 1);
  live_.push_back({std::move(tokens_.back()), arena_->take(bytes), label});
  tokens_.pop_back();
  if (watching_) look();
  return live_.back();
}

/// Frees what is over; the rest keeps its order.
void ViewPool::collect() {
  const auto is_over = [](const Live& live) { return live.token.use_count() == 1; };
  auto kept = std::find_if(live_.begin(), live_.end(), is_over);
  for (auto it = kept; it != live_.end(); ++it) {
    if (is_over(*it)) {
      arena_->give_back(it->block);
      tokens_.push_back(std::move(it->token));
    } else {
      *kept++ = std::move(*it);
    }
  }
  live_.erase(kept, live_.end());
}

void ViewPool::look() {
  std::int64_t sum = 0;
  for (const Live& live : live_) sum += live.block.bytes;
  if (sum <= peak_bytes_) return;
  peak_bytes_ = sum;
  peak_use_.clear();
  for (const Live& live : live_) peak_use_[live.label] += live.block.bytes;
}

ViewPool* current_pool() { return pool_of_thread; }

PoolScope::PoolScope(ViewPool& pool) : outer_(std::exchange(pool_of_thread, &pool)) {}
PoolScope::~PoolScope() { pool_of_thread = outer_; }

}  // namespace tessera::kernel
