// SPDX-License-Identifier: Apache-2.0
// The router's choice and softmax gradients as plain loops in f64, with the standard library's
// sort: what the tests hold the Kokkos version to. Host memory.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "kernel/top_k.hpp"

namespace tessera::kernel::reference {

namespace {

std::vector<double> softmax(const std::vector<double>& logits) {
  const double maximum = *std::max_element(logits.begin(), logits.end());
  std::vector<double> probability;
  for (const double logit : logits) probability.push_back(std::exp(logit - maximum));
  const double sum = std::accumulate(probability.begin(), probability.end(), 0.0);
  for (double& p : probability) p /= sum;
  return probability;
}

std::vector<double> softmax_of_row(Matrix<const float> logits, std::size_t t) {
  std::vector<double> row;
  for (std::size_t e = 0; e < logits.extent(1); ++e) row.push_back(logits(t, e));
  return softmax(row);
}

/// All experts, largest logit first, of equal logits the lower expert first.
std::vector<std::int32_t> experts_by_logit(Matrix<const float> logits, std::size_t t) {
  std::vector<std::int32_t> order(logits.extent(1));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](std::int32_t a, std::int32_t b) { return logits(t, a) > logits(t, b); });
  return order;
}

}  // namespace

void top_k_softmax_forward(Matrix<const float> logits, Matrix<std::int32_t> index,
                           Matrix<float> weight) {
  for (std::size_t t = 0; t < index.extent(0); ++t) {
    const std::vector<std::int32_t> order = experts_by_logit(logits, t);
    std::vector<double> chosen;
    for (std::size_t j = 0; j < index.extent(1); ++j) chosen.push_back(logits(t, order[j]));
    const std::vector<double> probability = softmax(chosen);
    for (std::size_t j = 0; j < index.extent(1); ++j) {
      index(t, j) = order[j];
      weight(t, j) = static_cast<float>(probability[j]);
    }
  }
}

void top_k_softmax_backward(Matrix<const std::int32_t> index, Matrix<const float> weight,
                            Matrix<const float> dweight, Matrix<float> dlogits) {
  Kokkos::deep_copy(dlogits, 0.0f);
  for (std::size_t t = 0; t < index.extent(0); ++t) {
    double mean = 0.0;
    for (std::size_t j = 0; j < index.extent(1); ++j) {
      mean += static_cast<double>(weight(t, j)) * dweight(t, j);
    }
    for (std::size_t j = 0; j < index.extent(1); ++j) {
      dlogits(t, index(t, j)) = static_cast<float>(weight(t, j) * (dweight(t, j) - mean));
    }
  }
}

void top_k_probability_forward(Matrix<const float> logits, Matrix<std::int32_t> index,
                               Matrix<float> weight) {
  for (std::size_t t = 0; t < index.extent(0); ++t) {
    const std::vector<std::int32_t> order = experts_by_logit(logits, t);
    const std::vector<double> probability = softmax_of_row(logits, t);
    for (std::size_t j = 0; j < index.extent(1); ++j) {
      index(t, j) = order[j];
      weight(t, j) = static_cast<float>(probability[order[j]]);
    }
  }
}

void top_k_probability_backward(Matrix<const float> logits, Matrix<const std::int32_t> index,
                                Matrix<const float> weight, Matrix<const float> dweight,
                                Matrix<float> dlogits) {
  for (std::size_t t = 0; t < logits.extent(0); ++t) {
    const std::vector<double> probability = softmax_of_row(logits, t);
    std::vector<double> dprobability(probability.size(), 0.0);
    double mean = 0.0;
    for (std::size_t j = 0; j < index.extent(1); ++j) {
      dprobability[index(t, j)] = dweight(t, j);
      mean += static_cast<double>(weight(t, j)) * dweight(t, j);
    }
    for (std::size_t e = 0; e < probability.size(); ++e) {
      dlogits(t, e) = static_cast<float>(probability[e] * (dprobability[e] - mean));
    }
  }
}

void router_statistics(Matrix<const float> logits, Matrix<const std::int32_t> index,
                       Vector<double> probability_sum, Vector<double> chosen_count) {
  for (std::size_t t = 0; t < logits.extent(0); ++t) {
    const std::vector<double> probability = softmax_of_row(logits, t);
    for (std::size_t e = 0; e < probability.size(); ++e) probability_sum(e) += probability[e];
    for (std::size_t j = 0; j < index.extent(1); ++j) chosen_count(index(t, j)) += 1.0;
  }
}

void softmax_backward_accumulate(Matrix<const float> logits, Vector<const float> g,
                                 Matrix<float> dlogits) {
  for (std::size_t t = 0; t < logits.extent(0); ++t) {
    const std::vector<double> probability = softmax_of_row(logits, t);
    double mean = 0.0;
    for (std::size_t e = 0; e < probability.size(); ++e) mean += probability[e] * g(e);
    for (std::size_t e = 0; e < probability.size(); ++e) {
      dlogits(t, e) = static_cast<float>(dlogits(t, e) + probability[e] * (g(e) - mean));
    }
  }
}

}  // namespace tessera::kernel::reference
