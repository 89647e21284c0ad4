// SPDX-License-Identifier: Apache-2.0
#include "kernel/sort_by_key.hpp"

#include <algorithm>

#include "base/contract.hpp"

namespace tessera::kernel {
namespace {

/// Of a device with more threads than elements, each thread takes so many.
constexpr std::int64_t least_part = 64;

std::int64_t part_size(const Execution& execution, std::int64_t size) {
  const auto num_threads = static_cast<std::int64_t>(execution.concurrency());
  return std::max(least_part, (size + num_threads - 1) / num_threads);
}

void count_parts(const Execution& execution, Vector<const std::int32_t> keys, std::int64_t part,
                 Matrix<std::int32_t> next) {
  const std::int64_t size = keys.extent(0), num_keys = next.extent(1);
  Kokkos::parallel_for(
      "tessera::count_keys", Range(execution, 0, next.extent(0)),
      KOKKOS_LAMBDA(const std::int64_t p) {
        std::int32_t* const mine = &next(p, 0);
        for (std::int64_t k = 0; k < num_keys; ++k) mine[k] = 0;
        const std::int64_t end = (p + 1) * part < size ? (p + 1) * part : size;
        for (std::int64_t i = p * part; i < end; ++i) ++mine[keys(i)];
      });
}

/// Counts become places: those of smaller keys come before, then those of earlier parts.
void place_parts(const Execution& execution, const KeyCounts& counts) {
  const auto next = counts.next;
  const auto count = counts.count;
  const std::int64_t num_parts = next.extent(0);
  Kokkos::parallel_for(
      "tessera::sum_parts_of_keys", Range(execution, 0, count.extent(0)),
      KOKKOS_LAMBDA(const std::int64_t k) {
        std::int64_t sum = 0;
        for (std::int64_t p = 0; p < num_parts; ++p) sum += next(p, k);
        count(k) = sum;
      });
  Kokkos::parallel_scan(
      "tessera::place_keys", Range(execution, 0, count.extent(0)),
      KOKKOS_LAMBDA(const std::int64_t k, std::int64_t& before, const bool is_final) {
        std::int64_t place = before;
        for (std::int64_t p = 0; is_final && p < num_parts; ++p) {
          const std::int32_t here = next(p, k);
          next(p, k) = static_cast<std::int32_t>(place);
          place += here;
        }
        before += count(k);
      });
}

}  // namespace

KeyCounts count_keys(const Execution& execution, Vector<const std::int32_t> keys,
                     std::int64_t num_keys) {
  const std::int64_t size = keys.extent(0), part = part_size(execution, size);
  const std::int64_t num_parts = (size + part - 1) / part;
  KeyCounts counts{new_vector<std::int64_t>("key counts", num_keys),
                   new_matrix<std::int32_t>("key places", num_parts, num_keys)};
  if (num_parts > 0) count_parts(execution, keys, part, counts.next);
  place_parts(execution, counts);
  return counts;
}

void sort_by_key(const Execution& execution, Vector<const std::int32_t> keys,
                 const KeyCounts& counts, std::int64_t group_size, Vector<std::int32_t> position,
                 Vector<std::int32_t> group) {
  const std::int64_t size = keys.extent(0), part = part_size(execution, size);
  TESSERA_EXPECT(position.size() == keys.size() && group.size() == keys.size());
  const auto next = counts.next;
  Kokkos::parallel_for(
      "tessera::sort_by_key", Range(execution, 0, next.extent(0)),
      KOKKOS_LAMBDA(const std::int64_t p) {
        std::int32_t* const mine = &next(p, 0);
        const std::int64_t end = (p + 1) * part < size ? (p + 1) * part : size;
        for (std::int64_t i = p * part; i < end; ++i) {
          const std::int32_t place = mine[keys(i)]++;
          position(i) = place;
          group(place) = static_cast<std::int32_t>(i / group_size);
        }
      });
}

void number_blocks(const Execution& execution, Vector<const std::int32_t> to,
                   Vector<const std::int32_t> from, Vector<const std::int32_t> size,
                   Vector<std::int32_t> numbers) {
  if (numbers.extent(0) == 0) return;
  Kokkos::parallel_for(
      "tessera::number_blocks", Team(execution, static_cast<int>(to.extent(0)), Kokkos::AUTO),
      KOKKOS_LAMBDA(const Team::member_type& team) {
        const auto b = team.league_rank();
        const std::int64_t count = size(b);
        Kokkos::parallel_for(Kokkos::TeamVectorRange(team, count), [&](const std::int64_t i) {
          numbers(to(b) + i) = static_cast<std::int32_t>(from(b) + i);
        });
      });
}

}  // namespace tessera::kernel
