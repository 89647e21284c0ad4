// SPDX-License-Identifier: Apache-2.0
// Volumes of a plan are those that the communicators of a real step count, axis by axis, also where
// the vocabulary comes in chunks or is tied. Each token goes to all experts, so routing is
// balanced.
#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>
#include <tessera/study/traffic.hpp>
#include <tessera/trainer/random_steps.hpp>

namespace tessera::study {
namespace {

// Large enough for padding to vanish.
model::ModelConfig config_of(bool tied, std::int64_t vocabulary_chunk) {
  const nlohmann::json json{
      {"model_type", "qwen3_moe"},   {"hidden_size", 256},       {"intermediate_size", 128},
      {"moe_intermediate_size", 64}, {"num_experts", 12},        {"num_experts_per_tok", 12},
      {"norm_topk_prob", true},      {"num_hidden_layers", 2},   {"vocab_size", 512},
      {"num_attention_heads", 4},    {"num_key_value_heads", 2}, {"head_dim", 64},
      {"mlp_only_layers", {}},       {"decoder_sparse_step", 1}, {"tie_word_embeddings", tied},
      {"pad_token_id", nullptr}};
  model::ModelConfig config = model::parse_config(json.dump(), "traffic");
  config.vocabulary_chunk = vocabulary_chunk;
  return config;
}

/// What one step brings to this rank through each axis.
struct Counted {
  comm::Traffic world, expert, replica;
};
Counted count_step(const comm::ProcessGrid& grid, const model::ModelConfig& config,
                   const RunShape& shape) {
  Counted counted;
  counted.world -= grid.world().traffic();
  counted.expert -= grid.expert().traffic();
  counted.replica -= grid.replica().traffic();
  trainer::RandomSteps options;
  options.dtype = shape.dtype, options.recompute = shape.recompute;
  options.batch = shape.batch, options.length = shape.length, options.num_steps = 0;
  profile_random_steps(grid, config, options);
  counted.world += grid.world().traffic();
  counted.expert += grid.expert().traffic();
  counted.replica += grid.replica().traffic();
  return counted;
}

void check(const AxisTraffic& planned, const comm::Traffic& truth) {
  const auto near = [](double value) { return Approx(value).epsilon(0.01).margin(3000.0); };
  CHECK(static_cast<double>(truth.all_gather.logical_bytes) == near(planned.all_gather));
  CHECK(static_cast<double>(truth.reduce_scatter.logical_bytes) == near(planned.reduce_scatter));
  CHECK(static_cast<double>(truth.all_to_all.logical_bytes) == near(planned.all_to_all));
}

}  // namespace

TEST_CASE("A plan's volumes are what a step's communicators count") {
  int size = 1;
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  struct Case {
    bool tied;
    std::int64_t vocabulary_chunk;
    model::Recompute recompute;
    Dtype dtype;
  };
  for (const Case& test : {Case{false, 0, model::Recompute::none, Dtype::f32},
                           Case{false, 128, model::Recompute::layer, Dtype::bf16},
                           Case{true, 0, model::Recompute::attention, Dtype::bf16},
                           Case{true, 128, model::Recompute::none, Dtype::f32}}) {
    const model::ModelConfig config = config_of(test.tied, test.vocabulary_chunk);
    for (int expert = 1; expert <= size; ++expert) {
      if (size % expert != 0) continue;
      const comm::ProcessGrid grid(MPI_COMM_WORLD, {expert}, {.ranks_per_node = 1});
      RunShape shape;
      shape.num_ranks = size, shape.expert = expert, shape.batch = size, shape.length = 16;
      shape.dtype = test.dtype, shape.recompute = test.recompute;
      const PlannedTraffic planned = planned_traffic(config, model::parameter_units(config), shape);
      CAPTURE(size, expert, test.tied, test.vocabulary_chunk);
      const Counted counted = count_step(grid, config, shape);
      check(planned.world, counted.world);
      check(planned.expert, counted.expert);
      check(planned.replica, counted.replica);
    }
  }
}

}  // namespace tessera::study
