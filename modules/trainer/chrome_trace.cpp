// SPDX-License-Identifier: Apache-2.0
// Format: "Trace Event Format" of Chrome's tracing; complete events ("X"), times in microseconds.
#include <fmt/format.h>

#include <numeric>
#include <tessera/trainer/step_profile.hpp>

namespace tessera::trainer {
namespace {

/// Events of one rank, each line ending in a comma.
std::string events_of(int rank, const PhaseTimer& timer) {
  std::string text;
  for (const std::vector<PhaseEvent>& step : timer.kept_steps()) {
    for (const PhaseEvent& event : step) {
      const char* name = event.phase == StepPhase::other ? "step" : to_string(event.phase);
      text += fmt::format(R"({{"name":"{}","ph":"X","ts":{:.3f},"dur":{:.3f},"pid":{},"tid":0}},)"
                          "\n",
                          name, event.begin_s * 1e6, (event.end_s - event.begin_s) * 1e6, rank);
    }
  }
  return text;
}

/// The texts of all ranks, one after the other, on rank 0. collective over world.
std::string gather_text(const comm::Communicator& world, const std::string& mine) {
  const auto num_ranks = static_cast<std::size_t>(world.size());
  const auto size = static_cast<std::int64_t>(mine.size());
  std::vector<std::int64_t> receive = world.all_gather_value("sizes of traces", size);
  if (world.rank() != 0) receive.assign(num_ranks, 0);
  std::vector<std::int64_t> send(num_ranks, 0);
  send[0] = size;
  const std::int64_t total = std::accumulate(receive.begin(), receive.end(), std::int64_t{0});
  std::string all(static_cast<std::size_t>(total), '\0');
  world.all_to_all_v("traces", std::span<const char>(mine.data(), mine.size()),
                     std::span<const std::int64_t>(send), std::span<char>(all.data(), all.size()),
                     std::span<const std::int64_t>(receive));
  return all;
}

}  // namespace

std::string chrome_trace(const comm::Communicator& world, const PhaseTimer& timer) {
  const std::string events = gather_text(world, events_of(world.rank(), timer));
  if (world.rank() != 0) return {};
  std::string text = "{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n" + events;
  for (int rank = 0; rank < world.size(); ++rank) {
    text +=
        fmt::format(R"({{"name":"process_name","ph":"M","pid":{},"args":{{"name":"rank {}"}}}}{})"
                    "\n",
                    rank, rank, rank + 1 < world.size() ? "," : "");
  }
  return text + "]}\n";
}

}  // namespace tessera::trainer
