// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <cmath>
#include <tessera/zero3/grad_norm.hpp>

#include "kernel/rows.hpp"

namespace tessera::zero3 {

template <class T>
GradNorm global_grad_norm(const comm::Communicator& world, const ParameterStore<T>& store,
                          bool local_failure) {
  std::array<double, 2> sums{0.0, local_failure ? 1.0 : 0.0};
  for (std::size_t i = 0; i < store.num_units(); ++i) {
    sums[0] += kernel::sum_of_squares(kernel::Execution(), store.unit(i).gradient());
  }
  world.all_reduce("gradient norm", std::span<double>(sums), comm::ReduceOp::sum);
  return {std::sqrt(sums[0]), sums[1]};
}

double clip_factor(double norm, double max_norm) {
  return max_norm > 0.0 ? std::min(1.0, max_norm / (norm + 1e-6)) : 1.0;
}

template GradNorm global_grad_norm(const comm::Communicator&, const ParameterStore<float>&, bool);
template GradNorm global_grad_norm(const comm::Communicator&, const ParameterStore<bf16>&, bool);

}  // namespace tessera::zero3
