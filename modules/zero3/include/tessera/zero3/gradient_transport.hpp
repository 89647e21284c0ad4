// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace tessera::zero3 {

/// In which type gradients travel in the reduce-scatter; sums over tokens and micro-steps stay f32.
/// bf16: each rank's contribution is rounded, their sum is formed in f32 and rounded once.
enum class GradientTransport { f32, bf16 };

}  // namespace tessera::zero3
