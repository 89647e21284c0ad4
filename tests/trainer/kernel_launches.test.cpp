// SPDX-License-Identifier: Apache-2.0
// A guard of the hot paths that no clock disturbs: how often a steady step launches which kernels,
// and how many bytes it fills or copies. A lost fusion or a pass too much changes these numbers.
#include <Kokkos_Core.hpp>
#include <catch2/catch.hpp>
#include <map>
#include <string>
#include <tessera/model/parameter_units.hpp>
#include <tessera/trainer/random_steps.hpp>

namespace tessera::trainer {
namespace {

// Every token goes to all experts, so that each has rows on every grid.
constexpr const char* balanced_model = R"({"model_type": "gpt_oss", "hidden_size": 64,
  "intermediate_size": 32, "num_local_experts": 4, "num_experts_per_tok": 4,
  "num_hidden_layers": 2, "vocab_size": 512, "num_attention_heads": 4, "num_key_value_heads": 2,
  "head_dim": 16, "pad_token_id": null})";

struct Counts {
  std::map<std::string, std::int64_t> launches;  ///< by label
  std::int64_t passed_bytes = 0;                 ///< filled with one value, or copied
};
Counts counts;

void count_launch(const char* label, std::uint32_t, std::uint64_t*) { ++counts.launches[label]; }

void count_bytes(Kokkos::Tools::SpaceHandle, const char*, const void*, Kokkos::Tools::SpaceHandle,
                 const char*, const void*, std::uint64_t bytes) {
  counts.passed_bytes += static_cast<std::int64_t>(bytes);
}

Counts counts_of_steps(const comm::ProcessGrid& grid, std::int64_t num_steps) {
  counts = {};
  RandomSteps options;
  options.dtype = Dtype::bf16;
  options.batch = grid.world().size(), options.length = 16, options.num_steps = num_steps;
  profile_random_steps(grid, model::parse_config(balanced_model, "balanced"), options);
  return counts;
}

/// Of one step after the first.
Counts steady_step(const comm::ProcessGrid& grid) {
  namespace tools = Kokkos::Tools::Experimental;
  tools::set_begin_parallel_for_callback(count_launch);
  tools::set_begin_parallel_reduce_callback(count_launch);
  tools::set_begin_deep_copy_callback(count_bytes);
  Counts before = counts_of_steps(grid, 1), step = counts_of_steps(grid, 2);
  tools::set_begin_parallel_for_callback(nullptr);
  tools::set_begin_parallel_reduce_callback(nullptr);
  tools::set_begin_deep_copy_callback(nullptr);
  for (auto& [label, count] : step.launches) count -= before.launches[label];
  step.passed_bytes -= before.passed_bytes;
  return step;
}

/// How often a step may launch the kernels that touch all parameters or all rows.
std::map<std::string, std::int64_t> allowed_launches(const model::ModelConfig& config,
                                                     std::int64_t local_experts) {
  const std::int64_t layers = config.num_layers, units = 2 * layers + 2;
  const auto parameters = static_cast<std::int64_t>(all_parameters(parameter_units(config)).size());
  return {{"tessera::adamw", parameters},
          {"tessera::sum_of_squares", units},
          {"tessera::sum_parts", units},
          {"tessera::clamped_swiglu_forward", layers * local_experts},
          {"tessera::clamped_swiglu_backward", layers * local_experts},
          {"tessera::combine_addressed_rows", layers},
          {"tessera::combine_addressed_rows_backward", layers},
          {"tessera::sum_addressed_rows", layers},
          {"tessera::gather_addressed_rows", layers},
          {"tessera::rms_norm_forward", 3 * layers + 1},  // that before the experts twice
          {"tessera::rms_norm_backward", 2 * layers + 1}};
}

/// Only gradients that are added to are filled with zeros: not those of experts.
std::int64_t allowed_bytes(const model::ModelConfig& config) {
  constexpr std::int64_t of_activations = 64 << 10;
  std::int64_t elements = 0;
  for (const Parameter& parameter : all_parameters(parameter_units(config))) {
    if (!parameter.is_expert) elements += parameter.size();
  }
  return elements * std::int64_t{sizeof(float)} + of_activations;
}

}  // namespace

TEST_CASE("A steady step launches no kernel and fills no memory more often than is allowed") {
  const model::ModelConfig config = model::parse_config(balanced_model, "balanced");
  int size = 1;
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  for (int expert = 1; expert <= size; ++expert) {
    if (size % expert != 0) continue;
    const comm::ProcessGrid grid(MPI_COMM_WORLD, {expert});
    Counts step = steady_step(grid);
    CAPTURE(size, expert);
    for (const auto& [label, most] : allowed_launches(config, config.num_experts / expert)) {
      INFO(label);
      CHECK(step.launches[label] <= most);
    }
    std::int64_t all = 0;
    for (const auto& [label, count] : step.launches) all += count;
    CHECK(all > 100);
    CHECK(all <= 300);
    CHECK(step.passed_bytes > 0);
    CHECK(step.passed_bytes <= allowed_bytes(config));
  }
}

}  // namespace tessera::trainer
