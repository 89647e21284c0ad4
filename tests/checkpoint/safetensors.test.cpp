// SPDX-License-Identifier: Apache-2.0
// Safetensors headers, sound and broken in every way that the format allows to check.
#include "tessera/checkpoint/safetensors.hpp"

#include <fmt/ranges.h>

#include <catch2/catch.hpp>

#include "base/error.hpp"
#include "comm/communicator.hpp"
#include "safetensors_writer.hpp"
#include "support/temporary_directory.hpp"

using namespace tessera;
using namespace tessera::checkpoint;
using Catch::Contains;

namespace {

std::vector<SafetensorsTensor> parse(const std::string& header, std::uint64_t data_bytes) {
  return parse_safetensors_header(header, data_bytes, "x.safetensors");
}

/// The message of the format error that parsing raises.
std::string refusal(const std::string& header, std::uint64_t data_bytes) {
  try {
    parse(header, data_bytes);
  } catch (const Error& error) {
    CHECK(error.kind() == ErrorKind::format);
    CHECK_THAT(error.what(), Contains("x.safetensors"));
    return error.what();
  }
  return "(accepted)";
}

std::string entry(const std::string& name, const std::string& dtype, const std::string& shape,
                  const std::string& offsets) {
  return fmt::format(R"("{}":{{"dtype":"{}","shape":{},"data_offsets":{}}})", name, dtype, shape,
                     offsets);
}

std::string object(const std::vector<std::string>& entries) {
  return fmt::format("{{{}}}", fmt::join(entries, ","));
}

/// The message of the error that reading a file with these bytes raises.
std::string file_refusal(const std::string& bytes) {
  const comm::Communicator world(MPI_COMM_WORLD, "world");
  const test::TemporaryDirectory directory(world);
  test::write_text(directory / "x.safetensors", bytes);
  try {
    read_safetensors_header(directory / "x.safetensors", 0);
  } catch (const Error& error) {
    CHECK(error.kind() == ErrorKind::format);
    return error.what();
  }
  return "(accepted)";
}

}  // namespace

TEST_CASE("a header gives the tensors in the order of their data") {
  const auto tensors =
      parse(object({R"("__metadata__":{"format":"pt"})", entry("b", "BF16", "[2,3]", "[8,20]"),
                    entry("a", "F32", "[2]", "[0,8]"), entry("empty", "F16", "[0,7]", "[8,8]"),
                    entry("scalar", "I64", "[]", "[20,28]")}) +
                "  ",
            28);
  REQUIRE(tensors.size() == 4);
  CHECK(tensors[0].name == "a");
  CHECK(tensors[1].name == "empty");
  CHECK(tensors[1].shape == Shape{0, 7});
  CHECK(tensors[2].name == "b");
  CHECK(tensors[2].dtype == Dtype::bf16);
  CHECK(tensors[2].shape == Shape{2, 3});
  CHECK(tensors[2].begin_bytes == 8);
  CHECK(tensors[2].end_bytes == 20);
  CHECK(tensors[3].shape.empty());
}

TEST_CASE("a header without tensors is sound if there is no data") {
  CHECK(parse("{}", 0).empty());
  CHECK_THAT(refusal("{}", 4), Contains("end at byte 0") && Contains("4 bytes"));
}

TEST_CASE("text that is not one JSON object is refused") {
  CHECK_THAT(refusal("", 0), Contains("not valid JSON"));
  CHECK_THAT(refusal("{", 0), Contains("not valid JSON"));
  CHECK_THAT(refusal("{} x", 0), Contains("not valid JSON"));
  CHECK_THAT(refusal("[1]", 0), Contains("object is expected"));
  CHECK_THAT(refusal("3", 0), Contains("object is expected"));
  CHECK_THAT(refusal("{\"\xff\":1}", 0), Contains("not valid JSON"));
  CHECK_THAT(refusal(std::string(100000, '['), 0), Contains("nested deeper"));
}

TEST_CASE("a key that occurs twice is refused by name") {
  const std::string a = entry("a", "U8", "[1]", "[0,1]");
  CHECK_THAT(refusal(object({a, a}), 1), Contains("'a' occurs twice"));
  CHECK_THAT(refusal(R"({"a":{"dtype":"U8","dtype":"F32","shape":[1],"data_offsets":[0,1]}})", 1),
             Contains("'dtype' occurs twice"));
}

TEST_CASE("an entry with missing, ill-typed or unknown parts is refused by the tensor's name") {
  CHECK_THAT(refusal(R"({"a":3})", 0), Contains("'a'") && Contains("not a JSON object"));
  CHECK_THAT(refusal(R"({"a":{"shape":[1],"data_offsets":[0,1]}})", 1), Contains("no dtype"));
  CHECK_THAT(refusal(R"({"a":{"dtype":"U8","data_offsets":[0,1]}})", 1), Contains("no shape"));
  CHECK_THAT(refusal(R"({"a":{"dtype":"U8","shape":[1]}})", 1), Contains("no data_offsets"));
  CHECK_THAT(refusal(object({entry("a", "F8_E5M2", "[1]", "[0,1]")}), 1),
             Contains("'a'") && Contains("F8_E5M2 is not supported"));
  CHECK_THAT(refusal(object({entry("a", "U8", "[-1]", "[0,1]")}), 1),
             Contains("'a'") && Contains("shape has the entry -1"));
  CHECK_THAT(refusal(object({entry("a", "U8", "[1.0]", "[0,1]")}), 1), Contains("whole number"));
  CHECK_THAT(refusal(object({entry("a", "U8", "[\"1\"]", "[0,1]")}), 1), Contains("whole number"));
  CHECK_THAT(refusal(object({entry("a", "U8", "[9223372036854775808]", "[0,1]")}), 1),
             Contains("whole number"));
}

TEST_CASE("a shape whose size overflows is refused") {
  CHECK_THAT(refusal(object({entry("a", "F32", "[4294967296,4294967296]", "[0,0]")}), 0),
             Contains("'a'") && Contains("63 bits"));
  // 2^62 elements of 4 bytes are 2^64 bytes: zero in 64 bits.
  CHECK_THAT(refusal(object({entry("a", "F32", "[4611686018427387904]", "[0,0]")}), 0),
             Contains("63 bits"));
}

TEST_CASE("offsets that do not fit the shape or the file are refused") {
  CHECK_THAT(refusal(object({entry("a", "F32", "[2]", "[0,4]")}), 4),
             Contains("'a'") && Contains("needs 8 bytes"));
  CHECK_THAT(refusal(object({entry("a", "F32", "[1]", "[-4,0]")}), 4),
             Contains("data_offsets has the entry -4"));
  CHECK_THAT(refusal(object({entry("a", "F32", "[1]", "[4,0]")}), 4), Contains("[begin, end]"));
  CHECK_THAT(refusal(object({entry("a", "F32", "[1]", "[0]")}), 4), Contains("[begin, end]"));
  CHECK_THAT(refusal(object({entry("a", "F32", "[2]", "[0,8]")}), 4),
             Contains("'a'") && Contains("only 4 bytes"));
}

TEST_CASE("overlapping tensors and holes are refused by name") {
  const std::string a = entry("a", "F32", "[2]", "[0,8]");
  CHECK_THAT(refusal(object({a, entry("b", "F32", "[2]", "[4,12]")}), 12),
             Contains("'b'") && Contains("inside the tensor before it"));
  CHECK_THAT(refusal(object({a, entry("b", "F32", "[2]", "[0,8]")}), 8),
             Contains("inside the tensor before it"));
  CHECK_THAT(refusal(object({a, entry("b", "F32", "[1]", "[12,16]")}), 16),
             Contains("'b'") && Contains("hole after byte 8"));
  CHECK_THAT(refusal(object({entry("b", "F32", "[1]", "[4,8]")}), 8),
             Contains("hole after byte 0"));
}

TEST_CASE("a file is refused whose header does not fit into it") {
  const std::string header = object({entry("a", "F32", "[2]", "[0,8]")});
  const std::string sound = test::safetensors_bytes(header, "12345678");
  CHECK(file_refusal(sound) == "(accepted)");
  CHECK_THAT(file_refusal(""), Contains("too few"));
  CHECK_THAT(file_refusal("1234567"), Contains("too few"));
  CHECK_THAT(file_refusal(sound.substr(0, 20)), Contains("the file has only 20"));
  CHECK_THAT(file_refusal(sound.substr(0, sound.size() - 1)), Contains("only 7 bytes of data"));
  CHECK_THAT(file_refusal(sound + "9"), Contains("9 bytes of data"));
  CHECK_THAT(file_refusal(std::string(8, '\xff') + header),
             Contains("18446744073709551615 bytes long but the file has only"));
}

TEST_CASE("a header over the limit is refused before it is read") {
  const comm::Communicator world(MPI_COMM_WORLD, "world");
  const test::TemporaryDirectory directory(world);
  const auto path = directory / "x.safetensors";
  const std::uint64_t length = max_safetensors_header_bytes + 1;
  std::string bytes(sizeof length, '\0');
  std::memcpy(bytes.data(), &length, sizeof length);
  test::write_text(path, bytes);
  std::filesystem::resize_file(path, length + 8);  // sparse
  CHECK_THROWS_WITH(read_safetensors_header(path, 0), Contains("longer than the limit"));
}

TEST_CASE("any change of one byte of a header is accepted or refused, never worse") {
  const std::string sound =
      object({entry("a", "BF16", "[2,3]", "[0,12]"), entry("b", "F32", "[1]", "[12,16]")});
  int num_refused = 0;
  for (std::size_t place = 0; place < sound.size(); ++place)
    for (const char byte : {'\0', '"', '9', '-', '[', '}', ',', '\x80'}) {
      std::string changed = sound;
      changed[place] = byte;
      num_refused += refusal(changed, 16) != "(accepted)";
    }
  CHECK(num_refused > int(sound.size()));
}
