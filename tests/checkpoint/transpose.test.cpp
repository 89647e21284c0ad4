// SPDX-License-Identifier: Apache-2.0
// Turning a matrix, against the plain loop, on sizes around the tiles' borders.
#include "transpose.hpp"

#include <catch2/catch.hpp>

using namespace tessera;
using namespace tessera::checkpoint;

namespace {

std::vector<std::byte> random_bytes(std::int64_t count) {
  std::vector<std::byte> bytes(static_cast<std::size_t>(count));
  std::uint64_t state = 1;
  for (std::byte& each : bytes) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    each = std::byte(state >> 56);
  }
  return bytes;
}

/// Whether [rows][columns] with these strides is turned as it should be, and nothing beside it is
/// written.
bool is_turned(std::int64_t num_rows, std::int64_t num_columns, std::int64_t width,
               std::int64_t from_extra, std::int64_t to_extra) {
  const std::int64_t from_stride = num_columns + from_extra, to_stride = num_rows + to_extra;
  const std::vector<std::byte> from = random_bytes(num_rows * from_stride * width);
  std::vector<std::byte> to(std::size_t(num_columns * to_stride * width), std::byte{0xa5});
  std::vector<std::byte> expected = to;
  for (std::int64_t row = 0; row < num_rows; ++row)
    for (std::int64_t column = 0; column < num_columns; ++column)
      for (std::int64_t k = 0; k < width; ++k)
        expected[std::size_t((column * to_stride + row) * width + k)] =
            from[std::size_t((row * from_stride + column) * width + k)];
  transpose(from.data(), num_rows, num_columns, from_stride, width, to.data(), to_stride);
  return to == expected;
}

}  // namespace

TEST_CASE("matrices of every element size are turned as the plain loop turns them") {
  const std::vector<std::int64_t> sizes{1, 7, 8, 31, 32, 33, 40, 64, 97};
  for (const std::int64_t width : {2, 4, 8})
    for (const std::int64_t num_rows : sizes)
      for (const std::int64_t num_columns : sizes) {
        INFO(width << " bytes, " << num_rows << " x " << num_columns);
        CHECK(is_turned(num_rows, num_columns, width, 0, 0));
      }
}

TEST_CASE("a part of a matrix becomes a part of one, and nothing beside it is written") {
  for (const std::int64_t width : {2, 4, 8})
    for (const auto& [rows, columns] : {std::pair(64, 32), std::pair(32, 65), std::pair(5, 40)}) {
      INFO(width << " bytes, " << rows << " x " << columns);
      CHECK(is_turned(rows, columns, width, 19, 0));
      CHECK(is_turned(rows, columns, width, 0, 11));
      CHECK(is_turned(rows, columns, width, 3, 32));
    }
}

TEST_CASE("a matrix without rows or columns writes nothing") {
  CHECK(is_turned(0, 5, 2, 0, 1));
  CHECK(is_turned(5, 0, 2, 0, 1));
}
