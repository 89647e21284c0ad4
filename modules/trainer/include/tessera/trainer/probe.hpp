// SPDX-License-Identifier: Apache-2.0
// The proof that a port is right: loss, logits, every gradient and a few optimizer steps on given
// tokens, written under the checkpoint's own tensor names.
#pragma once

#include <filesystem>
#include <vector>

#include "base/dtype.hpp"
#include "comm/process_grid.hpp"
#include "tessera/trainer/model_state.hpp"
#include "tessera/zero3/optimizer.hpp"

namespace tessera::trainer {

struct ProbeOptions {
  std::filesystem::path tokens;  ///< .npy or HDF5, [B, S] or [S]
  std::filesystem::path labels;  ///< the same shape; empty: the tokens
  Dtype dtype = Dtype::f32;      ///< of parameters and activations: f32 or bf16
  double aux_coefficient = 0.0;
  std::int64_t num_steps = 0;  ///< optimizer steps on the same batch
  zero3::OptimizerOptions optimizer;
  double learning_rate = 1e-3;
  double max_grad_norm = 0.0;
  std::filesystem::path output;
};

/// What was written, for the summary.
struct ProbeResult {
  double loss = 0.0;
  double grad_norm = 0.0;
  std::vector<double> losses;  ///< before each step
  std::int64_t num_targets = 0;
  checkpoint::LoadReport load;
};

/// Loads the model, runs forward and backward, then the steps; writes /loss, /logits [B, S, V],
/// /grad_norm, /grad/<name> for the untouched weights, /losses and /param/<name> for the steps.
/// collective over grid.world(); errors are the same on all ranks.
ProbeResult run_probe(const comm::ProcessGrid& grid, ModelSource& model,
                      const ProbeOptions& options);

}  // namespace tessera::trainer
