// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <tessera/moe/dispatch.hpp>
#include <tessera/moe/token_exchange.hpp>

namespace tessera::moe {
namespace {

constexpr std::int64_t page_bytes = 4096;

const char* to_string(Area area) {
  switch (area) {
    case Area::plan: return "dispatch plans";
    case Area::order: return "dispatch orders";
    case Area::tokens: return "tokens";
    case Area::results: return "expert results";
    case Area::gradients: return "gradients of expert outputs";
  }
  return "?";
}

/// Routing differs from step to step: a quarter more, so that the areas soon stop growing.
std::int64_t with_reserve(std::int64_t bytes) {
  return (bytes + bytes / 4 + page_bytes - 1) / page_bytes * page_bytes;
}

}  // namespace

bool TokenExchange::is_shared() {
  if (!is_shared_) {
    is_shared_ = kernel::host_sees_memory() && !axis_.has_device_collectives() &&
                 axis_.size() > 1 &&
                 axis_.split_node("expert axis on this node").size() == axis_.size();
    if (*is_shared_) arrivals_ = comm::SharedCounters::allocate(axis_, 1);
    is_shared_ = arrivals_.has_value();
  }
  return *is_shared_;
}

std::int64_t TokenExchange::capacity_bytes(Area area) const {
  const auto& shared = areas_[static_cast<std::size_t>(area)];
  return shared ? shared->segment_bytes() : 0;
}

bool TokenExchange::reserve(Area area, std::int64_t bytes) {
  if (!is_shared()) return false;
  auto& memory = areas_[static_cast<std::size_t>(area)];
  if (memory && bytes <= memory->segment_bytes()) return true;
  claim(area);
  auto larger = comm::SharedMemory::allocate(axis_, to_string(area),
                                             with_reserve(std::max(bytes, page_bytes)));
  if (!larger) {
    is_shared_ = false;
    return false;
  }
  if (area == Area::tokens) outgrown_tokens_ = std::move(memory);
  memory = std::move(larger);
  return true;
}

void TokenExchange::claim(Area area) {
  if (lent_[static_cast<std::size_t>(area)]) meet(to_string(area));
}

void TokenExchange::arrive() {
  kernel::Execution().fence();  // the neighbours read what kernels wrote
  arrivals_->set(0, ++num_meetings_);
}

void TokenExchange::await_others(const char* what) {
  if (axis_.options().checked) axis_.barrier(what);
  arrivals_->wait(what, 0, num_meetings_);
  lent_.fill(false);
}

template <class T>
kernel::Matrix<T> TokenExchange::tokens(std::int64_t num_tokens, std::int64_t hidden) {
  claim(Area::tokens);
  ++plan_number_;
  outgrown_tokens_.reset();
  const std::int64_t bytes = num_tokens * hidden * std::int64_t{sizeof(T)};
  tokens_are_written_ = is_shared() && bytes <= capacity_bytes(Area::tokens);
  if (!tokens_are_written_) return kernel::new_matrix<T>("tokens", num_tokens, hidden);
  return kernel::Matrix<T>(memory<T>(Area::tokens, axis_.rank()), num_tokens, hidden);
}

template <class T>
kernel::Matrix<T> TokenExchange::results(const DispatchHandle& handle, std::int64_t hidden) {
  const std::int64_t largest = handle.largest_received * hidden * std::int64_t{sizeof(T)};
  if (!reserve(Area::results, largest)) {
    return kernel::new_matrix<T>("expert results", handle.num_received, hidden);
  }
  claim(Area::results);
  return kernel::Matrix<T>(memory<T>(Area::results, axis_.rank()), handle.num_received, hidden);
}

template kernel::Matrix<float> TokenExchange::tokens<float>(std::int64_t, std::int64_t);
template kernel::Matrix<bf16> TokenExchange::tokens<bf16>(std::int64_t, std::int64_t);
template kernel::Matrix<float> TokenExchange::results<float>(const DispatchHandle&, std::int64_t);
template kernel::Matrix<bf16> TokenExchange::results<bf16>(const DispatchHandle&, std::int64_t);

}  // namespace tessera::moe
