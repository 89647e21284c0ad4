// SPDX-License-Identifier: Apache-2.0
// Errors that one rank alone meets (a file, an allocation, a NaN) become errors of all ranks,
// before the next collective could hang.
#pragma once

#include <exception>
#include <string_view>
#include <type_traits>

#include "comm/communicator.hpp"

namespace tessera::comm {

/// All ranks learn whether any of them failed in `phase`; if so, all throw the Error of the lowest
/// failing rank, its message extended by that rank. One call per phase, not per tensor.
/// collective over communicator.
void agree(const Communicator& communicator, std::string_view phase,
           std::exception_ptr local_error);

/// Runs `body` (which makes no collective call), catches what it throws, and agrees. Returns what
/// the body returns. collective over communicator.
template <class Body>
auto agreed(const Communicator& communicator, std::string_view phase, Body&& body) {
  using Result = std::invoke_result_t<Body>;
  std::exception_ptr error;
  if constexpr (std::is_void_v<Result>) {
    try {
      body();
    } catch (...) {
      error = std::current_exception();
    }
    agree(communicator, phase, error);
  } else {
    Result result{};
    try {
      result = body();
    } catch (...) {
      error = std::current_exception();
    }
    agree(communicator, phase, error);
    return result;
  }
}

}  // namespace tessera::comm
