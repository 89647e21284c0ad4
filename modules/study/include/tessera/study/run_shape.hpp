// SPDX-License-Identifier: Apache-2.0
// A training run as far as its needs depend on it: no rank, no file, no data.
#pragma once

#include <cstdint>

#include "base/dtype.hpp"
#include "tessera/model/config.hpp"
#include "tessera/model/transformer.hpp"
#include "tessera/zero3/gradient_transport.hpp"
#include "tessera/zero3/optimizer.hpp"

namespace tessera::study {

struct RunShape {
  std::int64_t num_ranks = 1;
  std::int64_t expert = 1;          ///< ranks that hold different experts; divides num_ranks
  std::int64_t ranks_per_node = 1;  ///< consecutive ranks
  bool shares_memory = true;        ///< the ranks of a node do (TESSERA_SHARED_MEMORY)
  std::int64_t batch = 1;           ///< sequences of a step, over all ranks
  std::int64_t micro_batch = 0;     ///< sequences of one rank at a time; 0: all of its share
  std::int64_t length = 0;          ///< positions of a sequence
  Dtype dtype = Dtype::f32;         ///< of the arithmetic: f32 or bf16
  zero3::OptimizerKind optimizer = zero3::OptimizerKind::adamw;
  zero3::GradientTransport transport = zero3::GradientTransport::f32;
  model::Recompute recompute = model::Recompute::none;
  /// Rows of the busiest expert rank over the mean: 1 if all experts are chosen equally often.
  double imbalance = 1.0;
};

/// Throws Error::usage where the numbers do not fit each other or the model. local.
void require_sensible(const model::ModelConfig& config, const RunShape& shape);

}  // namespace tessera::study
