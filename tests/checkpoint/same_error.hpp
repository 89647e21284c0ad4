// SPDX-License-Identifier: Apache-2.0
// The error that all ranks must raise alike.
#pragma once

#include <optional>
#include <string>

#include "base/error.hpp"
#include "support/collective_check.hpp"

namespace tessera::test {

/// Runs `body` and gives its Error's message; fails the test unless every rank throws an Error of
/// `kind` with the same text. collective over communicator.
template <class Body>
std::string same_error(const comm::Communicator& communicator, ErrorKind kind, Body&& body) {
  std::optional<ErrorKind> met;
  std::string message = "(no error)";
  try {
    body();
  } catch (const Error& error) {
    met = error.kind();
    message = error.what();
  }
  INFO(message);
  REQUIRE_ALL(communicator, met == kind);
  CHECK_SAME(communicator, message);
  return message;
}

}  // namespace tessera::test
