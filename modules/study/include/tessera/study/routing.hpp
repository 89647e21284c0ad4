// SPDX-License-Identifier: Apache-2.0
// How often experts are chosen: alike, by Zipf's law, or as a run has counted.
#pragma once

#include <cstdint>
#include <vector>

#include "tessera/model/config.hpp"

namespace tessera::study {

/// Of each layer with experts, in their order.
class Routing {
 public:
  /// All experts alike.
  static Routing balanced(const model::ModelConfig& config);
  /// The n-th expert in popularity with weight n^-exponent; which one that is differs from layer to
  /// layer and follows from the seed. An exponent of 0 is balanced.
  static Routing zipf(const model::ModelConfig& config, double exponent, std::uint64_t seed);
  /// choices [layers with experts, E] of tokens as counted. Throws Error::usage if the numbers do
  /// not fit the model.
  static Routing counted(const model::ModelConfig& config,
                         const std::vector<std::int64_t>& choices);

  /// Rows of the experts of expert rank `position` of `num_positions`, over the mean of all. local.
  double rank_load(std::int64_t layer, std::int64_t position, std::int64_t num_positions) const;
  /// Of all layers the largest rank_load().
  double busiest_rank(std::int64_t num_positions) const;
  /// Of all layers the largest share of an expert over the mean: RunShape::imbalance.
  double busiest_expert() const;

 private:
  explicit Routing(const model::ModelConfig& config);

  std::int64_t num_experts_ = 0;
  std::vector<std::int64_t> index_;          // of a layer in shares_
  std::vector<std::vector<double>> shares_;  // [layers with experts][E], each sums to 1
};

}  // namespace tessera::study
