// SPDX-License-Identifier: Apache-2.0
// Bytes on the wire, a guard that no clock disturbs: what one training step passes through each
// communicator agrees with the formulas of ZeRO-3 and of expert parallelism.
#include <catch2/catch.hpp>
#include <tessera/model/parameter_units.hpp>
#include <tessera/trainer/random_steps.hpp>

#include "support/collective_check.hpp"

namespace tessera::trainer {
namespace {

// Every token goes to all experts, so that routing is balanced. Large enough for padding to vanish.
constexpr const char* balanced_model = R"({"model_type": "gpt_oss", "hidden_size": 256,
  "intermediate_size": 64, "num_local_experts": 12, "num_experts_per_tok": 12,
  "num_hidden_layers": 2, "vocab_size": 512, "num_attention_heads": 4, "num_key_value_heads": 2,
  "head_dim": 64, "pad_token_id": null})";

constexpr std::int64_t sequence_length = 16;

/// Elements of the units that are gathered once a step, of the dense ones that are gathered twice
/// (forward and backward), and of all experts.
struct Elements {
  double once = 0.0, twice = 0.0, expert = 0.0;
};

Elements count_elements(const model::ModelConfig& config) {
  Elements count;
  for (const auto& unit : model::parameter_units(config)) {
    double size = 0.0;
    for (const Parameter& parameter : unit.parameters)
      size += static_cast<double>(parameter.size());
    if (unit.is_expert) {
      count.expert += size;
    } else {
      (unit.name.starts_with("layers.") ? count.twice : count.once) += size;
    }
  }
  return count;
}

double others(const comm::Communicator& group) {
  return static_cast<double>(group.size() - 1) / group.size();
}

/// What a step brings to this rank through `group`.
comm::Traffic step_traffic(const comm::ProcessGrid& grid, const model::ModelConfig& config,
                           Dtype dtype, const comm::Communicator& group) {
  comm::Traffic traffic;
  traffic -= group.traffic();
  RandomSteps options;
  options.dtype = dtype;
  options.batch = grid.world().size(), options.length = sequence_length, options.num_steps = 0;
  profile_random_steps(grid, config, options);
  traffic += group.traffic();
  return traffic;
}

void check_volume(const comm::TrafficVolume& volume, double expected) {
  CHECK(static_cast<double>(volume.logical_bytes) == Approx(expected).epsilon(0.01).margin(2000.0));
}

}  // namespace

TEST_CASE("A step's volumes are those of the formulas, in shared memory and out of it") {
  const Dtype dtype = GENERATE(Dtype::f32, Dtype::bf16);
  const int ranks_per_node = GENERATE(0, 1, 2);
  const model::ModelConfig config = model::parse_config(balanced_model, "balanced");
  const Elements elements = count_elements(config);
  const auto element_bytes = static_cast<double>(size_of(dtype));
  int size = 1;
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  for (int expert = 1; expert <= size; ++expert) {
    if (size % expert != 0) continue;
    const comm::ProcessGrid grid(MPI_COMM_WORLD, {expert}, {.ranks_per_node = ranks_per_node});
    const comm::Communicator &world = grid.world(), &replica = grid.replica();
    const comm::Traffic dense = step_traffic(grid, config, dtype, world);
    check_volume(dense.all_gather,
                 (elements.once + 2.0 * elements.twice) * element_bytes * others(world));
    check_volume(dense.reduce_scatter, (elements.once + elements.twice) * 4.0 * others(world));
    if (ranks_per_node == 0) CHECK(dense.all_gather.moved_bytes < 2000);

    const comm::Traffic experts = step_traffic(grid, config, dtype, replica);
    const double local = elements.expert / expert;
    check_volume(experts.all_gather, 2.0 * local * element_bytes * others(replica));
    check_volume(experts.reduce_scatter, local * 4.0 * others(replica));

    const comm::Traffic tokens = step_traffic(grid, config, dtype, grid.expert());
    check_volume(tokens.all_to_all,
                 4.0 * sequence_length * 12 * 256 * element_bytes * 2 * others(grid.expert()));
  }
}

}  // namespace tessera::trainer
