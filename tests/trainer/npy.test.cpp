// SPDX-License-Identifier: Apache-2.0
#include "tessera/trainer/npy.hpp"

#include <catch2/catch.hpp>

#include "base/error.hpp"
#include "npy_bytes.hpp"

using namespace tessera;
using namespace tessera::trainer;
using Catch::Contains;

namespace {

NpyHeader parse(const std::string& file) {
  return parse_npy_header(std::as_bytes(std::span(file)), "x.npy");
}

std::string error_of(const std::string& file) {
  try {
    parse(file);
  } catch (const Error& error) {
    CHECK(error.kind() == ErrorKind::format);
    return error.what();
  }
  return "no error";
}

std::string with_descr(const std::string& descr, std::size_t num_bytes) {
  return test::npy_bytes("{'descr': " + descr + ", 'fortran_order': False, 'shape': (4,), }",
                         std::string(num_bytes, '\0'));
}

}  // namespace

TEST_CASE("A .npy header tells shape, element type and where the data begin") {
  const std::string file = test::npy_bytes(
      "{'descr': '<i4', 'fortran_order': False, 'shape': (3, 5), }", std::string(60, '\0'));
  const NpyHeader header = parse(file);
  CHECK(header.shape == Shape{3, 5});
  CHECK(header.item_bytes == 4);
  CHECK(header.is_signed);
  CHECK(header.data_offset == static_cast<std::int64_t>(file.size()) - 60);
}

TEST_CASE("Keys of a .npy header may come in any order, with either quote and no final comma") {
  const NpyHeader header = parse(test::npy_bytes(
      "{\"shape\": (2,3), \"descr\": \"|u1\", \"fortran_order\": False}", std::string(6, '\0')));
  CHECK(header.shape == Shape{2, 3});
  CHECK_FALSE(header.is_signed);
}

TEST_CASE("Every integer type of 8 to 64 bits is read, and booleans are told apart") {
  for (const int bytes : {1, 2, 4, 8}) {
    for (const char sign : {'i', 'u'}) {
      const std::string order = bytes == 1 ? "|" : "<";
      const NpyHeader header =
          parse(with_descr("'" + order + sign + std::to_string(bytes) + "'", 4u * bytes));
      CHECK(header.item_bytes == bytes);
      CHECK(header.is_signed == (sign == 'i'));
      CHECK_FALSE(header.is_boolean);
    }
  }
  CHECK(parse(with_descr("'|b1'", 4)).is_boolean);
}

TEST_CASE("Arrays that cannot be token ids are refused with the reason") {
  CHECK_THAT(error_of(with_descr("'<f8'", 32)), Contains("'<f8'"));
  CHECK_THAT(error_of(with_descr("'<U4'", 64)), Contains("'<U4'"));
  CHECK_THAT(error_of(with_descr("'|O'", 32)), Contains("'|O'"));
  CHECK_THAT(error_of(with_descr("'>i8'", 32)), Contains("big endian"));
  CHECK_THAT(error_of(with_descr("[('a', '<i4')]", 16)), Contains("records"));
  CHECK_THAT(error_of(test::npy_bytes("{'descr': '<i4', 'fortran_order': True, 'shape': (2, 2), }",
                                      std::string(16, '\0'))),
             Contains("Fortran order"));
}

TEST_CASE("A .npy file that is cut, too long or impossibly large is refused") {
  CHECK_THAT(error_of(with_descr("'<i8'", 31)), Contains("needs 32 bytes"));
  CHECK_THAT(error_of(with_descr("'<i8'", 33)), Contains("not one array"));
  const std::string vast =
      "{'descr': '<i8', 'fortran_order': False, 'shape': (4611686018427387904, 4), }";
  CHECK_THAT(error_of(test::npy_bytes(vast, "")), Contains("more than 2^63"));
  CHECK_THAT(
      error_of(test::npy_bytes(
          "{'descr': '<i8', 'fortran_order': False, 'shape': (99999999999999999999,), }", "")),
      Contains("not a dictionary"));
  CHECK_THAT(
      error_of(test::npy_bytes("{'descr': '<i8', 'fortran_order': False, 'shape': (-1,), }", "")),
      Contains("not a dictionary"));
}

TEST_CASE("Every cut of a .npy header is an error and never a read beyond the file") {
  const std::string whole = with_descr("'<i8'", 32);
  for (std::size_t length = 0; length < whole.size(); ++length) {
    INFO(length);
    CHECK(error_of(whole.substr(0, length)) != "no error");
  }
}

TEST_CASE("A header length beyond the file and an unknown version are errors") {
  std::string file = with_descr("'<i8'", 32);
  file[8] = '\xff';
  file[9] = '\xff';
  CHECK_THAT(error_of(file), Contains("longer than the file"));
  file = with_descr("'<i8'", 32);
  file[6] = 4;
  CHECK_THAT(error_of(file), Contains("version 4"));
  CHECK_THAT(error_of("PK\x03\x04 not an array at all"), Contains("not a .npy file"));
}
