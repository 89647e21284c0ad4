// SPDX-License-Identifier: Apache-2.0
// The one exception type of Tessera. Its kind decides the exit code and whether a rank may raise it
// alone; its text follows the grammar "what is wrong (why it matters) hint".
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <stdexcept>
#include <string>

namespace tessera {

/// What went wrong, in the terms of somebody who has to act on it.
enum class ErrorKind : std::int32_t {
  usage = 1,      ///< wrong option or argument
  config,         ///< model or training configuration is invalid or not supported
  file,           ///< a file cannot be opened, read or written
  format,         ///< a file's content breaks its format
  keys,           ///< tensors are missing, unexpected, misshapen or duplicated
  memory,         ///< an allocation failed or a stated bound was exceeded
  communication,  ///< a collective failed, mismatched or passed its deadline
  numeric,        ///< NaN or infinity where none may be
  interrupted,    ///< stopped by a signal, state is saved
  internal        ///< a bug in Tessera
};

/// `"file"`, `"format"`, ... as printed before the message.
const char* to_string(ErrorKind kind);

/// Process exit code of each kind; part of the command line's contract (README, "Exit codes").
int exit_code(ErrorKind kind);

class Error : public std::runtime_error {
 public:
  Error(ErrorKind kind, const std::string& message) : std::runtime_error(message), kind_(kind) {}

  ErrorKind kind() const { return kind_; }

  /// Rank of the communicator named in the message that failed first; -1 when all ranks failed
  /// alike.
  int failing_rank() const { return failing_rank_; }
  void set_failing_rank(int rank) { failing_rank_ = rank; }

 private:
  ErrorKind kind_;
  int failing_rank_ = -1;
};

/// Throws Error with a formatted message. local.
template <class... Args>
[[noreturn]] void fail(ErrorKind kind, fmt::format_string<Args...> text, Args&&... args) {
  throw Error(kind, fmt::format(text, std::forward<Args>(args)...));
}

}  // namespace tessera
