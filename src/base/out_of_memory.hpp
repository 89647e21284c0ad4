// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/error.hpp"

namespace tessera {

/// An allocation that failed, perhaps on this rank alone in the midst of what all do together.
/// comm::agree makes an Error of all ranks of it; who cannot agree on it ends the job, or the
/// others wait until their deadline.
class OutOfMemory : public Error {
 public:
  explicit OutOfMemory(const std::string& message) : Error(ErrorKind::memory, message) {}
};

}  // namespace tessera
