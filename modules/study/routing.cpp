// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <tessera/study/routing.hpp>

#include "base/block_distribution.hpp"
#include "base/error.hpp"

namespace tessera::study {
namespace {

void normalize(std::vector<double>& shares) {
  const double sum = std::accumulate(shares.begin(), shares.end(), 0.0);
  for (double& share : shares) share /= sum;
}

}  // namespace

Routing::Routing(const model::ModelConfig& config) : num_experts_(config.num_experts) {
  for (const bool has_experts : config.layer_has_experts) {
    index_.push_back(has_experts ? static_cast<std::int64_t>(shares_.size()) : -1);
    if (!has_experts) continue;
    shares_.emplace_back(static_cast<std::size_t>(num_experts_),
                         1.0 / static_cast<double>(num_experts_));
  }
}

Routing Routing::balanced(const model::ModelConfig& config) { return Routing(config); }

Routing Routing::zipf(const model::ModelConfig& config, double exponent, std::uint64_t seed) {
  Routing routing(config);
  std::mt19937_64 random(seed);
  for (std::vector<double>& shares : routing.shares_) {
    for (std::size_t n = 0; n < shares.size(); ++n) {
      shares[n] = std::pow(static_cast<double>(n + 1), -exponent);
    }
    normalize(shares);
    // std::shuffle may differ between libraries, and with it a recorded simulation.
    for (std::size_t n = shares.size(); n > 1; --n) std::swap(shares[n - 1], shares[random() % n]);
  }
  return routing;
}

Routing Routing::counted(const model::ModelConfig& config,
                         const std::vector<std::int64_t>& choices) {
  Routing routing(config);
  const auto num_experts = static_cast<std::size_t>(config.num_experts);
  if (choices.size() != routing.shares_.size() * num_experts) {
    fail(ErrorKind::usage, "{} counts of chosen experts do not fit {} layers of {} experts",
         choices.size(), routing.shares_.size(), config.num_experts);
  }
  for (std::size_t layer = 0; layer < routing.shares_.size(); ++layer) {
    std::vector<double>& shares = routing.shares_[layer];
    for (std::size_t e = 0; e < num_experts; ++e) {
      const std::int64_t count = choices[layer * num_experts + e];
      if (count < 0) fail(ErrorKind::usage, "an expert was chosen {} times", count);
      shares[e] = static_cast<double>(count);
    }
    if (*std::max_element(shares.begin(), shares.end()) == 0.0) {
      fail(ErrorKind::usage, "no expert of layer {} was ever chosen", layer);
    }
    normalize(shares);
  }
  return routing;
}

double Routing::rank_load(std::int64_t layer, std::int64_t position,
                          std::int64_t num_positions) const {
  const std::int64_t index = index_[static_cast<std::size_t>(layer)];
  if (index < 0) return 1.0;
  const std::vector<double>& shares = shares_[static_cast<std::size_t>(index)];
  const BlockDistribution experts{num_experts_, num_positions};
  const double sum = std::accumulate(shares.begin() + experts.begin(position),
                                     shares.begin() + experts.end(position), 0.0);
  return sum * static_cast<double>(num_positions);
}

double Routing::busiest_rank(std::int64_t num_positions) const {
  double most = 1.0;
  for (std::size_t layer = 0; layer < index_.size(); ++layer) {
    for (std::int64_t position = 0; position < num_positions; ++position) {
      most = std::max(most, rank_load(static_cast<std::int64_t>(layer), position, num_positions));
    }
  }
  return most;
}

double Routing::busiest_expert() const {
  double most = 0.0;
  for (const std::vector<double>& shares : shares_) {
    most = std::max(most, *std::max_element(shares.begin(), shares.end()));
  }
  return most * static_cast<double>(num_experts_);
}

}  // namespace tessera::study
