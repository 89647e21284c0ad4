// SPDX-License-Identifier: Apache-2.0
#include "comm/shared_counters.hpp"

#include <unistd.h>

#include <catch2/catch.hpp>

#include "base/log.hpp"
#include "support/collective_check.hpp"

using namespace tessera;
using namespace tessera::comm;

namespace {

using namespace std::chrono_literals;

Communicator make_node(std::chrono::milliseconds deadline) {
  return Communicator(MPI_COMM_WORLD, "world", {.deadline = deadline}).split_node("node");
}

}  // namespace

TEST_CASE(
    "a counter is reached when all ranks have set theirs, and shows what they stored before") {
  const Communicator node = make_node(20s);
  const auto counters = SharedCounters::allocate(node, 2);
  const auto data = SharedMemory::allocate(node, "numbers", 64);
  REQUIRE_ALL(node, counters && data);
  CHECK(counters->reached(1, 0));
  CHECK(!counters->reached(1, 1));
  node.barrier("all have looked");
  int num_wrong = 0;
  for (std::int64_t round = 1; round <= 200; ++round) {
    if (node.rank() == round % node.size()) usleep(100);
    *reinterpret_cast<std::int64_t*>(data->segment(node.rank())) = round;
    counters->set(0, round);
    counters->wait("stored", 0, round);
    for (int rank = 0; rank < node.size(); ++rank) {
      num_wrong += *reinterpret_cast<std::int64_t*>(data->segment(rank)) != round;
    }
    counters->set(1, round);
    counters->wait("read", 1, round);
  }
  CHECK(num_wrong == 0);
}

TEST_CASE("a rank that waits in vain gives up at the deadline and names what for") {
  const Communicator outside = make_node(20s);
  const Communicator impatient = make_node(200ms);
  const auto counters = SharedCounters::allocate(impatient, 1);
  REQUIRE_ALL(outside, counters.has_value());
  set_log_sink([](LogLevel, const std::string&) {});
  std::string text;
  if (outside.rank() > 0 || outside.size() == 1) {
    counters->set(0, outside.size() == 1 ? 0 : 1);
    try {
      counters->wait("gradients", 0, 1);
    } catch (const Error& error) {
      text = error.what();
      CHECK(error.kind() == ErrorKind::communication);
    }
    CHECK(text.find("barrier 'gradients' on node") != std::string::npos);
  }
  set_log_sink(nullptr);
  outside.barrier("given up");
}
