// SPDX-License-Identifier: Apache-2.0
// Blocks never overlap, bytes serve every type and shape in turn, and what was enough once is
// enough for ever.
#include <sys/resource.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cstring>
#include <fstream>
#include <random>

#include "base/dtype.hpp"
#include "base/out_of_memory.hpp"
#include "kernel/view.hpp"

namespace tessera::kernel {
namespace {

using Growth = Arena::Growth;

/// Takes and gives back blocks of random sizes; each keeps what was written into it.
void take_and_give(Arena& arena, std::uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<std::pair<Arena::Block, unsigned char>> live;
  for (int i = 0; i < 400; ++i) {
    if (!live.empty() && random() % 2 == 0) {
      const std::size_t victim = random() % live.size();
      const auto [block, mark] = live[victim];
      const std::vector<unsigned char> expected(static_cast<std::size_t>(block.bytes), mark);
      CHECK(std::memcmp(block.data, expected.data(), expected.size()) == 0);
      arena.give_back(block);
      live.erase(live.begin() + static_cast<long>(victim));
    } else {
      const Arena::Block block = arena.take(1 + random() % 100'000);
      CHECK(reinterpret_cast<std::uintptr_t>(block.data) % BlockMap::granule_bytes == 0);
      const auto mark = static_cast<unsigned char>(random());
      std::memset(block.data, mark, static_cast<std::size_t>(block.bytes));
      live.emplace_back(block, mark);
    }
  }
  for (const auto& [block, mark] : live) arena.give_back(block);
}

/// While it lives the process gets this much more private memory, no more.
class DataLimit {
 public:
  explicit DataLimit(std::int64_t more_bytes) {
    getrlimit(RLIMIT_DATA, &before_);
    long ignored = 0, data_pages = 0;
    std::ifstream statm("/proc/self/statm");
    for (int field = 0; field < 5; ++field) statm >> ignored;
    statm >> data_pages;
    rlimit limit = before_;
    limit.rlim_cur = static_cast<rlim_t>(data_pages * sysconf(_SC_PAGESIZE) + more_bytes);
    setrlimit(RLIMIT_DATA, &limit);
  }
  ~DataLimit() { setrlimit(RLIMIT_DATA, &before_); }

 private:
  rlimit before_{};
};

std::string refusal(Arena& arena, std::int64_t bytes) {
  try {
    arena.take(bytes);
  } catch (const OutOfMemory& error) {
    return error.what();
  }
  return {};
}

}  // namespace

TEST_CASE("Where there is no memory an arena tells how much is held for what, and works on") {
  const Growth growth = GENERATE(Growth::in_place, Growth::in_pieces);
  Arena arena(growth);
  const Arena::Block kept = arena.take(3 << 20);
  const std::int64_t reserved = arena.reserved_bytes();
  std::string text;
  {
    const DataLimit limit(256 << 20);
    text = refusal(arena, 1 << 30);
  }
  CHECK_THAT(text, Catch::Contains("no memory for 1.00 GiB more in a step") &&
                       Catch::Contains("3.00 MiB of them in use: "));
  CHECK(arena.reserved_bytes() == reserved);
  CHECK(arena.used_bytes() == kept.bytes);
  const Arena::Block after = arena.take(300 << 20);
  after.data[after.bytes - 1] = std::byte{1};
  arena.give_back(after);
  arena.give_back(kept);
}

TEST_CASE("A block goes into the smallest hole that holds it, and holes grow together") {
  BlockMap map;
  const auto a = *map.take(1000), b = *map.take(100), c = *map.take(600), d = *map.take(10);
  CHECK(a == 0);
  CHECK(b == 1024);
  CHECK(c == 1280);
  CHECK(d == 2048);
  map.give_back(a, 1000);
  map.give_back(c, 600);
  CHECK(*map.take(700) == c);  // not into the larger hole before it
  map.give_back(c, 700);
  map.give_back(b, 100);
  CHECK(*map.take(2048) == 0);  // a, b and c are one hole now
  map.give_back(d, 10);
  CHECK(*map.take(256) == 2048);
  CHECK_FALSE(map.take(300, 2304 + 256).has_value());
  CHECK(map.used_bytes() == 2304);
  CHECK(map.size_bytes() == 2304);
}

TEST_CASE("A block without bytes may outlive all others") {
  BlockMap map;
  const auto before = *map.take(500);
  const auto empty = *map.take(0);
  map.give_back(before, 500);
  map.give_back(empty, 0);
  CHECK(map.used_bytes() == 0);
  CHECK(*map.take(500) == 0);
}

TEST_CASE("Blocks of an arena do not overlap, and the second time it does not grow") {
  const Growth growth = GENERATE(Growth::in_place, Growth::in_pieces);
  Arena arena(growth);
  take_and_give(arena, 1);
  CHECK(arena.used_bytes() == 0);
  take_and_give(arena, 1);  // pieces become one here
  const std::int64_t reserved = arena.reserved_bytes(), growths = arena.num_growths();
  CHECK(reserved >= arena.peak_bytes());
  CHECK(reserved < 1.3 * arena.peak_bytes());
  for (int i = 0; i < 3; ++i) take_and_give(arena, 1);
  CHECK(arena.reserved_bytes() == reserved);
  CHECK(arena.num_growths() == growths);
}

TEST_CASE("A view's bytes serve another type and shape when its last reference is gone") {
  ViewPool pool;
  {
    const PoolScope scope(pool);
    auto a = new_matrix<float>("a", 100, 30);
    const auto kept = Kokkos::subview(a, Kokkos::make_pair(10, 20), Kokkos::ALL);
    const void* const first = a.data();
    a = {};
    const auto b = new_vector<bf16>("b", 6000);  // a's bytes are still referred to
    CHECK(static_cast<const void*>(b.data()) != first);
    CHECK(kept.data() == static_cast<const float*>(first) + 300);
  }
  const std::int64_t reserved = pool.arena().reserved_bytes();
  const PoolScope scope(pool);
  const auto c = new_vector<std::int64_t>("c", 1500);
  CHECK(c.use_count() == 2);  // the pool's own and this one
  CHECK(pool.arena().used_bytes() == BlockMap::rounded(1500 * 8));
  CHECK(pool.arena().reserved_bytes() == reserved);
}

TEST_CASE("An array for which there is no memory is named with its size") {
  const DataLimit limit(256 << 20);
  CHECK_THROWS_AS((allocate<Matrix<float>>("logits", 1 << 16, 1 << 14)), OutOfMemory);
  CHECK_THROWS_WITH((allocate<Matrix<float>>("logits", 1 << 16, 1 << 14)),
                    Catch::Contains("no memory for 4.00 GiB of 'logits'"));
}

}  // namespace tessera::kernel
