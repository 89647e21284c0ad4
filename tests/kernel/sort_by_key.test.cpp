// SPDX-License-Identifier: Apache-2.0
#include "kernel/sort_by_key.hpp"

#include <catch2/catch.hpp>
#include <vector>

#include "rows_data.hpp"

namespace tessera::kernel {
namespace {

template <class T>
std::vector<T> values(const Vector<T>& view) {
  return {view.data(), view.data() + view.size()};
}

}  // namespace

TEST_CASE("The sort is the standard library's stable sort, whatever the keys") {
  for (const std::int64_t num_keys : {1, 3, 128}) {
    for (const std::int64_t tokens : {0, 1, 31, 700}) {
      for (const std::int64_t per_token : {1, 4}) {
        INFO(num_keys << " keys, " << tokens << " tokens with " << per_token << " each");
        const std::int64_t size = tokens * per_token;
        const auto keys = test::random_indices(size, num_keys, 11);
        const Vector<std::int32_t> position("position", size), group("group", size);
        const Vector<std::int32_t> expected("expected", size), expected_group("group", size);
        const Vector<std::int64_t> count("count", num_keys);
        const KeyCounts counts = count_keys(Execution(), keys, num_keys);
        const std::vector<std::int64_t> counted = values(counts.count);
        sort_by_key(Execution(), keys, counts, per_token, position, group);
        Execution().fence();
        reference::sort_by_key(keys, per_token, count, expected, expected_group);
        CHECK(counted == values(count));
        CHECK(values(position) == values(expected));
        CHECK(values(group) == values(expected_group));
      }
    }
  }
}

TEST_CASE("Blocks are numbered where they belong") {
  const Vector<std::int32_t> to("to", 4), from("from", 4), size("size", 4), numbers("numbers", 9);
  const std::vector<std::int32_t> places{5, 0, 5, 2}, firsts{0, 4, 6, 6}, sizes{4, 2, 0, 3};
  for (int b = 0; b < 4; ++b) {
    to(b) = places[b];
    from(b) = firsts[b];
    size(b) = sizes[b];
  }
  number_blocks(Execution(), to, from, size, numbers);
  Execution().fence();
  CHECK(values(numbers) == std::vector<std::int32_t>{4, 5, 6, 7, 8, 0, 1, 2, 3});
  number_blocks(Execution(), to, from, size, Vector<std::int32_t>("none", 0));
}

}  // namespace tessera::kernel
