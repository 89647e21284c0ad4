// SPDX-License-Identifier: Apache-2.0
// Every range of every small shape, against counting elements one by one.
#include "tessera/checkpoint/flat_selection.hpp"

#include <catch2/catch.hpp>

namespace tessera::checkpoint {
namespace {

// Flat positions of a box's elements, row-major.
void append_positions(const Shape& shape, const Box& box, std::vector<std::int64_t>& positions) {
  for (std::int64_t k = 0; k < box.size(); ++k) {
    std::int64_t rest = k, position = 0, stride = 1;
    for (std::size_t d = shape.size(); d-- > 0;) {
      position += (box.start[d] + rest % box.count[d]) * stride;
      rest /= box.count[d];
      stride *= shape[d];
    }
    positions.push_back(position);
  }
}

std::string check_range(const Shape& shape, std::int64_t begin, std::int64_t end) {
  const std::vector<Box> boxes = boxes_of_range(shape, begin, end);
  const std::string where =
      to_string(shape) + " [" + std::to_string(begin) + ", " + std::to_string(end) + ")";
  if (boxes.size() > 2 * shape.size() - 1) return "too many boxes for " + where;
  std::vector<std::int64_t> positions, expected;
  for (const Box& box : boxes) {
    if (box.start.size() != shape.size() || box.count.size() != shape.size())
      return "rank of " + where;
    append_positions(shape, box, positions);
  }
  for (std::int64_t p = begin; p < end; ++p) expected.push_back(p);
  return positions == expected ? "" : "wrong elements for " + where;
}

std::string check_all_ranges(const Shape& shape) {
  const std::int64_t size = num_elements(shape);
  for (std::int64_t begin = 0; begin <= size; ++begin) {
    for (std::int64_t end = begin; end <= size; ++end) {
      if (std::string wrong = check_range(shape, begin, end); !wrong.empty()) return wrong;
    }
  }
  return "";
}

}  // namespace

TEST_CASE(
    "every range of every small tensor becomes few boxes with exactly its elements in order") {
  for (std::int64_t a = 1; a <= 4; ++a) {
    CHECK(check_all_ranges({a}) == "");
    for (std::int64_t b = 1; b <= 4; ++b) {
      CHECK(check_all_ranges({a, b}) == "");
      for (std::int64_t c = 1; c <= 4; ++c) {
        CHECK(check_all_ranges({a, b, c}) == "");
        CHECK(check_all_ranges({a, b, 2, c}) == "");
      }
    }
  }
}

TEST_CASE("a range in the middle of three experts is cut into five boxes") {
  const std::vector<Box> boxes = boxes_of_range({4, 3, 5}, 7, 52);
  const std::vector<Box> expected{{{0, 1, 2}, {1, 1, 3}},
                                  {{0, 2, 0}, {1, 1, 5}},
                                  {{1, 0, 0}, {2, 3, 5}},
                                  {{3, 0, 0}, {1, 1, 5}},
                                  {{3, 1, 0}, {1, 1, 2}}};
  CHECK(boxes == expected);
}

TEST_CASE("an empty range has no boxes and a whole tensor has one") {
  CHECK(boxes_of_range({3, 4}, 5, 5).empty());
  CHECK(boxes_of_range({0, 4}, 0, 0).empty());
  CHECK(boxes_of_range({3, 4}, 0, 12) == std::vector<Box>{{{0, 0}, {3, 4}}});
}

}  // namespace tessera::checkpoint
