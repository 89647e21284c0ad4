// SPDX-License-Identifier: Apache-2.0
#include <tessera/model/mlp.hpp>

#include "kernel/gemm.hpp"
#include "kernel/rows.hpp"
#include "kernel/swiglu.hpp"

namespace tessera::model {
namespace {

using kernel::Into;
using kernel::operand;
using kernel::Operand;

/// Columns [half * I, (half + 1) * I) of [N, 2I].
template <class T>
Operand<T> half_of(const kernel::Matrix<T>& matrix, std::int64_t half) {
  const std::int64_t width = matrix.extent(1) / 2;
  return {matrix.data() + half * width, static_cast<std::int64_t>(matrix.extent(0)), width,
          2 * width};
}

constexpr kernel::Swiglu swiglu{kernel::Activation::swiglu};
constexpr const char* halves[] = {"gate_proj", "up_proj"};

template <class T>
kernel::Vector<T> half_of(const kernel::Vector<T>& vector, std::int64_t half) {
  const std::int64_t width = vector.extent(0) / 2;
  return kernel::Vector<T>(vector.data() + half * width, width);
}

}  // namespace

template <class T>
void Mlp<T>::add_hidden_bias(const UnitView<const T>& weights, kernel::Matrix<float> hidden) const {
  if (!weights.has(name(halves[0], ".bias"))) return;
  const auto bias = kernel::new_vector<T>("gate and up bias", 2 * intermediate_size_);
  for (std::int64_t half : {0, 1}) {
    Kokkos::deep_copy(execution_, half_of(bias, half),
                      weights.vector(name(halves[half], ".bias"), intermediate_size_));
  }
  kernel::add_bias<T>(execution_, bias, hidden);
}

template <class T>
void Mlp<T>::forward(const UnitView<const T>& weights, kernel::Matrix<const T> x,
                     MlpSaved<T>& saved, kernel::Matrix<float> y) const {
  const std::int64_t num_tokens = x.extent(0), hidden_size = x.extent(1);
  saved = {kernel::new_matrix<float>("mlp hidden", num_tokens, 2 * intermediate_size_),
           kernel::new_matrix<T>("mlp activated", num_tokens, intermediate_size_)};
  for (std::int64_t half : {0, 1}) {
    kernel::gemm<T, float>(
        execution_, operand(x),
        operand(weights.matrix(name(halves[half], ".weight"), intermediate_size_, hidden_size)).t(),
        half_of(saved.hidden, half));
  }
  add_hidden_bias(weights, saved.hidden);
  kernel::swiglu_forward<T>(execution_, swiglu, {}, {}, saved.hidden, saved.activated);
  const kernel::Matrix<const T> activated = saved.activated;
  kernel::gemm<T, float>(
      execution_, operand(activated),
      operand(weights.matrix(name("down_proj", ".weight"), hidden_size, intermediate_size_)).t(),
      operand(y), Into::accumulate);
  const auto bias = weights.vector(name("down_proj", ".bias"), hidden_size);
  if (bias.extent(0) > 0) kernel::add_bias<T>(execution_, bias, y);
}

template <class T>
void Mlp<T>::hidden_bias_gradient(const UnitView<float>& gradients,
                                  kernel::Matrix<const T> dhidden) const {
  if (!gradients.has(name(halves[0], ".bias"))) return;
  const auto sums = kernel::new_zero_vector<float>(execution_, "gate and up bias gradient",
                                                   2 * intermediate_size_);
  kernel::add_column_sums<T>(execution_, dhidden, sums);
  for (std::int64_t half : {0, 1}) {
    kernel::add(execution_, half_of(sums, half),
                gradients.vector(name(halves[half], ".bias"), intermediate_size_));
  }
}

template <class T>
void Mlp<T>::backward(const UnitView<const T>& weights, const MlpSaved<T>& saved,
                      kernel::Matrix<const T> x, kernel::Matrix<const T> dy,
                      const UnitView<float>& gradients, kernel::Matrix<float> dx) const {
  const std::int64_t num_tokens = x.extent(0), hidden_size = x.extent(1);
  const std::int64_t inner = intermediate_size_;
  const std::string down = name("down_proj", ".weight");
  const kernel::Matrix<const T> activated = saved.activated;
  kernel::gemm<T, float>(execution_, operand(dy).t(), operand(activated),
                         operand(gradients.matrix(down, hidden_size, inner)), Into::accumulate);
  const auto dbias = gradients.vector(name("down_proj", ".bias"), hidden_size);
  if (dbias.extent(0) > 0) kernel::add_column_sums<T>(execution_, dy, dbias);
  const auto dactivated = kernel::new_matrix<float>("mlp dactivated", num_tokens, inner);
  kernel::gemm<T, float>(execution_, operand(dy), operand(weights.matrix(down, hidden_size, inner)),
                         operand(dactivated));

  const auto dhidden = kernel::new_matrix<T>("mlp dhidden", num_tokens, 2 * inner);
  kernel::swiglu_backward<T>(execution_, swiglu, saved.hidden, dactivated, dhidden);
  hidden_bias_gradient(gradients, dhidden);
  const kernel::Matrix<const T> dhidden_in = dhidden;
  for (std::int64_t half : {0, 1}) {
    const std::string weight = name(halves[half], ".weight");
    kernel::gemm<T, float>(execution_, half_of(dhidden_in, half).t(), operand(x),
                           operand(gradients.matrix(weight, inner, hidden_size)), Into::accumulate);
    kernel::gemm<T, float>(execution_, half_of(dhidden_in, half),
                           operand(weights.matrix(weight, inner, hidden_size)), operand(dx),
                           Into::accumulate);
  }
}

template class Mlp<float>;
template class Mlp<bf16>;

}  // namespace tessera::model
