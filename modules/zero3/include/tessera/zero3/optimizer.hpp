// SPDX-License-Identifier: Apache-2.0
// The optimizer on shards: each rank updates the master weights that it owns.
#pragma once

#include <cstdint>
#include <string>

#include "tessera/zero3/parameter_store.hpp"

namespace tessera::zero3 {

enum class OptimizerKind { adamw, sgd };
const char* to_string(OptimizerKind kind);
/// Throws Error::usage for any other name. local.
OptimizerKind optimizer_kind(const std::string& name);

struct OptimizerOptions {
  OptimizerKind kind = OptimizerKind::adamw;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 0.0;
  bool decay_all =
      false;  ///< weight decay on norms, biases and sinks too (torch's AdamW over all parameters)
};

/// One step on every shard. Opens the masters: collective over the units' groups. `step` counts
/// from 1; `gradient_scale` is the clipping factor.
template <class T>
void optimizer_step(ParameterStore<T>& store, const OptimizerOptions& options, double learning_rate,
                    std::int64_t step, double gradient_scale);

}  // namespace tessera::zero3
