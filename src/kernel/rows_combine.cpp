// SPDX-License-Identifier: Apache-2.0
// Weighted sums of expert rows per token, and their backward, with Kokkos.
#include "base/contract.hpp"
#include "kernel/rows.hpp"

namespace tessera::kernel {

template <class T>
void combine_rows(const Execution& execution, Matrix<const T> rows, Matrix<const std::int32_t> slot,
                  Matrix<const float> weight, Matrix<float> y) {
  if (y.size() == 0) return;
  TESSERA_EXPECT(slot.extent(0) == y.extent(0) && weight.extent(0) == y.extent(0));
  const std::int64_t columns = y.extent(1);
  const std::int64_t choices = slot.extent(1);
  Kokkos::parallel_for(
      "tessera::combine_rows", Team(execution, static_cast<int>(y.extent(0)), Kokkos::AUTO),
      KOKKOS_LAMBDA(const Team::member_type& member) {
        const std::int64_t t = member.league_rank();
        for (std::int64_t k = 0; k < choices; ++k) {
          const std::int64_t r = slot(t, k);
          const float w = weight(t, k);
          Kokkos::parallel_for(Kokkos::TeamVectorRange(member, columns), [&](const std::int64_t c) {
            y(t, c) += w * static_cast<float>(rows(r, c));
          });
        }
      });
}

template <class T>
void combine_rows_backward(const Execution& execution, Matrix<const float> dy, Matrix<const T> rows,
                           Matrix<const std::int32_t> slot, Matrix<const float> weight,
                           Matrix<T> drows, Matrix<float> dweight) {
  if (dweight.size() == 0) return;
  TESSERA_EXPECT(slot.extent(0) == dy.extent(0) && weight.extent(0) == dy.extent(0));
  const std::int64_t columns = dy.extent(1);
  const std::int64_t choices = slot.extent(1);
  Kokkos::parallel_for(
      "tessera::combine_rows_backward",
      Team(execution, static_cast<int>(dy.extent(0)), Kokkos::AUTO),
      KOKKOS_LAMBDA(const Team::member_type& member) {
        const std::int64_t t = member.league_rank();
        for (std::int64_t k = 0; k < choices; ++k) {
          const std::int64_t r = slot(t, k);
          const float w = weight(t, k);
          float dot = 0.0f;
          Kokkos::parallel_reduce(
              Kokkos::TeamVectorRange(member, columns),
              [&](const std::int64_t c, float& partial) {
                const float gradient = dy(t, c);
                partial += gradient * static_cast<float>(rows(r, c));
                drows(r, c) = static_cast<T>(w * gradient);
              },
              dot);
          Kokkos::single(Kokkos::PerTeam(member), [&]() { dweight(t, k) = dot; });
        }
      });
}

template <class T>
void sum_rows(const Execution& execution, Matrix<const T> rows, Matrix<const std::int32_t> slot,
              Matrix<float> dx) {
  if (dx.size() == 0) return;
  TESSERA_EXPECT(slot.extent(0) == dx.extent(0));
  const std::int64_t columns = dx.extent(1);
  const std::int64_t choices = slot.extent(1);
  Kokkos::parallel_for(
      "tessera::sum_rows", Team(execution, static_cast<int>(dx.extent(0)), Kokkos::AUTO),
      KOKKOS_LAMBDA(const Team::member_type& member) {
        const std::int64_t t = member.league_rank();
        for (std::int64_t k = 0; k < choices; ++k) {
          const std::int64_t r = slot(t, k);
          Kokkos::parallel_for(Kokkos::TeamVectorRange(member, columns), [&](const std::int64_t c) {
            dx(t, c) += static_cast<float>(rows(r, c));
          });
        }
      });
}

#define TESSERA_INSTANTIATE(T)                                                                   \
  template void combine_rows<T>(const Execution&, Matrix<const T>, Matrix<const std::int32_t>,   \
                                Matrix<const float>, Matrix<float>);                             \
  template void combine_rows_backward<T>(const Execution&, Matrix<const float>, Matrix<const T>, \
                                         Matrix<const std::int32_t>, Matrix<const float>,        \
                                         Matrix<T>, Matrix<float>);                              \
  template void sum_rows<T>(const Execution&, Matrix<const T>, Matrix<const std::int32_t>,       \
                            Matrix<float>);
TESSERA_INSTANTIATE(float)
TESSERA_INSTANTIATE(bf16)
#undef TESSERA_INSTANTIATE

}  // namespace tessera::kernel
