// SPDX-License-Identifier: Apache-2.0
// The global gradient norm: every shard is owned once, so it is one sum of squared shard norms.
#pragma once

#include <span>

#include "tessera/zero3/parameter_store.hpp"

namespace tessera::zero3 {

/// What a step's last collective tells all ranks alike.
struct GradNorm {
  double norm = 0.0;      ///< L2 norm over all parameters, before clipping; may be NaN or infinite
  double num_failed = 0;  ///< ranks that raised the flag during the step
};

/// collective over world. `local_failure`: this rank met an error in the step and contributed
/// neutral data.
template <class T>
GradNorm global_grad_norm(const comm::Communicator& world, const ParameterStore<T>& store,
                          bool local_failure);

/// torch's clip_grad_norm_ factor: min(1, max_norm / (norm + 1e-6)); 1 when max_norm is 0 (no
/// clipping).
double clip_factor(double norm, double max_norm);

}  // namespace tessera::zero3
