// SPDX-License-Identifier: Apache-2.0
// Choice by sigmoid scores as plain loops with the standard library's sort, written along
// transformers' DeepseekV3TopkRouter: what the tests hold the Kokkos version to. Host memory.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "kernel/sigmoid_top_k.hpp"

namespace tessera::kernel::reference {

namespace {

double score_of(float logit) { return 1.0 / (1.0 + std::exp(-static_cast<double>(logit))); }

/// Indices of the `count` largest values, largest first, of equal values the lower index first.
std::vector<std::int32_t> largest(const std::vector<float>& values, std::int64_t count) {
  std::vector<std::int32_t> order(values.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](std::int32_t a, std::int32_t b) { return values[a] > values[b]; });
  order.resize(count);
  return order;
}

void drop_groups(const SigmoidChoice& options, std::vector<float>& choice) {
  const std::size_t size = choice.size() / options.num_groups;
  std::vector<float> score;
  for (auto group = choice.begin(); group != choice.end(); group += size) {
    const std::vector<float> in_group(group, group + size);
    float sum = 0.0f;
    for (const std::int32_t i : largest(in_group, size > 1 ? 2 : 1)) sum += in_group[i];
    score.push_back(sum);
  }
  const std::vector<std::int32_t> kept = largest(score, options.num_kept_groups);
  for (std::size_t e = 0; e < choice.size(); ++e) {
    const auto group = static_cast<std::int32_t>(e / size);
    if (std::find(kept.begin(), kept.end(), group) == kept.end()) choice[e] = -INFINITY;
  }
}

}  // namespace

void sigmoid_top_k_forward(SigmoidChoice options, Matrix<const float> logits,
                           Vector<const float> correction_bias, Matrix<std::int32_t> index,
                           Matrix<float> weight) {
  for (std::size_t t = 0; t < index.extent(0); ++t) {
    std::vector<float> choice;
    for (std::size_t e = 0; e < logits.extent(1); ++e) {
      const float bias = correction_bias.extent(0) > 0 ? correction_bias(e) : 0.0f;
      choice.push_back(static_cast<float>(score_of(logits(t, e))) + bias);
    }
    drop_groups(options, choice);
    const std::vector<std::int32_t> chosen = largest(choice, index.extent(1));
    double sum = 1e-20;
    for (const std::int32_t e : chosen) sum += score_of(logits(t, e));
    for (std::size_t j = 0; j < chosen.size(); ++j) {
      index(t, j) = chosen[j];
      const double divisor = options.normalize_chosen ? sum : 1.0;
      weight(t, j) = static_cast<float>(score_of(logits(t, chosen[j])) / divisor * options.scale);
    }
  }
}

void sigmoid_top_k_backward(SigmoidChoice options, Matrix<const float> logits,
                            Matrix<const std::int32_t> index, Matrix<const float> dweight,
                            Matrix<float> dlogits) {
  Kokkos::deep_copy(dlogits, 0.0f);
  for (std::size_t t = 0; t < index.extent(0); ++t) {
    double sum = 1e-20;
    double product = 0.0;
    for (std::size_t j = 0; j < index.extent(1); ++j) {
      sum += score_of(logits(t, index(t, j)));
      product += score_of(logits(t, index(t, j))) * dweight(t, j);
    }
    for (std::size_t j = 0; j < index.extent(1); ++j) {
      const double s = score_of(logits(t, index(t, j)));
      const double dscore =
          options.normalize_chosen ? (dweight(t, j) - product / sum) / sum : dweight(t, j);
      dlogits(t, index(t, j)) = static_cast<float>(options.scale * dscore * s * (1.0 - s));
    }
  }
}

}  // namespace tessera::kernel::reference
