// SPDX-License-Identifier: Apache-2.0
#include "base/error.hpp"

#include <cstdio>
#include <cstdlib>

#include "base/contract.hpp"

namespace tessera {

const char* to_string(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::usage: return "usage";
    case ErrorKind::config: return "config";
    case ErrorKind::file: return "file";
    case ErrorKind::format: return "format";
    case ErrorKind::keys: return "keys";
    case ErrorKind::memory: return "memory";
    case ErrorKind::communication: return "communication";
    case ErrorKind::numeric: return "numeric";
    case ErrorKind::interrupted: return "interrupted";
    case ErrorKind::internal: return "internal";
  }
  return "internal";
}

int exit_code(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::usage: return 2;
    case ErrorKind::config:
    case ErrorKind::file:
    case ErrorKind::format:
    case ErrorKind::keys: return 3;
    case ErrorKind::memory: return 4;
    case ErrorKind::communication: return 5;
    case ErrorKind::numeric: return 6;
    case ErrorKind::interrupted: return 7;
    case ErrorKind::internal: return 1;
  }
  return 1;
}

void contract_failed(const char* condition, const char* file, int line) {
  std::fprintf(stderr, "tessera: broken contract `%s` at %s:%d (this is a bug in the caller)\n",
               condition, file, line);
  std::abort();
}

}  // namespace tessera
