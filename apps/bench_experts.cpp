// SPDX-License-Identifier: Apache-2.0
// The experts' MLPs alone, with a given number of rows each.
#include "base/block_distribution.hpp"
#include "bench.hpp"

namespace tessera::apps {
namespace {

Work sum(Work a, const Work& b) { return a += b; }

}  // namespace

std::vector<ExpertRow> measure_experts(const comm::ProcessGrid& grid, const BenchShape& shape,
                                       const Roofs& roofs,
                                       const std::vector<std::int64_t>& tokens) {
  const int num_ranks = grid.expert().size();
  const BlockDistribution blocks{shape.config.num_experts, num_ranks};
  std::vector<ExpertRow> result;
  if (blocks.count(num_ranks - 1) == 0)
    return result;  // a rank without experts has nothing to time
  const std::int64_t local = blocks.count(grid.expert().rank());
  for (const std::int64_t each : tokens) {
    const std::int64_t num_rows = each * local;
    const study::KernelTimes times = study::time_experts(grid.world(), shape.config, shape.dtype,
                                                         local, num_rows, shape.num_repeats);
    const double forward_s = study::median(times.forward),
                 backward_s = study::median(times.backward);
    const auto work = [&](bool backward) {
      return study::expert_work(shape.config, static_cast<double>(num_rows),
                                static_cast<double>(local), shape.element_bytes(), backward);
    };
    const auto row = [&](const char* name, double value, const Work& done) {
      return make_row(grid.world(), fmt::format("{} tokens per expert, {}", each, name), value,
                      done, roofs, shape.dtype);
    };
    result.push_back({each, row("forward", forward_s, work(false)),
                      row("backward", backward_s, work(true)),
                      row("both", forward_s + backward_s, sum(work(false), work(true)))});
  }
  return result;
}

}  // namespace tessera::apps
