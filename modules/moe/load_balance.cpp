// SPDX-License-Identifier: Apache-2.0
#include <tessera/moe/load_balance.hpp>

#include "kernel/top_k.hpp"

namespace tessera::moe {

LoadBalance::LoadBalance(std::int64_t num_experts)
    : num_experts_(num_experts),
      probability_sum_(kernel::new_zero_vector<double>({}, "router probability sums", num_experts)),
      chosen_count_(kernel::new_zero_vector<double>({}, "router choice counts", num_experts)) {}

void LoadBalance::add(const kernel::Execution& execution, const Routing& routing) {
  kernel::router_statistics(execution, routing.logits, routing.index, probability_sum_,
                            chosen_count_);
  num_rows_ += static_cast<double>(routing.logits.extent(0));
}

void LoadBalance::finish(const comm::Communicator& world) {
  const auto probability = kernel::host_copy(probability_sum_);
  const auto chosen = kernel::host_copy(chosen_count_);
  std::vector<double> sums{num_rows_};
  sums.insert(sums.end(), probability.data(), probability.data() + num_experts_);
  sums.insert(sums.end(), chosen.data(), chosen.data() + num_experts_);
  world.all_reduce("load balance", std::span<double>(sums), comm::ReduceOp::sum);
  num_rows_ = sums[0];
  chosen_share_.assign(num_experts_, 0.0);
  if (num_rows_ == 0) return;
  double mean = 0.0;
  for (std::int64_t e = 0; e < num_experts_; ++e) {
    chosen_share_[e] = sums[1 + num_experts_ + e] / num_rows_;
    mean += chosen_share_[e] * sums[1 + e] / num_rows_;
  }
  loss_ = static_cast<double>(num_experts_) * mean;
}

kernel::Vector<const float> LoadBalance::gradient(double scale) const {
  const auto gradient = kernel::new_vector<float>("load balance gradient", num_experts_);
  const auto host = kernel::host_mirror(gradient);
  for (std::int64_t e = 0; e < num_experts_; ++e) {
    const double share = num_rows_ > 0 ? chosen_share_[e] / num_rows_ : 0.0;
    host(e) = static_cast<float>(scale * static_cast<double>(num_experts_) * share);
  }
  Kokkos::deep_copy(gradient, host);
  return gradient;
}

}  // namespace tessera::moe
