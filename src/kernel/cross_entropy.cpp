// SPDX-License-Identifier: Apache-2.0
// Cross-entropy, one team per row: maximum, sum of exponentials, then the gradient.
#include "kernel/cross_entropy.hpp"

#include <cmath>

#include "base/contract.hpp"
#include "kernel/exponential.hpp"

namespace tessera::kernel {
namespace {

using Member = Team::member_type;

/// The largest logit of a row; logits that are NaN may be passed over, they show in the sum.
KOKKOS_INLINE_FUNCTION float row_maximum(const Member& team, const float* logits,
                                         std::int64_t num_classes) {
  std::int32_t largest;
  Kokkos::parallel_reduce(
      Kokkos::TeamVectorRange(team, std::int64_t(0), num_classes),
      [=](const std::int64_t i, std::int32_t& running) {
        const std::int32_t ordered = ordered_bits(logits[i]);
        running = ordered > running ? ordered : running;
      },
      Kokkos::Max<std::int32_t>(largest));
  return from_ordered_bits(largest);
}

/// f64, because a vocabulary is long enough for f32 sums to lose three digits.
KOKKOS_INLINE_FUNCTION double row_total(const Member& team, const float* logits,
                                        std::int64_t num_classes, float maximum) {
  double total = 0.0;
  Kokkos::parallel_reduce(
      Kokkos::TeamVectorRange(team, std::int64_t(0), num_classes),
      [=](const std::int64_t i, double& running) {
        running += exp_nonpositive(logits[i] - maximum);
      },
      total);
  return total;
}

/// gradient may be the logits themselves.
template <class T>
KOKKOS_INLINE_FUNCTION void row_gradient(const Member& team, const float* logits,
                                         std::int64_t num_classes, std::int64_t target,
                                         float maximum, double total, float scale, T* gradient) {
  const auto factor = static_cast<float>(scale / total);
  // f64: a confident row's softmax - 1 would cancel.
  const double target_probability = exp_nonpositive(logits[target] - maximum) / total;
  const auto target_gradient = static_cast<float>(scale * (target_probability - 1.0));
  team.team_barrier();  // the target's logit is read before it is overwritten
  Kokkos::parallel_for(Kokkos::TeamVectorRange(team, std::int64_t(0), num_classes),
                       [=](const std::int64_t i) {
                         gradient[i] = T(factor * exp_nonpositive(logits[i] - maximum));
                       });
  team.team_barrier();
  Kokkos::single(Kokkos::PerTeam(team), [=]() { gradient[target] = T(target_gradient); });
}

}  // namespace

template <class T>
double cross_entropy(const Execution& execution, Matrix<const float> logits,
                     Vector<const std::int64_t> target, float scale, Matrix<T> dlogits) {
  const auto num_rows = static_cast<std::int64_t>(logits.extent(0));
  const auto num_classes = static_cast<std::int64_t>(logits.extent(1));
  const bool has_gradient = dlogits.size() > 0;
  TESSERA_EXPECT(target.size() == logits.extent(0));
  TESSERA_EXPECT(!has_gradient ||
                 (dlogits.extent(0) == logits.extent(0) && dlogits.extent(1) == logits.extent(1)));
  if (num_rows == 0) return 0.0;
  double loss = 0.0;
  Kokkos::parallel_reduce(
      "cross_entropy", Team(execution, static_cast<int>(num_rows), Kokkos::AUTO),
      KOKKOS_LAMBDA(const Member& team, double& loss_sum) {
        const std::int64_t row = team.league_rank();
        const std::int64_t label = target(row);
        const float* row_logits = logits.data() + row * num_classes;
        T* gradient = has_gradient ? dlogits.data() + row * num_classes : nullptr;
        if (label == ignored_label) {
          if (!has_gradient) return;
          Kokkos::parallel_for(Kokkos::TeamVectorRange(team, std::int64_t(0), num_classes),
                               [=](const std::int64_t i) { gradient[i] = T(0.0f); });
          return;
        }
        const float maximum = row_maximum(team, row_logits, num_classes);
        const double total = row_total(team, row_logits, num_classes, maximum);
        // f32, whose conversion keeps the compiler from adding the two to the sum one by one.
        const float lead = maximum - row_logits[label];
        Kokkos::single(Kokkos::PerTeam(team), [&]() { loss_sum += std::log(total) + lead; });
        if (has_gradient) {
          row_gradient(team, row_logits, num_classes, label, maximum, total, scale, gradient);
        }
      },
      loss);
  execution.fence();
  return loss;
}

template double cross_entropy(const Execution&, Matrix<const float>, Vector<const std::int64_t>,
                              float, Matrix<float>);
template double cross_entropy(const Execution&, Matrix<const float>, Vector<const std::int64_t>,
                              float, Matrix<bf16>);

}  // namespace tessera::kernel
