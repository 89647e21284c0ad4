// SPDX-License-Identifier: Apache-2.0
// Rows gathered, combined and summed where they lie, with Kokkos, one team per row or token.
#include "kernel/addressed_rows.hpp"

#include "base/contract.hpp"
#include "kernel/launch.hpp"

namespace tessera::kernel {

template <class T>
RowAddresses<T> addresses_of(const Execution& execution, Matrix<T> rows) {
  const auto addresses = new_vector<RowAddress<T>>("row addresses", rows.extent(0));
  T* const first = rows.data();
  const std::int64_t columns = rows.extent(1);
  Kokkos::parallel_for(
      "tessera::addresses_of", Range(execution, 0, rows.extent(0)),
      KOKKOS_LAMBDA(const std::int64_t r) { addresses(r).first = first + r * columns; });
  return addresses;
}

template <class T>
void gather_rows(const Execution& execution, RowAddresses<const T> source, Matrix<T> destination) {
  TESSERA_EXPECT(source.extent(0) == destination.extent(0));
  if (destination.size() == 0) return;
  const std::int64_t columns = destination.extent(1);
  Kokkos::parallel_for(
      "tessera::gather_addressed_rows", team_per_row(execution, destination.extent(0), columns),
      KOKKOS_LAMBDA(const Team::member_type& member) {
        const std::int64_t r = member.league_rank();
        const T* from = source(r).first;
        T* to = &destination(r, 0);
        Kokkos::parallel_for(Kokkos::TeamVectorRange(member, columns),
                             [&](const std::int64_t c) { to[c] = from[c]; });
      });
}

template <class T>
void combine_rows(const Execution& execution, RowAddresses<const T> rows,
                  Matrix<const std::int32_t> slot, Matrix<const float> weight,
                  Matrix<const float> x, Matrix<float> y, Matrix<T> kept) {
  if (y.size() == 0) return;
  TESSERA_EXPECT(slot.extent(0) == y.extent(0) && weight.extent(0) == y.extent(0));
  TESSERA_EXPECT(x.extent(0) == y.extent(0) && x.extent(1) == y.extent(1));
  TESSERA_EXPECT(kept.size() == 0 || kept.extent(0) == rows.extent(0));
  const std::int64_t columns = y.extent(1);
  const std::int64_t choices = slot.extent(1);
  const bool keeps = kept.size() > 0, in_place = x.data() == y.data();
  Kokkos::parallel_for(
      "tessera::combine_addressed_rows", team_per_row(execution, y.extent(0), columns),
      KOKKOS_LAMBDA(const Team::member_type& member) {
        const std::int64_t t = member.league_rank();
        float* sum = &y(t, 0);
        if (!in_place) {
          Kokkos::parallel_for(Kokkos::TeamVectorRange(member, columns),
                               [&](const std::int64_t c) { sum[c] = x(t, c); });
        }
        for (std::int64_t k = 0; k < choices; ++k) {
          const std::int64_t r = slot(t, k);
          const T* row = rows(r).first;
          const float w = weight(t, k);
          Kokkos::parallel_for(Kokkos::TeamVectorRange(member, columns), [&](const std::int64_t c) {
            sum[c] += w * static_cast<float>(row[c]);
          });
          if (!keeps) continue;
          T* copy = &kept(r, 0);
          Kokkos::parallel_for(Kokkos::TeamVectorRange(member, columns),
                               [&](const std::int64_t c) { copy[c] = row[c]; });
        }
      });
}

template <class T>
void combine_rows_backward(const Execution& execution, Matrix<const float> dy, Matrix<const T> rows,
                           Matrix<const std::int32_t> slot, Matrix<const float> weight,
                           RowAddresses<T> drows, Matrix<float> dweight) {
  if (dweight.size() == 0) return;
  TESSERA_EXPECT(slot.extent(0) == dy.extent(0) && weight.extent(0) == dy.extent(0));
  TESSERA_EXPECT(rows.extent(0) == drows.extent(0) && rows.extent(1) == dy.extent(1));
  const std::int64_t columns = dy.extent(1);
  const std::int64_t choices = slot.extent(1);
  Kokkos::parallel_for(
      "tessera::combine_addressed_rows_backward", team_per_row(execution, dy.extent(0), columns),
      KOKKOS_LAMBDA(const Team::member_type& member) {
        const std::int64_t t = member.league_rank();
        const float* gradient = &dy(t, 0);
        for (std::int64_t k = 0; k < choices; ++k) {
          const std::int64_t r = slot(t, k);
          const T* row = &rows(r, 0);
          T* drow = drows(r).first;
          const float w = weight(t, k);
          float dot = 0.0f;
          Kokkos::parallel_reduce(
              Kokkos::TeamVectorRange(member, columns),
              [&](const std::int64_t c, float& partial) {
                partial += gradient[c] * static_cast<float>(row[c]);
                drow[c] = static_cast<T>(w * gradient[c]);
              },
              dot);
          Kokkos::single(Kokkos::PerTeam(member), [&]() { dweight(t, k) = dot; });
        }
      });
}

template <class T>
void sum_rows(const Execution& execution, RowAddresses<const T> rows,
              Matrix<const std::int32_t> slot, Matrix<float> dx) {
  if (dx.size() == 0) return;
  TESSERA_EXPECT(slot.extent(0) == dx.extent(0));
  const std::int64_t columns = dx.extent(1);
  const std::int64_t choices = slot.extent(1);
  Kokkos::parallel_for(
      "tessera::sum_addressed_rows", team_per_row(execution, dx.extent(0), columns),
      KOKKOS_LAMBDA(const Team::member_type& member) {
        const std::int64_t t = member.league_rank();
        float* sum = &dx(t, 0);
        for (std::int64_t k = 0; k < choices; ++k) {
          const T* row = rows(slot(t, k)).first;
          Kokkos::parallel_for(Kokkos::TeamVectorRange(member, columns),
                               [&](const std::int64_t c) { sum[c] += static_cast<float>(row[c]); });
        }
      });
}

#define TESSERA_INSTANTIATE(T)                                                                   \
  template RowAddresses<T> addresses_of<T>(const Execution&, Matrix<T>);                         \
  template RowAddresses<const T> addresses_of<const T>(const Execution&, Matrix<const T>);       \
  template void gather_rows<T>(const Execution&, RowAddresses<const T>, Matrix<T>);              \
  template void combine_rows<T>(const Execution&, RowAddresses<const T>,                         \
                                Matrix<const std::int32_t>, Matrix<const float>,                 \
                                Matrix<const float>, Matrix<float>, Matrix<T>);                  \
  template void combine_rows_backward<T>(const Execution&, Matrix<const float>, Matrix<const T>, \
                                         Matrix<const std::int32_t>, Matrix<const float>,        \
                                         RowAddresses<T>, Matrix<float>);                        \
  template void sum_rows<T>(const Execution&, RowAddresses<const T>, Matrix<const std::int32_t>, \
                            Matrix<float>);
TESSERA_INSTANTIATE(float)
TESSERA_INSTANTIATE(bf16)
#undef TESSERA_INSTANTIATE

}  // namespace tessera::kernel
