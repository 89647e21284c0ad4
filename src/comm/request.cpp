// SPDX-License-Identifier: Apache-2.0
#include <exception>
#include <utility>

#include "base/contract.hpp"
#include "comm/communicator.hpp"

namespace tessera::comm {

Request::Request() = default;
Request::Request(std::function<void()> wait, std::function<bool()> test)
    : wait_(std::move(wait)), test_(std::move(test)) {}
Request::Request(Request&& other) noexcept
    : wait_(std::exchange(other.wait_, nullptr)), test_(std::exchange(other.test_, nullptr)) {}

Request& Request::operator=(Request&& other) noexcept {
  TESSERA_EXPECT(!pending());
  wait_ = std::exchange(other.wait_, nullptr);
  test_ = std::exchange(other.test_, nullptr);
  return *this;
}

// While an exception unwinds the owner had no chance to wait: do it for him, briefly, so that MPI
// does not write into buffers that are gone.
Request::~Request() {
  if (!pending()) return;
  TESSERA_EXPECT(std::uncaught_exceptions() > 0);
  try {
    wait();
  } catch (const std::exception&) {
    wait_ = nullptr;  // the exception under way tells more
  }
}

bool Request::test() { return !pending() || (test_ && test_()); }

void Request::wait() {
  if (const auto wait = std::exchange(wait_, nullptr)) wait();
}

}  // namespace tessera::comm
