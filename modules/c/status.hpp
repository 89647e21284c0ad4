// SPDX-License-Identifier: Apache-2.0
// The border between C and C++: exceptions become a status and this thread's message.
#pragma once

#include <tessera/tessera.h>

#include <exception>

#include "base/error.hpp"
#include "comm/agree.hpp"

namespace tessera::c {

/// Keeps the message of `error` for tessera_message(). local.
tessera_status report(std::exception_ptr error) noexcept;

/// Runs the body of a function of tessera.h.
template <class Body>
tessera_status guarded(Body&& body) noexcept {
  try {
    body();
    return TESSERA_OK;
  } catch (...) {
    return report(std::current_exception());
  }
}

/// Throws Error::usage "<what>" unless the condition holds. local.
inline void require(bool condition, const char* what) {
  if (!condition) fail(ErrorKind::usage, "{}", what);
}

}  // namespace tessera::c
