// SPDX-License-Identifier: Apache-2.0
// RMSNorm forward and backward with Kokkos, one team per row.
#include "kernel/rms_norm.hpp"

#include <cmath>

#include "base/contract.hpp"
#include "kernel/rows_loop.hpp"

namespace tessera::kernel {
namespace {

/// y, and the same as T in `rounded` unless that is empty.
template <class T, class TY>
void normalize_rows(const Execution& execution, Matrix<const float> x, Vector<const T> weight,
                    float epsilon, Matrix<TY> y, Matrix<T> rounded, Vector<float> rstd) {
  if (x.extent(0) == 0) return;
  TESSERA_EXPECT(weight.extent(0) == x.extent(1) && y.extent(1) == x.extent(1));
  TESSERA_EXPECT(y.extent(0) == x.extent(0) && rstd.extent(0) == x.extent(0));
  TESSERA_EXPECT(rounded.size() == 0 || rounded.size() == x.size());
  const std::int64_t columns = x.extent(1);
  const bool rounds = rounded.size() > 0;
  Kokkos::parallel_for(
      "tessera::rms_norm_forward", team_per_row(execution, x.extent(0), columns),
      KOKKOS_LAMBDA(const Team::member_type& member) {
        const std::int64_t t = member.league_rank();
        float squares = 0.0f;
        Kokkos::parallel_reduce(
            Kokkos::TeamVectorRange(member, columns),
            [&](const std::int64_t c, float& partial) { partial += x(t, c) * x(t, c); }, squares);
        const float r = 1.0f / std::sqrt(squares / static_cast<float>(columns) + epsilon);
        Kokkos::parallel_for(Kokkos::TeamVectorRange(member, columns), [&](const std::int64_t c) {
          y(t, c) = static_cast<TY>(x(t, c) * r * static_cast<float>(weight(c)));
        });
        if (rounds) {
          Kokkos::parallel_for(Kokkos::TeamVectorRange(member, columns), [&](const std::int64_t c) {
            rounded(t, c) = static_cast<T>(x(t, c) * r * static_cast<float>(weight(c)));
          });
        }
        Kokkos::single(Kokkos::PerTeam(member), [&]() { rstd(t) = r; });
      });
}

}  // namespace

template <class T, class TY>
void rms_norm_forward(const Execution& execution, Matrix<const float> x, Vector<const T> weight,
                      float epsilon, Matrix<TY> y, Vector<float> rstd) {
  normalize_rows<T, TY>(execution, x, weight, epsilon, y, Matrix<T>(), rstd);
}

template <class T>
void rms_norm_forward(const Execution& execution, Matrix<const float> x, Vector<const T> weight,
                      float epsilon, Matrix<float> y, Matrix<T> rounded, Vector<float> rstd) {
  normalize_rows<T, float>(execution, x, weight, epsilon, y, rounded, rstd);
}

template <class T>
void rms_norm_backward(const Execution& execution, Matrix<const float> dy, Matrix<const float> x,
                       Vector<const T> weight, Vector<const float> rstd, Matrix<float> dx,
                       Vector<float> dweight) {
  if (x.extent(0) == 0) return;
  TESSERA_EXPECT(dy.extent(0) == x.extent(0) && dx.extent(0) == x.extent(0));
  TESSERA_EXPECT(weight.extent(0) == x.extent(1) && dweight.extent(0) == x.extent(1));
  const std::int64_t columns = x.extent(1);
  Kokkos::parallel_for(
      "tessera::rms_norm_backward", team_per_row(execution, x.extent(0), columns),
      KOKKOS_LAMBDA(const Team::member_type& member) {
        const std::int64_t t = member.league_rank();
        float dot = 0.0f;
        Kokkos::parallel_reduce(
            Kokkos::TeamVectorRange(member, columns),
            [&](const std::int64_t c, float& partial) {
              partial += static_cast<float>(weight(c)) * dy(t, c) * x(t, c);
            },
            dot);
        const float r = rstd(t);
        const float correction = r * r * r * dot / static_cast<float>(columns);
        Kokkos::parallel_for(Kokkos::TeamVectorRange(member, columns), [&](const std::int64_t c) {
          dx(t, c) += r * static_cast<float>(weight(c)) * dy(t, c) - x(t, c) * correction;
        });
      });
  const auto weight_gradient = KOKKOS_LAMBDA(const std::int64_t t, const std::int64_t c) {
    return dy(t, c) * x(t, c) * rstd(t);
  };
  add_sums_over_rows<float>("tessera::rms_norm_dweight", execution, x.extent(0), columns,
                            weight_gradient, dweight);
}

#define TESSERA_INSTANTIATE(T)                                                                     \
  template void rms_norm_forward<T, float>(const Execution&, Matrix<const float>, Vector<const T>, \
                                           float, Matrix<float>, Vector<float>);                   \
  template void rms_norm_forward<T, bf16>(const Execution&, Matrix<const float>, Vector<const T>,  \
                                          float, Matrix<bf16>, Vector<float>);                     \
  template void rms_norm_forward<T>(const Execution&, Matrix<const float>, Vector<const T>, float, \
                                    Matrix<float>, Matrix<T>, Vector<float>);                      \
  template void rms_norm_backward<T>(const Execution&, Matrix<const float>, Matrix<const float>,   \
                                     Vector<const T>, Vector<const float>, Matrix<float>,          \
                                     Vector<float>);
TESSERA_INSTANTIATE(float)
TESSERA_INSTANTIATE(bf16)
#undef TESSERA_INSTANTIATE

}  // namespace tessera::kernel
