// SPDX-License-Identifier: Apache-2.0
// Router choice, its backward, and the softmax statistics of the auxiliary loss, one thread per
// row.
#include "kernel/top_k.hpp"

#include "base/contract.hpp"
#include "kernel/exponential.hpp"
#include "kernel/rows_loop.hpp"
#include "kernel/selection.hpp"

namespace tessera::kernel {

namespace {

struct RowSoftmax {
  float maximum;
  float inverse_sum;
};

KOKKOS_INLINE_FUNCTION RowSoftmax softmax_of_row(const Matrix<const float>& logits,
                                                 std::int64_t t) {
  const std::int64_t experts = logits.extent(1);
  float maximum = logits(t, 0);
  for (std::int64_t e = 1; e < experts; ++e) {
    maximum = logits(t, e) > maximum ? logits(t, e) : maximum;
  }
  float sum = 0.0f;
  for (std::int64_t e = 0; e < experts; ++e) sum += exp_nonpositive(logits(t, e) - maximum);
  return {maximum, 1.0f / sum};
}

}  // namespace

void top_k_softmax_forward(const Execution& execution, Matrix<const float> logits,
                           Matrix<std::int32_t> index, Matrix<float> weight) {
  if (index.size() == 0) return;
  TESSERA_EXPECT(index.extent(1) <= logits.extent(1) && index.extent(0) == logits.extent(0));
  const std::int64_t experts = logits.extent(1);
  const std::int64_t choices = index.extent(1);
  Kokkos::parallel_for(
      "tessera::top_k_softmax_forward", Range(execution, 0, logits.extent(0)),
      KOKKOS_LAMBDA(const std::int64_t t) {
        std::int64_t previous = INT64_MAX;
        float sum = 0.0f;
        for (std::int64_t j = 0; j < choices; ++j) {
          previous = next_key(&logits(t, 0), experts, previous);
          index(t, j) = expert_of(previous);
          weight(t, j) = exp_nonpositive(logits(t, index(t, j)) - logits(t, index(t, 0)));
          sum += weight(t, j);
        }
        for (std::int64_t j = 0; j < choices; ++j) weight(t, j) /= sum;
      });
}

void top_k_softmax_backward(const Execution& execution, Matrix<const std::int32_t> index,
                            Matrix<const float> weight, Matrix<const float> dweight,
                            Matrix<float> dlogits) {
  if (dlogits.size() == 0) return;
  TESSERA_EXPECT(index.extent(0) == dlogits.extent(0));
  Kokkos::deep_copy(execution, dlogits, 0.0f);
  const std::int64_t choices = index.extent(1);
  Kokkos::parallel_for(
      "tessera::top_k_softmax_backward", Range(execution, 0, index.extent(0)),
      KOKKOS_LAMBDA(const std::int64_t t) {
        // A weight near 1 makes the difference below cancel, and few terms cost little in f64.
        double mean = 0.0;
        for (std::int64_t j = 0; j < choices; ++j) {
          mean += static_cast<double>(weight(t, j)) * dweight(t, j);
        }
        for (std::int64_t j = 0; j < choices; ++j) {
          dlogits(t, index(t, j)) = static_cast<float>(weight(t, j) * (dweight(t, j) - mean));
        }
      });
}

void top_k_probability_forward(const Execution& execution, Matrix<const float> logits,
                               Matrix<std::int32_t> index, Matrix<float> weight) {
  if (index.size() == 0) return;
  TESSERA_EXPECT(index.extent(1) <= logits.extent(1) && index.extent(0) == logits.extent(0));
  const std::int64_t experts = logits.extent(1);
  const std::int64_t choices = index.extent(1);
  Kokkos::parallel_for(
      "tessera::top_k_probability_forward", Range(execution, 0, logits.extent(0)),
      KOKKOS_LAMBDA(const std::int64_t t) {
        const RowSoftmax softmax = softmax_of_row(logits, t);
        std::int64_t previous = INT64_MAX;
        for (std::int64_t j = 0; j < choices; ++j) {
          previous = next_key(&logits(t, 0), experts, previous);
          index(t, j) = expert_of(previous);
          weight(t, j) =
              softmax.inverse_sum * exp_nonpositive(logits(t, index(t, j)) - softmax.maximum);
        }
      });
}

void top_k_probability_backward(const Execution& execution, Matrix<const float> logits,
                                Matrix<const std::int32_t> index, Matrix<const float> weight,
                                Matrix<const float> dweight, Matrix<float> dlogits) {
  if (dlogits.size() == 0) return;
  TESSERA_EXPECT(index.extent(0) == dlogits.extent(0) && logits.extent(1) == dlogits.extent(1));
  const std::int64_t experts = logits.extent(1);
  const std::int64_t choices = index.extent(1);
  Kokkos::parallel_for(
      "tessera::top_k_probability_backward", Range(execution, 0, logits.extent(0)),
      KOKKOS_LAMBDA(const std::int64_t t) {
        const RowSoftmax softmax = softmax_of_row(logits, t);
        double mean = 0.0;  // in f64 as above
        for (std::int64_t j = 0; j < choices; ++j) {
          mean += static_cast<double>(weight(t, j)) * dweight(t, j);
        }
        for (std::int64_t e = 0; e < experts; ++e) {
          const float p = exp_nonpositive(logits(t, e) - softmax.maximum) * softmax.inverse_sum;
          dlogits(t, e) = static_cast<float>(-p * mean);
        }
        for (std::int64_t j = 0; j < choices; ++j) {
          dlogits(t, index(t, j)) = static_cast<float>(weight(t, j) * (dweight(t, j) - mean));
        }
      });
}

void router_statistics(const Execution& execution, Matrix<const float> logits,
                       Matrix<const std::int32_t> index, Vector<double> probability_sum,
                       Vector<double> chosen_count) {
  const std::int64_t rows = logits.extent(0);
  if (rows == 0) return;
  TESSERA_EXPECT(probability_sum.extent(0) == logits.extent(1) &&
                 chosen_count.extent(0) == logits.extent(1));
  const auto maximum = new_vector<float>("row maximum", rows);
  const auto inverse_sum = new_vector<float>("row inverse sum", rows);
  const std::int64_t choices = index.extent(1);
  Kokkos::parallel_for(
      "tessera::router_statistics", Range(execution, 0, rows), KOKKOS_LAMBDA(const std::int64_t t) {
        const RowSoftmax softmax = softmax_of_row(logits, t);
        maximum(t) = softmax.maximum;
        inverse_sum(t) = softmax.inverse_sum;
        // Whole numbers add exactly in any order.
        for (std::int64_t j = 0; j < choices; ++j) {
          Kokkos::atomic_add(&chosen_count(index(t, j)), 1.0);
        }
      });
  const auto probability = KOKKOS_LAMBDA(const std::int64_t t, const std::int64_t e) {
    return static_cast<double>(exp_nonpositive(logits(t, e) - maximum(t)) * inverse_sum(t));
  };
  add_sums_over_rows<double>("tessera::router_statistics", execution, rows, logits.extent(1),
                             probability, probability_sum);
}

void softmax_backward_accumulate(const Execution& execution, Matrix<const float> logits,
                                 Vector<const float> g, Matrix<float> dlogits) {
  if (dlogits.size() == 0) return;
  TESSERA_EXPECT(g.extent(0) == logits.extent(1) && dlogits.extent(0) == logits.extent(0));
  const std::int64_t experts = logits.extent(1);
  Kokkos::parallel_for(
      "tessera::softmax_backward_accumulate", Range(execution, 0, logits.extent(0)),
      KOKKOS_LAMBDA(const std::int64_t t) {
        const RowSoftmax softmax = softmax_of_row(logits, t);
        float mean = 0.0f;
        for (std::int64_t e = 0; e < experts; ++e) {
          mean += exp_nonpositive(logits(t, e) - softmax.maximum) * softmax.inverse_sum * g(e);
        }
        for (std::int64_t e = 0; e < experts; ++e) {
          const float p = exp_nonpositive(logits(t, e) - softmax.maximum) * softmax.inverse_sum;
          dlogits(t, e) += p * (g(e) - mean);
        }
      });
}

}  // namespace tessera::kernel
