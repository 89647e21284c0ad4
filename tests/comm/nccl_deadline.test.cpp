// SPDX-License-Identifier: Apache-2.0
// An operation on the device that never ends, ends the job: the host does not wait for it, the
// watching thread does, aborts NCCL and says which rank is missing.
#include <catch2/catch.hpp>
#include <chrono>
#include <cstdlib>
#include <mutex>
#include <thread>

#include "comm/device_collectives.hpp"
#include "comm/process_grid.hpp"
#include "nccl_double.hpp"

using namespace tessera;
using namespace tessera::comm;

namespace {

using namespace std::chrono_literals;

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

/// What the watching thread says, instead of ending the job.
class Dumps {
 public:
  Dumps() {
    set_expiry_hook([this](const std::string& dump) {
      const std::lock_guard lock(mutex_);
      text_ += dump + "\n";
    });
  }
  ~Dumps() { set_expiry_hook({}); }
  std::string text() {
    const std::lock_guard lock(mutex_);
    return text_;
  }

 private:
  std::mutex mutex_;
  std::string text_;
};

}  // namespace

TEST_CASE("A gather for which a rank does not come passes its deadline in the watching thread",
          "[nccl]") {
  setenv("TESSERA_COLLECTIVES", "nccl", 1);
  unsetenv("TESSERA_CHECKED");
  Dumps dumps;
  const Communicator outside(MPI_COMM_WORLD, "outside");
  const ProcessGrid grid(MPI_COMM_WORLD, {1}, {.deadline = 700ms});
  const Communicator& world = grid.world();
  const int last = world.size() - 1;
  const std::vector<float> mine(4, 1.0f);
  std::vector<float> all(4 * static_cast<std::size_t>(world.size()));
  const auto gather = [&] {
    world.start_all_gather(compute_stream(), "late", std::span<const float>(mine), std::span(all))
        .wait();
  };
  if (world.rank() != last) {
    const auto begin = std::chrono::steady_clock::now();
    gather();
    CHECK(std::chrono::steady_clock::now() - begin < 600ms);
    nccl_double::begin_kernel("needs it");  // returns once the watching thread has aborted NCCL
    nccl_double::end_kernel();
    while (dumps.text().empty()) std::this_thread::sleep_for(1ms);
    CHECK(contains(dumps.text(), fmt::format("all_gather 'late' on world, rank {} of {}: not "
                                             "complete after 0.7 s",
                                             world.rank(), world.size())));
    // On a machine that stands still for a second others have not even begun.
    CHECK(contains(dumps.text(), "waits for rank"));
    CHECK(contains(dumps.text(), fmt::format("{} of the job)", last)));
    try {
      gather();
      FAIL_CHECK("the broken communicator was used again");
    } catch (const Error& error) {
      CHECK(contains(error.what(), "an earlier collective on this communicator failed"));
    }
  }
  outside.barrier("all have seen it");
}

TEST_CASE("What NCCL says of itself reaches a host that waits for something else", "[nccl]") {
  setenv("TESSERA_COLLECTIVES", "nccl", 1);
  unsetenv("TESSERA_CHECKED");
  Dumps dumps;
  nccl_double::set_misuse_handler([](const std::string&) {});
  const Communicator outside(MPI_COMM_WORLD, "outside");
  const ProcessGrid grid(MPI_COMM_WORLD, {1}, {.deadline = 20s});
  const Communicator& world = grid.world();
  std::vector<float> all(100);
  const std::size_t count = world.rank() == 0 ? 3 : 4;
  const std::vector<float> mine(count, 1.0f);
  world
      .start_all_gather(compute_stream(), "uneven", std::span<const float>(mine),
                        std::span(all).first(count * static_cast<std::size_t>(world.size())))
      .wait();
  const auto wait_for_ever = [&] {
    if (world.rank() > 0) return world.barrier("rank 0 does not come");
    for (;;) check_device_collectives();
  };
  try {
    wait_for_ever();
    FAIL_CHECK("nothing was said");
  } catch (const Error& error) {
    CHECK(contains(error.what(), "NCCL on world failed: invalid usage"));
    CHECK(contains(error.what(), "rank 0 calls ncclAllGather of 3 x f32 where rank"));
  }
  outside.barrier("all have seen it");
  nccl_double::set_misuse_handler({});
}
