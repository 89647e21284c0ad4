// SPDX-License-Identifier: Apache-2.0
// The two loop shapes that nearly all row kernels share: over the elements of a matrix, and over
// its columns with a fixed order of summation.
#pragma once

#include <cstdint>

#include "kernel/launch.hpp"

namespace tessera::kernel {

/// Calls body(r, c) for each element of a rows x columns matrix, neighbouring c on neighbouring
/// lanes. local.
template <class Body>
void for_each_element(const char* label, const Execution& execution, std::int64_t rows,
                      std::int64_t columns, const Body& body) {
  if (rows == 0 || columns == 0) return;
  Kokkos::parallel_for(
      label, team_per_row(execution, rows, columns),
      KOKKOS_LAMBDA(const Team::member_type& member) {
        const std::int64_t r = member.league_rank();
        Kokkos::parallel_for(Kokkos::TeamVectorRange(member, columns),
                             [&](const std::int64_t c) { body(r, c); });
      });
}

/// sum[c] += sum over rows r of value(r, c). local. Rows are summed in blocks and the blocks in
/// order, so the result depends on the shape alone, not on the number of threads.
template <class Accumulator, class Value>
void add_sums_over_rows(const char* label, const Execution& execution, std::int64_t rows,
                        std::int64_t columns, const Value& value, Vector<Accumulator> sum) {
  constexpr std::int64_t row_block = 128;
  constexpr std::int64_t column_block = 512;  // of the partial sums, so that they stay in L1
  if (rows == 0 || columns == 0) return;
  const std::int64_t row_blocks = (rows + row_block - 1) / row_block;
  const std::int64_t column_blocks = (columns + column_block - 1) / column_block;
  const auto partial = new_zero_matrix<Accumulator>(execution, "partial sums", row_blocks, columns);
  Kokkos::parallel_for(
      label, team_per_row(execution, row_blocks * column_blocks, column_block),
      KOKKOS_LAMBDA(const Team::member_type& member) {
        const std::int64_t block = member.league_rank() / column_blocks;
        const std::int64_t first = member.league_rank() % column_blocks * column_block;
        const std::int64_t last = first + column_block < columns ? first + column_block : columns;
        const std::int64_t row_begin = block * row_block;
        const std::int64_t row_end = row_begin + row_block < rows ? row_begin + row_block : rows;
        // A column stays on one lane for all rows, so the lanes need no barrier between rows.
        for (std::int64_t r = row_begin; r < row_end; ++r) {
          Kokkos::parallel_for(Kokkos::TeamVectorRange(member, first, last),
                               [&](const std::int64_t c) { partial(block, c) += value(r, c); });
        }
      });
  Kokkos::parallel_for(
      label, Range(execution, 0, columns), KOKKOS_LAMBDA(const std::int64_t c) {
        Accumulator total = 0;
        for (std::int64_t block = 0; block < row_blocks; ++block) total += partial(block, c);
        sum(c) += total;
      });
}

}  // namespace tessera::kernel
