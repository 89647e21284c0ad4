// SPDX-License-Identifier: Apache-2.0
// Elementwise and row operations with Kokkos: conversion, bias, sums over rows, gather and scatter.
#include "kernel/rows.hpp"

#include "base/contract.hpp"
#include "kernel/ordered_sum.hpp"
#include "kernel/rows_loop.hpp"

namespace tessera::kernel {

template <class TS, class TD>
void convert(const Execution& execution, Vector<const TS> source, Vector<TD> destination) {
  TESSERA_EXPECT(source.extent(0) == destination.extent(0));
  Kokkos::parallel_for(
      "tessera::convert", Range(execution, 0, source.extent(0)),
      KOKKOS_LAMBDA(const std::int64_t i) {
        destination(i) = static_cast<TD>(static_cast<float>(source(i)));
      });
}

void add(const Execution& execution, Vector<const float> source, Vector<float> destination) {
  TESSERA_EXPECT(source.extent(0) == destination.extent(0));
  Kokkos::parallel_for(
      "tessera::add", Range(execution, 0, source.extent(0)),
      KOKKOS_LAMBDA(const std::int64_t i) { destination(i) += source(i); });
}

template <class T>
void add_row_bias(const Execution& execution, Vector<const std::int32_t> row_expert,
                  Matrix<const T> bias, Matrix<float> x) {
  if (bias.size() == 0) return;
  TESSERA_EXPECT(row_expert.extent(0) == x.extent(0) && bias.extent(1) == x.extent(1));
  for_each_element(
      "tessera::add_row_bias", execution, x.extent(0), x.extent(1),
      KOKKOS_LAMBDA(const std::int64_t r, const std::int64_t c) {
        x(r, c) += static_cast<float>(bias(row_expert(r), c));
      });
}

template <class T>
void add_bias(const Execution& execution, Vector<const T> bias, Matrix<float> x) {
  if (bias.extent(0) == 0) return;
  TESSERA_EXPECT(bias.extent(0) == x.extent(1));
  for_each_element(
      "tessera::add_bias", execution, x.extent(0), x.extent(1),
      KOKKOS_LAMBDA(const std::int64_t r, const std::int64_t c) {
        x(r, c) += static_cast<float>(bias(c));
      });
}

template <class T>
void add_column_sums(const Execution& execution, Matrix<const T> x, Vector<float> sum) {
  if (x.extent(0) == 0) return;
  if (sum.extent(0) == 0) return;
  TESSERA_EXPECT(x.extent(1) == sum.extent(0));
  const auto value = KOKKOS_LAMBDA(const std::int64_t r, const std::int64_t c) {
    return static_cast<float>(x(r, c));
  };
  add_sums_over_rows<float>("tessera::add_column_sums", execution, x.extent(0), x.extent(1), value,
                            sum);
}

template <class TS, class TD>
void gather_rows(const Execution& execution, Matrix<const TS> source,
                 Vector<const std::int32_t> index, Matrix<TD> destination) {
  TESSERA_EXPECT(index.extent(0) == destination.extent(0));
  for_each_element(
      "tessera::gather_rows", execution, destination.extent(0), destination.extent(1),
      KOKKOS_LAMBDA(const std::int64_t r, const std::int64_t c) {
        destination(r, c) = static_cast<TD>(static_cast<float>(source(index(r), c)));
      });
}

template <class T>
void gather_rows_within(const Execution& execution, Matrix<const T> source, std::int64_t first,
                        Vector<const std::int32_t> index, Matrix<float> destination) {
  TESSERA_EXPECT(index.extent(0) == destination.extent(0));
  const std::int64_t rows = source.extent(0), columns = destination.extent(1);
  if (destination.size() == 0) return;
  Kokkos::parallel_for(
      "tessera::gather_rows_within",
      Team(execution, static_cast<int>(destination.extent(0)), Kokkos::AUTO),
      KOKKOS_LAMBDA(const Team::member_type& member) {
        const std::int64_t r = member.league_rank(), from = index(r) - first;
        if (from < 0 || from >= rows) return;
        Kokkos::parallel_for(Kokkos::TeamVectorRange(member, columns), [&](const std::int64_t c) {
          destination(r, c) = static_cast<float>(source(from, c));
        });
      });
}

template <class T>
void scatter_rows(const Execution& execution, Matrix<const T> source,
                  Vector<const std::int32_t> index, Matrix<T> destination) {
  TESSERA_EXPECT(index.extent(0) == source.extent(0));
  for_each_element(
      "tessera::scatter_rows", execution, source.extent(0), source.extent(1),
      KOKKOS_LAMBDA(const std::int64_t r, const std::int64_t c) {
        destination(index(r), c) = source(r, c);
      });
}

void scatter_add_rows(const Execution& execution, Matrix<const float> source,
                      Vector<const std::int32_t> index, std::int32_t skipped_index,
                      std::int64_t first_row, Matrix<float> destination) {
  TESSERA_EXPECT(index.extent(0) == source.extent(0));
  constexpr std::int64_t column_block = 512;
  const std::int64_t rows = source.extent(0);
  const std::int64_t columns = source.extent(1);
  const std::int64_t destination_rows = destination.extent(0);
  if (rows == 0 || columns == 0) return;
  // A bucket owns the destination rows d with d % buckets == bucket and adds to each in the order
  // of the source rows: the result does not depend on the number of buckets.
  const std::int64_t buckets = execution.concurrency() > 1 ? 64 : 1;
  const std::int64_t column_blocks = (columns + column_block - 1) / column_block;
  Kokkos::parallel_for(
      "tessera::scatter_add_rows", team_per_row(execution, buckets * column_blocks, column_block),
      KOKKOS_LAMBDA(const Team::member_type& member) {
        const std::int64_t bucket = member.league_rank() / column_blocks;
        const std::int64_t first = member.league_rank() % column_blocks * column_block;
        const std::int64_t last = first + column_block < columns ? first + column_block : columns;
        for (std::int64_t r = 0; r < rows; ++r) {
          const std::int64_t d = index(r) - first_row;
          if (d < 0 || d >= destination_rows) continue;
          if (d % buckets != bucket || index(r) == skipped_index) continue;
          Kokkos::parallel_for(Kokkos::TeamVectorRange(member, first, last),
                               [&](const std::int64_t c) { destination(d, c) += source(r, c); });
        }
      });
}

void clamp(const Execution& execution, float limit, Matrix<const float> x, Matrix<float> y) {
  TESSERA_EXPECT(x.extent(0) == y.extent(0) && x.extent(1) == y.extent(1));
  for_each_element(
      "tessera::clamp", execution, x.extent(0), x.extent(1),
      KOKKOS_LAMBDA(const std::int64_t r, const std::int64_t c) {
        const float below = x(r, c) > limit ? limit : x(r, c);
        y(r, c) = below < -limit ? -limit : below;
      });
}

void clamp_backward(const Execution& execution, float limit, Matrix<const float> x,
                    Matrix<float> dx) {
  TESSERA_EXPECT(x.extent(0) == dx.extent(0) && x.extent(1) == dx.extent(1));
  for_each_element(
      "tessera::clamp_backward", execution, x.extent(0), x.extent(1),
      KOKKOS_LAMBDA(const std::int64_t r, const std::int64_t c) {
        dx(r, c) = x(r, c) > limit || x(r, c) < -limit ? 0.0f : dx(r, c);
      });
}

double sum_of_squares(const Execution& execution, Vector<const float> x) {
  constexpr std::int64_t block_size = 4096;
  const std::int64_t size = x.extent(0);
  if (size == 0) return 0.0;
  const std::int64_t num_blocks = (size + block_size - 1) / block_size;
  const auto sums = new_vector<double>("sums of squares", num_blocks);
  Kokkos::parallel_for(
      "tessera::sum_of_squares", team_per_row(execution, num_blocks, block_size),
      KOKKOS_LAMBDA(const Team::member_type& member) {
        const std::int64_t begin = member.league_rank() * block_size;
        const std::int64_t end = begin + block_size < size ? begin + block_size : size;
        double sum = 0.0;
        Kokkos::parallel_reduce(
            Kokkos::TeamVectorRange(member, begin, end),
            [&](const std::int64_t i, double& partial) {
              const double value = x(i);
              partial += value * value;
            },
            sum);
        Kokkos::single(Kokkos::PerTeam(member), [&]() { sums(member.league_rank()) = sum; });
      });
  return ordered_sum(execution, sums);
}

template void convert<float, float>(const Execution&, Vector<const float>, Vector<float>);
template void convert<float, bf16>(const Execution&, Vector<const float>, Vector<bf16>);
template void convert<bf16, float>(const Execution&, Vector<const bf16>, Vector<float>);
template void convert<bf16, bf16>(const Execution&, Vector<const bf16>, Vector<bf16>);

#define TESSERA_INSTANTIATE(T)                                                                 \
  template void add_row_bias<T>(const Execution&, Vector<const std::int32_t>, Matrix<const T>, \
                                Matrix<float>);                                                \
  template void add_bias<T>(const Execution&, Vector<const T>, Matrix<float>);                 \
  template void add_column_sums<T>(const Execution&, Matrix<const T>, Vector<float>);          \
  template void gather_rows<T, float>(const Execution&, Matrix<const T>,                       \
                                      Vector<const std::int32_t>, Matrix<float>);              \
  template void gather_rows<T, bf16>(const Execution&, Matrix<const T>,                        \
                                     Vector<const std::int32_t>, Matrix<bf16>);                \
  template void gather_rows_within<T>(const Execution&, Matrix<const T>, std::int64_t,         \
                                      Vector<const std::int32_t>, Matrix<float>);              \
  template void scatter_rows<T>(const Execution&, Matrix<const T>, Vector<const std::int32_t>, \
                                Matrix<T>);
TESSERA_INSTANTIATE(float)
TESSERA_INSTANTIATE(bf16)
#undef TESSERA_INSTANTIATE

}  // namespace tessera::kernel
