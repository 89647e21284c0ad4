// SPDX-License-Identifier: Apache-2.0
#include <tessera/model/mlp_block.hpp>

#include "kernel/rms_norm.hpp"
#include "kernel/rows.hpp"

namespace tessera::model {
namespace {

constexpr const char* norm = "post_attention_layernorm.weight";

}  // namespace

template <class T>
kernel::Matrix<float> MlpBlock<T>::forward(const UnitView<const T>& weights,
                                           kernel::Matrix<float> x, MlpBlockSaved<T>& saved) const {
  saved = {x,
           kernel::new_vector<float>("mlp rstd", x.extent(0)),
           kernel::new_matrix<T>("mlp normed", x.extent(0), x.extent(1)),
           {}};
  kernel::rms_norm_forward<T, T>(execution_, x, weights.vector(norm, config_.hidden_size),
                                 static_cast<float>(config_.rms_norm_epsilon), saved.normed,
                                 saved.rstd);
  const auto y = kernel::new_matrix<float>("layer output", x.extent(0), x.extent(1));
  Kokkos::deep_copy(execution_, y, x);
  mlp_.forward(weights, saved.normed, saved.mlp, y);
  return y;
}

template <class T>
void MlpBlock<T>::backward(const UnitView<const T>& weights, const MlpBlockSaved<T>& saved,
                           const UnitView<float>& gradients, kernel::Matrix<float> dx) const {
  const auto dnormed =
      kernel::new_zero_matrix<float>(execution_, "mlp dnormed", dx.extent(0), dx.extent(1));
  mlp_.backward(weights, saved.mlp, saved.normed, kernel::as_type<T>(execution_, dx), gradients,
                dnormed);
  kernel::rms_norm_backward<T>(execution_, dnormed, saved.x,
                               weights.vector(norm, config_.hidden_size), saved.rstd, dx,
                               gradients.vector(norm, config_.hidden_size));
}

template class MlpBlock<float>;
template class MlpBlock<bf16>;

}  // namespace tessera::model
