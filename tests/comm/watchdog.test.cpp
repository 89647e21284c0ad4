// SPDX-License-Identifier: Apache-2.0
#include "comm/watchdog.hpp"

#include <atomic>
#include <catch2/catch.hpp>
#include <mutex>
#include <thread>
#include <vector>

using namespace tessera::comm;

namespace {

using namespace std::chrono_literals;

// Collects dumps in place of the end of the job.
class Dumps {
 public:
  Dumps() {
    set_expiry_hook([this](const std::string& dump) {
      const std::lock_guard lock(mutex_);
      dumps_.push_back(dump);
    });
  }
  ~Dumps() { set_expiry_hook({}); }

  std::vector<std::string> all() const {
    const std::lock_guard lock(mutex_);
    return dumps_;
  }
  // Waits until there are `count`, two seconds at most.
  std::vector<std::string> wait_for(std::size_t count) const {
    for (int i = 0; i < 200 && all().size() < count; ++i) std::this_thread::sleep_for(10ms);
    return all();
  }

 private:
  mutable std::mutex mutex_;
  std::vector<std::string> dumps_;
};

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("a phase past its deadline is reported once, with all that is known") {
  const Dumps dumps;
  set_current_step(17);
  note_collective_begin("replica", "all_gather", "layers.3.expert");
  const Phase outer("backward");
  const Phase inner("write checkpoint", 50ms);
  dumps.wait_for(1);
  std::this_thread::sleep_for(100ms);
  const auto seen = dumps.all();
  REQUIRE(seen.size() == 1);
  CHECK(contains(seen[0], "phase 'write checkpoint' passed its deadline"));
  CHECK(contains(seen[0], "rank 0 on "));
  CHECK(contains(seen[0], ", step 17, phase 'backward', phase 'write checkpoint'"));
  CHECK(contains(seen[0], "in all_gather 'layers.3.expert' on replica for"));
  note_collective_end();
  set_current_step(-1);
}

TEST_CASE("a phase that ends in time is not reported") {
  const Dumps dumps;
  { const Phase phase("quick", 50ms); }
  const Phase unbounded("no deadline");
  std::this_thread::sleep_for(120ms);
  CHECK(dumps.all().empty());
}

TEST_CASE("of two phases the one whose deadline is earlier is reported first") {
  const Dumps dumps;
  const Phase late("late", 150ms);
  const Phase early("early", 30ms);
  const auto seen = dumps.wait_for(2);
  REQUIRE(seen.size() == 2);
  CHECK(contains(seen[0], "phase 'early' passed"));
  CHECK(contains(seen[1], "phase 'late' passed"));
}

TEST_CASE("where_am_i tells a collective that runs from one that ended, from any thread") {
  note_collective_begin("world", "barrier", "end of step");
  std::string text;
  std::thread([&] { text = where_am_i(); }).join();
  CHECK(contains(text, "in barrier 'end of step' on world for"));
  note_collective_end();
  CHECK(contains(where_am_i(), "after barrier 'end of step' on world"));
}
