// SPDX-License-Identifier: Apache-2.0
// Exponentials of a softmax and their sum, on the host. A source of its own: all who call it get
// the same instructions and so the same bits, whatever order a compiler gives the sum.
#pragma once

#include <cstdint>

namespace tessera::kernel {

/// to[i] = exp(logits[i] - maximum), i < count; returns their sum. `to` is `logits` or does not
/// overlap it. maximum: none of the logits is larger. local.
float sum_exponentials(const float* logits, std::int64_t count, float maximum, float* to);

}  // namespace tessera::kernel
