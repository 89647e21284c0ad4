// SPDX-License-Identifier: Apache-2.0
#include "base/polling.hpp"

#include <chrono>
#include <utility>
#include <vector>

namespace tessera {
namespace {

using Clock = std::chrono::steady_clock;

// A link's buffers keep it busy for longer, and a poll may be a system call.
constexpr std::chrono::microseconds between_polls{200};

struct Polled {
  std::vector<std::function<bool()>> all;
  Clock::time_point next;
};

thread_local Polled polled;

}  // namespace

// Drops what is done also where nobody computes.
void poll_until_false(std::function<bool()> poll) {
  poll_now_and_then();
  polled.all.push_back(std::move(poll));
}

void poll_now_and_then() {
  if (polled.all.empty() || Clock::now() < polled.next) return;
  std::erase_if(polled.all, [](const auto& poll) { return !poll(); });
  polled.next = Clock::now() + between_polls;
}

}  // namespace tessera
