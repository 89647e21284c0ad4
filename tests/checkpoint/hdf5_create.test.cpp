// SPDX-License-Identifier: Apache-2.0
// What a new file may hold, before anything is written.
#include "hdf5_create.hpp"

#include <catch2/catch.hpp>

using namespace tessera;
using namespace tessera::checkpoint;
using Catch::Contains;

TEST_CASE("no more is embedded than a reader accepts, and the message names the file") {
  require_sizes({});
  require_sizes({{"config.json", 1000}, {"tokenizer.json", embedded_limit_bytes - 1000}});
  std::string message;
  ErrorKind kind = ErrorKind::internal;
  try {
    require_sizes({{"config.json", 1000}, {"movie.bin", embedded_limit_bytes - 999}});
  } catch (const Error& error) {
    message = error.what();
    kind = error.kind();
  }
  CHECK(kind == ErrorKind::usage);
  CHECK_THAT(message, Contains("more than 1 GiB") && Contains("'movie.bin'"));
}
