// SPDX-License-Identifier: Apache-2.0
#include "kernel/sum_exponentials.hpp"

#include "kernel/exponential.hpp"

namespace tessera::kernel {

float sum_exponentials(const float* logits, std::int64_t count, float maximum, float* to) {
  float sum = 0.0f;
// In place a compiler would have to take reads for dependent on writes.
#pragma omp simd reduction(+ : sum)
  for (std::int64_t i = 0; i < count; ++i) {
    const float e = exp_nonpositive(logits[i] - maximum);
    to[i] = e;
    sum += e;
  }
  return sum;
}

}  // namespace tessera::kernel
