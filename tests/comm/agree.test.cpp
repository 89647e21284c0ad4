// SPDX-License-Identifier: Apache-2.0
#include "comm/agree.hpp"

#include <catch2/catch.hpp>
#include <filesystem>
#include <new>

#include "support/collective_check.hpp"

using namespace tessera;
using namespace tessera::comm;

namespace {

// What agreed() throws on this rank; kind internal and an empty text if nothing.
struct Outcome {
  ErrorKind kind = ErrorKind::internal;
  std::string text;
  int failing_rank = -2;
};

template <class Body>
Outcome outcome(const Communicator& comm, Body&& body) {
  try {
    agreed(comm, "reading shards", body);
  } catch (const Error& error) {
    return {error.kind(), error.what(), error.failing_rank()};
  }
  return {};
}

}  // namespace

TEST_CASE("when no rank fails each gets its own result") {
  const Communicator comm(MPI_COMM_WORLD, "world");
  CHECK(agreed(comm, "counting", [&] { return 10 * comm.rank(); }) == 10 * comm.rank());
  bool ran = false;
  agreed(comm, "running", [&] { ran = true; });
  CHECK(ran);
}

TEST_CASE("the failure of one rank is thrown by all, with its kind, text and rank") {
  const Communicator comm(MPI_COMM_WORLD, "world");
  for (int failing = 0; failing < comm.size(); ++failing) {
    const Outcome o = outcome(comm, [&] {
      if (comm.rank() == failing) fail(ErrorKind::file, "cannot open shard-{}", failing);
    });
    CHECK(o.kind == ErrorKind::file);
    CHECK(o.failing_rank == failing);
    CHECK(o.text == fmt::format("reading shards: cannot open shard-{} [rank {} of {}]", failing,
                                failing, comm.size()));
  }
}

TEST_CASE("of several failures the lowest rank's is told") {
  const Communicator comm(MPI_COMM_WORLD, "world");
  const int first = comm.size() - 1 > 0 ? 1 : 0;
  const Outcome o = outcome(comm, [&] {
    if (comm.rank() >= first) fail(ErrorKind::format, "bad header on {}", comm.rank());
  });
  CHECK(o.failing_rank == first);
  CHECK(o.kind == ErrorKind::format);
  CHECK(o.text.find(fmt::format("bad header on {}", first)) != std::string::npos);
}

TEST_CASE("exceptions that are not Tessera's get a kind") {
  const Communicator comm(MPI_COMM_WORLD, "world");
  const bool fails = comm.rank() == comm.size() - 1;
  const Outcome memory = outcome(comm, [&] {
    if (fails) throw std::bad_alloc();
  });
  CHECK(memory.kind == ErrorKind::memory);
  const Outcome other = outcome(comm, [&] {
    if (fails) throw std::out_of_range("index 7");
  });
  CHECK(other.kind == ErrorKind::internal);
  CHECK(other.text.find("index 7") != std::string::npos);
  const Outcome file = outcome(comm, [&] {
    if (fails) std::filesystem::create_directory("/proc/self/nowhere");
  });
  CHECK(file.kind == ErrorKind::file);
  CHECK(file.text.find("/proc/self/nowhere") != std::string::npos);
  const Outcome unknown = outcome(comm, [&] {
    if (fails) throw 3;
  });
  CHECK(unknown.kind == ErrorKind::internal);
  CHECK(unknown.failing_rank == comm.size() - 1);
}

TEST_CASE("agreeing that nobody failed costs one small all-reduce") {
  const Communicator comm(MPI_COMM_WORLD, "world");
  agree(comm, "nothing", nullptr);
  CHECK(comm.traffic().all_reduce.logical_bytes == 2 * (comm.size() - 1) * 4 / comm.size());
}
