// SPDX-License-Identifier: Apache-2.0
// Shapes and a machine of round numbers for the tests of plans and simulations.
#pragma once

#include <tessera/study/machine.hpp>
#include <tessera/study/run_shape.hpp>

#include "model/family_released.hpp"

namespace tessera::test {

inline model::ModelConfig qwen3_config() {
  return model::parse_config(qwen3_30b_a3b().dump(), "qwen3");
}
inline model::ModelConfig deepseek_config() {
  return model::parse_config(deepseek_v3().dump(), "deepseek");
}

inline study::RunShape run_shape(std::int64_t num_ranks, std::int64_t expert,
                                 std::int64_t ranks_per_node = 8) {
  study::RunShape shape;
  shape.num_ranks = num_ranks;
  shape.expert = expert;
  shape.ranks_per_node = ranks_per_node;
  shape.shares_memory = false;
  shape.batch = num_ranks;
  shape.length = 4096;
  shape.dtype = Dtype::bf16;
  return shape;
}

/// Without contention: nothing that one rank sends holds up another.
inline study::Machine round_machine() {
  using study::Figure;
  study::Machine machine;
  machine.name = "round";
  machine.ranks_per_node = 8;
  machine.overlap = 1.0;
  machine.node.latency_s = Figure::published(1e-6, "test");
  machine.node.bandwidth_bytes_per_s = Figure::published(4e11, "test");
  machine.network.emplace();
  machine.network->latency_s = Figure::published(8e-6, "test");
  machine.network->bandwidth_bytes_per_s = Figure::published(5e10, "test");
  machine.triad_bytes_per_s = Figure::published(3e12, "test");
  const Figure fast = Figure::published(6e14, "test"), slow = Figure::published(3e14, "test");
  machine.products = {{Dtype::bf16, 64.0, slow, slow},
                      {Dtype::f32, 64.0, slow, slow},
                      {Dtype::bf16, 1024.0, fast, fast}};
  machine.attention = {{Dtype::bf16, 512.0, slow, slow}};
  machine.file_write_bytes_per_s = Figure::published(1e10, "test");
  machine.file_read_bytes_per_s = Figure::published(2e10, "test");
  return machine;
}

}  // namespace tessera::test
