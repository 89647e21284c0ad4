// SPDX-License-Identifier: Apache-2.0
#include <tessera/model/projection.hpp>

#include "kernel/gemm.hpp"
#include "kernel/rows.hpp"

namespace tessera::model {

using kernel::Into;
using kernel::operand;

template <class T>
kernel::Matrix<float> project(const kernel::Execution& execution, kernel::Matrix<const T> x,
                              const UnitView<const T>& weights, const std::string& name,
                              std::int64_t out) {
  const auto y = kernel::new_matrix<float>("projected", x.extent(0), out);
  kernel::gemm<T, float>(execution, operand(x),
                         operand(weights.matrix(name + ".weight", out, x.extent(1))).t(),
                         operand(y));
  return y;
}

template <class T>
kernel::Matrix<float> project_biased(const kernel::Execution& execution, kernel::Matrix<const T> x,
                                     const UnitView<const T>& weights, const std::string& name,
                                     std::int64_t out) {
  const auto y = project<T>(execution, x, weights, name, out);
  const auto bias = weights.vector(name + ".bias", out);
  if (bias.extent(0) > 0) kernel::add_bias<T>(execution, bias, y);
  return y;
}

template <class T>
void project_backward(const kernel::Execution& execution, kernel::Matrix<const T> dy,
                      kernel::Matrix<const T> x, const UnitView<const T>& weights,
                      const UnitView<float>& gradients, const std::string& name,
                      kernel::Matrix<float> dx) {
  const std::int64_t out = dy.extent(1), in = x.extent(1);
  kernel::gemm<T, float>(execution, operand(dy).t(), operand(x),
                         operand(gradients.matrix(name + ".weight", out, in)), Into::accumulate);
  const auto dbias = gradients.vector(name + ".bias", out);
  if (dbias.extent(0) > 0) kernel::add_column_sums<T>(execution, dy, dbias);
  kernel::gemm<T, float>(execution, operand(dy), operand(weights.matrix(name + ".weight", out, in)),
                         operand(dx), Into::accumulate);
}

#define TESSERA_INSTANTIATE(T)                                                                     \
  template kernel::Matrix<float> project(const kernel::Execution&, kernel::Matrix<const T>,        \
                                         const UnitView<const T>&, const std::string&,             \
                                         std::int64_t);                                            \
  template kernel::Matrix<float> project_biased(const kernel::Execution&, kernel::Matrix<const T>, \
                                                const UnitView<const T>&, const std::string&,      \
                                                std::int64_t);                                     \
  template void project_backward(const kernel::Execution&, kernel::Matrix<const T>,                \
                                 kernel::Matrix<const T>, const UnitView<const T>&,                \
                                 const UnitView<float>&, const std::string&,                       \
                                 kernel::Matrix<float>);
TESSERA_INSTANTIATE(float)
TESSERA_INSTANTIATE(bf16)
#undef TESSERA_INSTANTIATE

}  // namespace tessera::model
