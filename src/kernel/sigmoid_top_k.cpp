// SPDX-License-Identifier: Apache-2.0
// Choice by sigmoid scores within groups and its backward, one thread per row.
#include "kernel/sigmoid_top_k.hpp"

#include <cmath>

#include "base/contract.hpp"
#include "kernel/exponential.hpp"
#include "kernel/rows_loop.hpp"
#include "kernel/selection.hpp"

namespace tessera::kernel {

namespace {

constexpr double smallest_sum = 1e-20;  // transformers adds it to the sum of the chosen scores

/// choice [T, E] = sigmoid(logits) + correction_bias.
Matrix<float> choices_of(const Execution& execution, Matrix<const float> logits,
                         Vector<const float> correction_bias) {
  const auto choice = new_matrix<float>("tessera::choice", logits.extent(0), logits.extent(1));
  const bool corrected = correction_bias.extent(0) > 0;
  for_each_element(
      "tessera::sigmoid_choice", execution, logits.extent(0), logits.extent(1),
      KOKKOS_LAMBDA(const std::int64_t t, const std::int64_t e) {
        choice(t, e) = sigmoid(logits(t, e)).value + (corrected ? correction_bias(e) : 0.0f);
      });
  return choice;
}

/// Fills the choices of groups that are not kept with -infinity: zero would beat the negative
/// choices of kept groups.
void drop_groups(const Execution& execution, SigmoidChoice options, Matrix<float> choice) {
  const std::int64_t groups = options.num_groups;
  const std::int64_t size = static_cast<std::int64_t>(choice.extent(1)) / groups;
  const auto score = new_matrix<float>("tessera::group_score", choice.extent(0), groups);
  Kokkos::parallel_for(
      "tessera::drop_groups", Range(execution, 0, choice.extent(0)),
      KOKKOS_LAMBDA(const std::int64_t t) {
        for (std::int64_t g = 0; g < groups; ++g) {
          const float* in_group = &choice(t, g * size);
          const std::int64_t best = next_key(in_group, size, INT64_MAX);
          score(t, g) = in_group[expert_of(best)];
          if (size > 1) score(t, g) += in_group[expert_of(next_key(in_group, size, best))];
        }
        std::int64_t last_kept = INT64_MAX;
        for (std::int64_t n = 0; n < options.num_kept_groups; ++n) {
          last_kept = next_key(&score(t, 0), groups, last_kept);
        }
        for (std::int64_t e = 0; e < groups * size; ++e) {
          const bool kept = selection_key(score(t, e / size), e / size) >= last_kept;
          choice(t, e) = kept ? choice(t, e) : -INFINITY;
        }
      });
}

}  // namespace

void sigmoid_top_k_forward(const Execution& execution, SigmoidChoice options,
                           Matrix<const float> logits, Vector<const float> correction_bias,
                           Matrix<std::int32_t> index, Matrix<float> weight) {
  if (index.size() == 0) return;
  const std::int64_t experts = logits.extent(1);
  const std::int64_t choices = index.extent(1);
  TESSERA_EXPECT(index.extent(0) == logits.extent(0) && options.num_groups > 0 &&
                 experts % options.num_groups == 0);
  TESSERA_EXPECT(options.num_kept_groups <= options.num_groups &&
                 choices <= experts / options.num_groups * options.num_kept_groups);
  TESSERA_EXPECT(correction_bias.extent(0) == 0 || correction_bias.extent(0) == logits.extent(1));
  const Matrix<float> choice = choices_of(execution, logits, correction_bias);
  if (options.num_kept_groups < options.num_groups) drop_groups(execution, options, choice);
  Kokkos::parallel_for(
      "tessera::sigmoid_top_k_forward", Range(execution, 0, logits.extent(0)),
      KOKKOS_LAMBDA(const std::int64_t t) {
        std::int64_t previous = INT64_MAX;
        float sum = 0.0f;
        for (std::int64_t j = 0; j < choices; ++j) {
          previous = next_key(&choice(t, 0), experts, previous);
          index(t, j) = expert_of(previous);
          weight(t, j) = sigmoid(logits(t, index(t, j))).value;
          sum += weight(t, j);
        }
        const float divisor =
            options.normalize_chosen ? sum + static_cast<float>(smallest_sum) : 1.0f;
        for (std::int64_t j = 0; j < choices; ++j) {
          weight(t, j) = weight(t, j) / divisor * options.scale;
        }
      });
}

void sigmoid_top_k_backward(const Execution& execution, SigmoidChoice options,
                            Matrix<const float> logits, Matrix<const std::int32_t> index,
                            Matrix<const float> dweight, Matrix<float> dlogits) {
  if (dlogits.size() == 0) return;
  TESSERA_EXPECT(index.extent(0) == dlogits.extent(0) && logits.extent(1) == dlogits.extent(1));
  Kokkos::deep_copy(execution, dlogits, 0.0f);
  const std::int64_t choices = index.extent(1);
  Kokkos::parallel_for(
      "tessera::sigmoid_top_k_backward", Range(execution, 0, index.extent(0)),
      KOKKOS_LAMBDA(const std::int64_t t) {
        // In f64, because the difference below cancels where one score outweighs the others.
        double sum = smallest_sum;
        double product = 0.0;
        for (std::int64_t j = 0; j < choices; ++j) {
          const double s = sigmoid(logits(t, index(t, j))).value;
          sum += s;
          product += s * dweight(t, j);
        }
        const double divisor = options.normalize_chosen ? sum : 1.0;
        const double mean = options.normalize_chosen ? product / sum : 0.0;
        for (std::int64_t j = 0; j < choices; ++j) {
          const Sigmoid s = sigmoid(logits(t, index(t, j)));
          const double dscore = options.scale / divisor * (dweight(t, j) - mean);
          dlogits(t, index(t, j)) = static_cast<float>(dscore * s.value * s.complement);
        }
      });
}

}  // namespace tessera::kernel
