// SPDX-License-Identifier: Apache-2.0
#include "kernel/view_pool.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <numeric>

namespace tessera::kernel {
namespace {

thread_local ViewPool* pool_of_thread = nullptr;

constexpr std::int64_t huge_page_bytes = 2 << 20;

}  // namespace

/// At most an eighth more; the same for numbers that lie close together.
std::int64_t ViewPool::capacity_for(std::int64_t rows, std::int64_t row_bytes) {
  const auto step = static_cast<std::int64_t>(
      std::max<std::uint64_t>(1, std::bit_floor(static_cast<std::uint64_t>(rows)) / 8));
  return std::max((rows + step - 1) / step * step, least_bytes / row_bytes);
}

/// Fewer faults at first touch and fewer misses of the address cache. Advice alone: what the system
/// makes of it changes nothing else.
void ViewPool::advise_huge_pages(void* data, std::int64_t bytes) {
  if (bytes < 2 * huge_page_bytes) return;
  const auto begin = reinterpret_cast<std::uintptr_t>(data);
  const std::uintptr_t first = (begin + huge_page_bytes - 1) / huge_page_bytes * huge_page_bytes;
  const std::uintptr_t end = (begin + bytes) / huge_page_bytes * huge_page_bytes;
  ::madvise(reinterpret_cast<void*>(first), end - first, MADV_HUGEPAGE);
}

void ViewPool::look() {
  std::map<std::string, std::int64_t> use;
  for (const auto& [type, shelves] : shelves_) shelves->add_use(use);
  const std::int64_t sum =
      std::accumulate(use.begin(), use.end(), std::int64_t{0},
                      [](std::int64_t before, const auto& each) { return before + each.second; });
  if (sum <= peak_bytes_) return;
  peak_bytes_ = sum;
  peak_use_ = std::move(use);
}

ViewPool* current_pool() { return pool_of_thread; }

PoolScope::PoolScope(ViewPool& pool) : outer_(std::exchange(pool_of_thread, &pool)) {}
PoolScope::~PoolScope() { pool_of_thread = outer_; }

}  // namespace tessera::kernel
