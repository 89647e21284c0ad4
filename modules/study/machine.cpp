// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <tessera/study/machine.hpp>

#include "base/contract.hpp"
#include "base/error.hpp"

namespace tessera::study {
namespace {

double rate_at(const std::vector<RateAt>& table, Dtype dtype, double size, bool backward,
               const std::string& what, const std::string& machine) {
  const RateAt* below = nullptr;
  const RateAt* above = nullptr;
  for (const RateAt& rate : table) {
    if (rate.dtype != dtype) continue;
    if (rate.size <= size) below = &rate;
    if (rate.size >= size && above == nullptr) above = &rate;
  }
  if (below == nullptr && above == nullptr) {
    fail(
        ErrorKind::usage,
        "machine {} has no {} in {} (the step's time needs it); take another --dtype, or calibrate "
        "with this one",
        machine, what, to_string(dtype));
  }
  if (below == nullptr) below = above;
  if (above == nullptr) above = below;
  const auto value = [&](const RateAt& rate) {
    return backward ? rate.backward_flop_per_s.value : rate.forward_flop_per_s.value;
  };
  if (below->size == above->size) return value(*below);
  const double part = std::log(size / below->size) / std::log(above->size / below->size);
  return std::exp((1.0 - part) * std::log(value(*below)) + part * std::log(value(*above)));
}

}  // namespace

Figure Figure::median_of(std::vector<double> samples) {
  TESSERA_EXPECT(!samples.empty());
  std::sort(samples.begin(), samples.end());
  const std::size_t n = samples.size();
  // Ranks whose order statistics enclose the median with 95 %: n/2 -+ 1.96 sqrt(n)/2 (Conover,
  // Practical Nonparametric Statistics, section 3.2); few samples: all of them.
  const double half = 0.98 * std::sqrt(static_cast<double>(n));
  const double middle = 0.5 * static_cast<double>(n);
  const auto clamped = [&](double rank) {
    return static_cast<std::size_t>(std::clamp(rank, 0.0, static_cast<double>(n - 1)));
  };
  Figure figure;
  figure.value = n % 2 == 1 ? samples[n / 2] : 0.5 * (samples[n / 2 - 1] + samples[n / 2]);
  figure.low = samples[clamped(std::floor(middle - half))];
  figure.high = samples[clamped(std::ceil(middle + half))];
  return figure;
}

double Tier::bandwidth(double num_ranks) const {
  const double alone = bandwidth_bytes_per_s.value;
  return node_bandwidth_bytes_per_s
             ? std::min(alone, node_bandwidth_bytes_per_s->value / std::max(num_ranks, 1.0))
             : alone;
}

double Machine::product_rate(Dtype dtype, double rows, bool backward) const {
  return rate_at(products, dtype, rows, backward, "product rates", name);
}

double Machine::attention_rate(Dtype dtype, double keys, bool backward) const {
  return rate_at(attention, dtype, keys, backward, "attention rates", name);
}

double Machine::factor(StepPhase phase) const {
  const auto found = factors.find(phase);
  return found == factors.end() ? 1.0 : found->second.value;
}

const Tier& Machine::between_nodes() const {
  if (network) return *network;
  fail(
      ErrorKind::usage,
      "machine {} has no tier \"network\" (it was measured on one node, and the plan has several); "
      "calibrate on two nodes, or plan for at most {} ranks",
      name, ranks_per_node);
}

}  // namespace tessera::study
