// SPDX-License-Identifier: Apache-2.0
// The event simulation beside the closed forms: equal where ranks do not differ and messages do not
// get in each other's way, and what must hold where they do.
#include <algorithm>
#include <catch2/catch.hpp>
#include <random>
#include <tessera/study/simulation.hpp>

#include "base/error.hpp"
#include "simulated_network.hpp"
#include "study_models.hpp"

namespace tessera::study {
namespace {

using Catch::Contains;
using test::run_shape;

constexpr double equal = 1e-9;

double last(const std::vector<double>& clocks) {
  return *std::max_element(clocks.begin(), clocks.end());
}

std::vector<double> simulate(SimulatedNetwork& network, const RunShape& shape, Axis axis,
                             Collective collective, Algorithm algorithm, double bytes,
                             std::vector<double> clocks = {}) {
  clocks.resize(static_cast<std::size_t>(shape.num_ranks), 0.0);
  network.run(
      axis, collective, algorithm, bytes, [](std::int64_t) { return 1.0; }, true, clocks);
  return clocks;
}

SimulatedStep simulate(const RunShape& shape, const Machine& machine, double zipf = 0.0,
                       const SimulationOptions& options = {}) {
  const model::ModelConfig config = test::qwen3_config();
  return simulate_step(config, shape, machine, Routing::zipf(config, zipf, 1), options);
}

}  // namespace

TEST_CASE("Every collective takes what its closed form says, whatever the axis") {
  const Machine machine = test::round_machine();
  for (const auto& [ranks, expert, per_node] :
       std::vector<std::array<std::int64_t, 3>>{{1, 1, 1},
                                                {8, 2, 8},
                                                {16, 4, 1},
                                                {64, 8, 8},
                                                {64, 32, 8},
                                                {32, 2, 4},
                                                {24, 24, 8},
                                                {6, 3, 6}}) {
    const RunShape shape = run_shape(ranks, expert, per_node);
    SimulatedNetwork network(shape, machine);
    for (const Axis axis : {Axis::world, Axis::expert, Axis::replica}) {
      for (const Collective collective : {Collective::all_gather, Collective::reduce_scatter,
                                          Collective::all_reduce, Collective::all_to_all}) {
        for (const Algorithm algorithm :
             {Algorithm::ring, Algorithm::logarithmic, Algorithm::hierarchical}) {
          CAPTURE(ranks, expert, per_node, to_string(axis), to_string(collective),
                  to_string(algorithm));
          const Group group = group_of(axis, shape);
          const double bytes = 1e6;
          const double closed =
              collective_seconds(collective, algorithm, group, bytes, machine, false).seconds();
          const auto clocks = simulate(network, shape, axis, collective, algorithm, bytes);
          const bool has_tiers = group.num_nodes() > 1;
          const bool is_odd = has_tiers && (group.size & (group.size - 1)) != 0;
          const bool overtakes = has_tiers && group.on_node > 1 && algorithm == Algorithm::ring &&
                                 collective == Collective::all_reduce;
          // Of Bruck's messages some stay on a node, and the closed form takes none to; the first
          // ranks of a ring begin the second half while others are in the first.
          const bool is_bound = (algorithm == Algorithm::logarithmic && is_odd) || overtakes;
          if (is_bound) CHECK(last(clocks) <= closed * (1.0 + equal));
          if (is_bound) CHECK(last(clocks) >= 0.7 * closed);
          if (!is_bound) CHECK(last(clocks) == Approx(closed).epsilon(equal));
        }
      }
    }
  }
}

TEST_CASE("Closed forms are those of the literature") {
  const Machine machine = test::round_machine();
  const RunShape shape = run_shape(64, 8, 1);  // no two ranks share a node
  const Group world = group_of(Axis::world, shape);
  const double a = 8e-6, b = 5e10, n = 1e8, p = 64.0;
  const auto seconds = [&](Collective collective, Algorithm algorithm) {
    return collective_seconds(collective, algorithm, world, n, machine, false).seconds();
  };
  CHECK(seconds(Collective::all_gather, Algorithm::ring) ==
        Approx((p - 1.0) * a + n * (p - 1.0) / p / b));
  CHECK(seconds(Collective::reduce_scatter, Algorithm::logarithmic) ==
        Approx(6.0 * a + n * (p - 1.0) / p / b));
  CHECK(seconds(Collective::all_reduce, Algorithm::ring) ==
        Approx(2.0 * ((p - 1.0) * a + n * (p - 1.0) / p / b)));
  CHECK(seconds(Collective::all_to_all, Algorithm::ring) ==
        Approx((p - 1.0) * a + n * (p - 1.0) / p / b));
  // Between nodes of eight, each byte crosses once.
  const Group nodes = group_of(Axis::world, run_shape(64, 8, 8));
  CHECK(
      collective_seconds(Collective::all_gather, Algorithm::hierarchical, nodes, n, machine, false)
          .seconds() == Approx(3.0 * a + n / 8.0 * 7.0 / 8.0 / b + 7.0 * (1e-6 + n / 8.0 / 4e11)));
}

TEST_CASE("Long rings that go in one piece end as those sent message by message") {
  const Machine machine = test::round_machine();
  std::mt19937_64 random(7);
  for (const std::int64_t per_node : {1, 8}) {
    const RunShape shape = run_shape(256, 8, per_node);
    SimulatedNetwork whole(shape, machine, 1000), shortened(shape, machine, 16);
    const auto times = [&](SimulatedNetwork& network, const std::vector<double>& starts) {
      return last(simulate(network, shape, Axis::world, Collective::all_gather, Algorithm::ring,
                           1e8, starts));
    };
    CHECK(times(shortened, {}) == Approx(times(whole, {})).epsilon(equal));
    CHECK(whole.num_messages() == shortened.num_messages());
    std::vector<double> late(256);
    for (double& clock : late) clock = 1e-3 * static_cast<double>(random() % 1000) / 1000.0;
    CHECK(times(shortened, late) >= times(whole, late) * (1.0 - equal));
    CHECK(times(shortened, late) <= 1.05 * times(whole, late));
  }
}

TEST_CASE("Ranks that are alike take the planned step") {
  const std::vector<model::ModelConfig> configs{test::qwen3_config(), test::deepseek_config()};
  for (const model::ModelConfig& config : configs) {
    for (const auto& [ranks, expert] :
         std::vector<std::array<std::int64_t, 2>>{{8, 8}, {64, 1}, {64, 8}, {128, 64}}) {
      for (const double overlap : {0.0, 0.4, 1.0}) {
        RunShape shape = run_shape(ranks, expert);
        shape.recompute = expert == 8 ? model::Recompute::layer : model::Recompute::none;
        Machine machine = test::round_machine();
        machine.overlap = overlap;
        for (const Algorithm algorithm :
             {Algorithm::ring, Algorithm::logarithmic, Algorithm::hierarchical}) {
          CAPTURE(config.family, ranks, expert, overlap, to_string(algorithm));
          const double planned = plan_time(config, shape, machine, algorithm).seconds();
          const SimulatedStep step =
              simulate_step(config, shape, machine, Routing::balanced(config), {algorithm, {}});
          if (algorithm == Algorithm::ring && ranks > 8) {
            // Ranks of a ring over both tiers end one after the other, and the first go on.
            CHECK(step.seconds <= planned * (1.0 + equal));
            CHECK(step.seconds >= planned * 0.9);
            continue;
          }
          CHECK(step.seconds == Approx(planned).epsilon(equal));
          CHECK(step.first_done_s == Approx(planned).epsilon(equal));
        }
      }
    }
  }
}

TEST_CASE("A node's limit changes nothing where it has one rank with that bandwidth") {
  Machine machine = test::round_machine();
  machine.network->node_bandwidth_bytes_per_s = machine.network->bandwidth_bytes_per_s;
  for (const double overlap : {0.0, 0.4, 1.0}) {
    machine.overlap = overlap;
    const RunShape shape = run_shape(8, 4, 1);
    const double planned =
        plan_time(test::qwen3_config(), shape, machine, Algorithm::hierarchical).seconds();
    CHECK(simulate(shape, machine).seconds == Approx(planned).epsilon(equal));
  }
}

TEST_CASE("What was measured of a collective counts in plan and simulation alike") {
  Machine machine = test::round_machine();
  machine.ranks_per_node = 1;
  const RunShape shape = run_shape(8, 4, 1);
  const Group pair = group_of(Axis::world, run_shape(2, 1, 1));
  const auto gather_s = [&] {
    return collective_seconds(Collective::all_gather, Algorithm::hierarchical, pair, 1e9, machine,
                              false)
        .bandwidth_s;
  };
  const double as_messages = gather_s();
  const double step = simulate(shape, machine).seconds;
  CollectiveTime measured{"all_gather", "network", 2, 1e9, {}};
  measured.seconds.value = machine.network->latency_s.value + 2.0 * as_messages;
  machine.collectives = {measured};
  CHECK(gather_s() == Approx(2.0 * as_messages).epsilon(equal));
  CHECK(volume_factor(Collective::reduce_scatter, Algorithm::hierarchical, pair, machine) == 1.0);
  const double planned =
      plan_time(test::qwen3_config(), shape, machine, Algorithm::hierarchical).seconds();
  CHECK(planned > step);
  CHECK(simulate(shape, machine).seconds == Approx(planned).epsilon(equal));
}

TEST_CASE("A late rank delays the step by its delay") {
  const RunShape shape = run_shape(64, 8);
  Machine machine = test::round_machine();
  for (const double overlap : {0.0, 1.0}) {
    machine.overlap = overlap;
    const double alone = simulate(shape, machine).seconds;
    for (const std::int64_t rank : {0, 13, 63}) {
      const SimulatedStep late =
          simulate(shape, machine, 0.0, {Algorithm::hierarchical, {{rank, 0.25, 1.0}}});
      CHECK(late.seconds == Approx(alone + 0.25).epsilon(equal));
    }
  }
  const SimulatedStep slow =
      simulate(shape, machine, 0.0, {Algorithm::hierarchical, {{5, 0.0, 2.0}}});
  CHECK(slow.seconds > simulate(shape, machine).seconds * 1.1);
  CHECK_THROWS_WITH(simulate(shape, machine, 0.0, {Algorithm::ring, {{64, 1.0, 1.0}}}),
                    Contains("rank 64 cannot be late"));
}

TEST_CASE("Steps never get shorter with latency, imbalance or contention") {
  const RunShape shape = run_shape(64, 16);
  Machine machine = test::round_machine();
  double before = 0.0;
  for (const double latency : {1e-6, 1e-5, 1e-4, 1e-3}) {
    machine.network->latency_s.value = latency;
    const double seconds = simulate(shape, machine).seconds;
    CHECK(seconds > before);
    before = seconds;
  }
  machine = test::round_machine();
  before = 0.0;
  for (const double zipf : {0.0, 0.2, 0.5, 1.0}) {
    const double seconds = simulate(shape, machine, zipf).seconds;
    CHECK(seconds > before);
    before = seconds;
  }
  const double free = simulate(shape, machine).seconds;
  machine.network->node_bandwidth_bytes_per_s = Figure::published(1e11, "test");  // a quarter
  const double crowded = simulate(shape, machine).seconds;
  CHECK(crowded > free);
  const double planned =
      plan_time(test::qwen3_config(), shape, machine, Algorithm::hierarchical).seconds();
  CHECK(crowded == Approx(planned).epsilon(0.05));  // messages queue instead of sharing
}

TEST_CASE("Routing: shares add up, Zipf is skewed, counts are taken as they are") {
  const model::ModelConfig config = test::qwen3_config();
  const Routing even = Routing::balanced(config);
  CHECK(even.busiest_rank(8) == Approx(1.0));
  CHECK(Routing::zipf(config, 0.0, 3).busiest_expert() == Approx(1.0));
  const Routing zipf = Routing::zipf(config, 1.0, 3);
  CHECK(zipf.busiest_expert() == Approx(128.0 / 5.43).epsilon(0.01));  // 1 / H_128
  double sum = 0.0;
  for (std::int64_t i = 0; i < 8; ++i) sum += zipf.rank_load(5, i, 8);
  CHECK(sum == Approx(8.0));
  CHECK(zipf.rank_load(5, 0, 8) != zipf.rank_load(6, 0, 8));
  std::vector<std::int64_t> counts(48 * 128, 1);
  counts[0] = 129;  // of 256 in the first layer
  const Routing counted = Routing::counted(config, counts);
  CHECK(counted.rank_load(0, 0, 128) == Approx(128.0 * 129.0 / 256.0));
  CHECK(counted.rank_load(1, 0, 128) == Approx(1.0));
  counts.pop_back();
  CHECK_THROWS_WITH(Routing::counted(config, counts), Contains("do not fit 48 layers of 128"));
}

}  // namespace tessera::study
