// SPDX-License-Identifier: Apache-2.0
// A point of a study on real ranks, and a calibration: what is recorded is there and of the right
// size, and routing that is asked for is what experts get.
#include <catch2/catch.hpp>
#include <numeric>
#include <tessera/study/calibrate.hpp>
#include <tessera/study/routing.hpp>
#include <tessera/study/study_run.hpp>

#include "study_models.hpp"
#include "support/collective_check.hpp"

namespace tessera::study {
namespace {

constexpr const char* small_model = R"({"model_type": "gpt_oss", "hidden_size": 64,
  "intermediate_size": 32, "num_local_experts": 8, "num_experts_per_tok": 1,
  "num_hidden_layers": 2, "vocab_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2,
  "head_dim": 16, "pad_token_id": null})";

int world_size() {
  int size = 1;
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  return size;
}

StudyResult run_small(std::optional<double> zipf, std::optional<PlanMachine> machine) {
  const int ranks = world_size();
  const comm::ProcessGrid grid(MPI_COMM_WORLD, {ranks});
  const model::ModelConfig config = model::parse_config(small_model, "small");
  Sweep sweep;
  sweep.zipf = zipf;
  sweep.shape.length = 64;
  sweep.shape.dtype = Dtype::bf16;
  sweep.ranks = {ranks}, sweep.experts = {ranks}, sweep.batch = 8;
  StudyRunOptions options;
  options.num_steps = 1, options.num_repeats = 2;
  options.config_json = small_model;
  options.machine = std::move(machine);
  return run_point(grid, config, sweep_points(config, sweep).front(), sweep, options);
}

}  // namespace

TEST_CASE("A calibration is a valid machine file, the same on all ranks") {
  const comm::ProcessGrid grid(MPI_COMM_WORLD, {world_size()});
  int parts = 0;
  CalibrateOptions options;
  options.is_trial = true;
  options.num_repeats = 3;
  options.progress = [&](const std::string&, int number, int num_parts) {
    CHECK(number == ++parts);
    CHECK(num_parts == 7);
  };
  const Machine machine = calibrate(grid, options);
  CHECK(parts == 7);
  CHECK(machine.ranks_per_node == world_size());
  CHECK(to_json(parse_machine(to_json(machine), "again")) == to_json(machine));
  CHECK(machine.products.size() == 4);
  CHECK(machine.collectives.empty() == (world_size() == 1));
  CHECK_FALSE(machine.network.has_value());
  CHECK(machine.factors.contains(StepPhase::expert_forward));
  CHECK(machine.node.latency_s.low <= machine.node.latency_s.value);
  const double value = machine.triad_bytes_per_s.value;
  CHECK(grid.world().all_reduce_value("triad", value, comm::ReduceOp::max) == value);

  // Two halves of the ranks as two nodes: now there is a network.
  if (world_size() % 2 == 0) {
    const comm::ProcessGrid nodes(MPI_COMM_WORLD, {1}, {.ranks_per_node = world_size() / 2});
    CalibrateOptions silent = options;
    silent.progress = {};
    const Machine two = calibrate(nodes, silent);
    REQUIRE(two.network.has_value());
    CHECK(two.ranks_per_node == world_size() / 2);
    CHECK(two.network->bandwidth_bytes_per_s.value > 1e6);
    CHECK(two.collectives.back().tier == "network");
  }
}

TEST_CASE("A point records what was run, and what was foretold with the same load") {
  Machine machine = test::round_machine();
  machine.shares_memory = true;
  const StudyResult result = run_small(std::nullopt, PlanMachine{machine, Algorithm::ring});
  CHECK(result.step_s.size() == 2);
  CHECK(result.planned_phase_s.size() == result.phases.size());
  CHECK(result.planned_s > 0.0);
  CHECK(result.simulated_s > 0.0);
  CHECK(result.cpus_of_ranks.size() == static_cast<std::size_t>(world_size()));
  CHECK(result.config_json == small_model);
  const double sum = std::accumulate(result.phase_s.begin(), result.phase_s.end(), 0.0);
  CHECK(sum > 0.5 * result.step().value);
  // Of each token in both layers one expert.
  REQUIRE(result.expert_choices.size() == 16);
  CHECK(std::accumulate(result.expert_choices.begin(), result.expert_choices.end(),
                        std::int64_t{0}) == 2 * 8 * 64 * world_size());
}

TEST_CASE("Experts are chosen by Zipf's law, or alike, where that is asked for") {
  const model::ModelConfig config = model::parse_config(small_model, "small");
  const auto busiest = [&](double zipf) {
    return Routing::counted(config, run_small(zipf, std::nullopt).expert_choices).busiest_expert();
  };
  // 1 / H_8 = 0.368 of all choices to the first of eight. Tokens of a small random model are not as
  // different as the noise would have them.
  const double even = busiest(0.0), skewed = busiest(1.0);
  CHECK(even < 0.8 * skewed);
  CHECK(skewed == Approx(8.0 * 0.368).epsilon(0.3));
  CHECK(busiest(3.0) > 5.0);
}

}  // namespace tessera::study
