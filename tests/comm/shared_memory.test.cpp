// SPDX-License-Identifier: Apache-2.0
#include "comm/shared_memory.hpp"

#include <sys/statvfs.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cstdlib>
#include <filesystem>
#include <string>

#include "support/collective_check.hpp"

using namespace tessera;
using namespace tessera::comm;

namespace {

std::int64_t* numbers(std::byte* segment) { return reinterpret_cast<std::int64_t*>(segment); }

/// Names of this project's regions that are still to be seen.
int num_names_left() {
  int count = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/dev/shm")) {
    const std::string name = entry.path().filename();
    if (name.starts_with("tessera-" + std::to_string(getpid()) + "-")) ++count;
  }
  return count;
}

}  // namespace

TEST_CASE("what a rank stores is seen by all after a barrier, in contiguous segments") {
  const Communicator node = Communicator(MPI_COMM_WORLD, "world").split_node("node");
  const std::int64_t count = GENERATE(1, 64, 100000);
  const auto memory = SharedMemory::allocate(node, "numbers", count * 8);
  REQUIRE_ALL(node, memory.has_value());
  CHECK(num_names_left() == 0);
  CHECK(numbers(memory->segment(node.rank()))[count - 1] == 0);
  node.barrier("all have looked");
  for (std::int64_t i = 0; i < count; ++i) {
    numbers(memory->segment(node.rank()))[i] = node.rank() * count + i;
  }
  node.barrier("stored");
  std::int64_t num_wrong = 0;
  for (std::int64_t i = 0; i < count * node.size(); ++i) {
    num_wrong += numbers(memory->data())[i] != i ? 1 : 0;
  }
  CHECK(num_wrong == 0);
}

TEST_CASE("a region outlives the rank's that was given back, and moves") {
  const Communicator node = Communicator(MPI_COMM_WORLD, "world").split_node("node");
  auto first = SharedMemory::allocate(node, "first", 8);
  auto second = SharedMemory::allocate(node, "second", 8);
  REQUIRE_ALL(node, first && second);
  *numbers(second->segment(node.rank())) = 7;
  *first = std::move(*second);
  second.reset();
  node.barrier("moved");
  CHECK(*numbers(first->segment(node.size() - 1)) == 7);
}

TEST_CASE("more than /dev/shm holds is refused on all ranks alike, without a name left behind") {
  const Communicator node = Communicator(MPI_COMM_WORLD, "world").split_node("node");
  struct statvfs shm {};
  REQUIRE_ALL(node, statvfs("/dev/shm", &shm) == 0);
  const auto capacity = static_cast<std::int64_t>(shm.f_blocks * shm.f_frsize);
  const auto memory = SharedMemory::allocate(node, "too much", capacity + 4096);
  CHECK(!memory.has_value());
  CHECK(num_names_left() == 0);
}

TEST_CASE("TESSERA_SHARED_MEMORY=off on rank 0 leaves all ranks without it") {
  const Communicator node = Communicator(MPI_COMM_WORLD, "world").split_node("node");
  if (node.rank() == 0) setenv("TESSERA_SHARED_MEMORY", "off", 1);
  CHECK(!SharedMemory::allocate(node, "numbers", 8).has_value());
  unsetenv("TESSERA_SHARED_MEMORY");
}
