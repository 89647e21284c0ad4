// SPDX-License-Identifier: Apache-2.0
// The auxiliary load-balancing loss over the global batch (Switch Transformer, arXiv:2101.03961,
// eq. 4-6, in the form of transformers' load_balancing_loss_func): over the router logits of all
// layers,
//   loss = E * sum_e f_e P_e,  f_e = choices of e / rows,  P_e = mean softmax probability of e.
#pragma once

#include <vector>

#include "comm/communicator.hpp"
#include "tessera/moe/route.hpp"

namespace tessera::moe {

/// Collects what the loss needs while the layers run forward, of one or several micro-steps, then
/// yields its gradient.
class LoadBalance {
 public:
  explicit LoadBalance(std::int64_t num_experts);

  /// Adds one layer's rows. local.
  void add(const kernel::Execution& execution, const Routing& routing);
  /// Sums over all ranks; nothing is added after it. collective over world; once.
  void finish(const comm::Communicator& world);
  bool finished() const { return !chosen_share_.empty(); }
  /// The loss over all ranks' rows, after finish(). local.
  double loss() const { return loss_; }
  /// d(scale * loss) / d(probability of expert e in any one row) [E] f32, after finish(). local.
  kernel::Vector<const float> gradient(double scale) const;

 private:
  std::int64_t num_experts_;
  double num_rows_ = 0;  ///< rows of this rank, then of all ranks
  kernel::Vector<double> probability_sum_;
  kernel::Vector<double> chosen_count_;
  std::vector<double> chosen_share_;  ///< f_e over all ranks
  double loss_ = 0.0;
};

}  // namespace tessera::moe
