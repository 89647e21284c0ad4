// SPDX-License-Identifier: Apache-2.0
#include "tessera/trainer/token_data.hpp"

#include <catch2/catch.hpp>
#include <numeric>

#include "checkpoint/same_error.hpp"
#include "support/collective_check.hpp"
#include "support/temporary_directory.hpp"
#include "token_files.hpp"

using namespace tessera;
using namespace tessera::trainer;
using Catch::Contains;
namespace fs = std::filesystem;
using Ids = std::vector<std::int64_t>;

namespace {

/// A directory of all ranks; rank 0 makes its files, then all go on.
struct Files {
  comm::Communicator world{MPI_COMM_WORLD, "world"};
  test::TemporaryDirectory directory{world};

  template <class Make>
  explicit Files(const Make& make) {
    if (world.rank() == 0) make(directory.path());
    world.barrier("files made");
  }
  ~Files() { world.barrier("files used"); }

  TokenData open(const std::string& name, const TokenDataOptions& options = {}) const {
    return TokenData::open(world, directory / name, options);
  }
  std::string error(const std::string& name, ErrorKind kind,
                    const TokenDataOptions& options = {}) const {
    return test::same_error(world, kind, [&] { open(name, options); });
  }
};

template <class T>
std::vector<T> counting(std::int64_t count) {
  std::vector<T> values(static_cast<std::size_t>(count));
  std::iota(values.begin(), values.end(), T{0});
  return values;
}

struct Sequence {
  Ids tokens, labels;
};

Sequence read(const TokenData& data, std::int64_t sequence_idx) {
  const auto length = static_cast<std::size_t>(data.sequence_length());
  Sequence sequence{Ids(length), Ids(length)};
  data.read(sequence_idx, sequence.tokens, sequence.labels);
  return sequence;
}

// 43 tokens that count from 0, and four rows of ten.
void make_counting_files(const fs::path& directory) {
  test::write_text(directory / "a.u16", test::raw_bytes(counting<std::uint16_t>(43)));
  test::write_text(directory / "a.bin", test::raw_bytes(counting<std::uint16_t>(43)));
  test::write_text(directory / "a.u32", test::raw_bytes(counting<std::uint32_t>(43)));
  test::write_npy(directory / "stream.npy", "<i4", "(43,)", counting<std::int32_t>(43));
  test::write_npy(directory / "bytes.npy", "|u1", "(43,)", counting<std::uint8_t>(43));
  test::write_npy(directory / "rows.npy", "<i8", "(4, 10)", counting<std::int64_t>(40));
  test::add_dataset(directory / "a.h5", "tokens", H5T_STD_U16LE, {43}, counting<std::int64_t>(43));
  test::add_dataset(directory / "a.h5", "rows/tokens", H5T_STD_I32BE, {4, 10},
                    counting<std::int64_t>(40), 3);
}

TokenDataOptions with_length(std::int64_t length) {
  TokenDataOptions options;
  options.sequence_length = length;
  return options;
}

}  // namespace

TEST_CASE("A stream in any kind of file gives the same rows, without the rest that fills none") {
  const Files files(make_counting_files);
  for (const char* name : {"a.u16", "a.bin", "a.u32", "stream.npy", "bytes.npy", "a.h5"}) {
    INFO(name);
    const TokenData data = files.open(name, with_length(10));
    CHECK(data.num_sequences() == 4);
    CHECK(data.sequence_length() == 10);
    for (std::int64_t row = 0; row < 4; ++row) {
      Ids expected(10);
      std::iota(expected.begin(), expected.end(), 10 * row);
      const Sequence sequence = read(data, row);
      CHECK(sequence.tokens == expected);
      CHECK(sequence.labels == expected);
    }
  }
}

TEST_CASE("Rows in .npy and chunked HDF5 are sequences of their width") {
  const Files files(make_counting_files);
  TokenDataOptions in_group;
  in_group.dataset = "/rows/tokens";
  for (const TokenData& data : {files.open("rows.npy"), files.open("a.h5", in_group)}) {
    CHECK(data.num_sequences() == 4);
    CHECK(data.sequence_length() == 10);
    CHECK(read(data, 3).tokens == Ids{30, 31, 32, 33, 34, 35, 36, 37, 38, 39});
  }
  CHECK(files.open("rows.npy", with_length(10)).num_sequences() == 4);
}

TEST_CASE("The element type of a flat file can be said against its extension") {
  const Files files(make_counting_files);
  TokenDataOptions options = with_length(10);
  options.flat_dtype = FlatDtype::u16;
  CHECK(read(files.open("a.u32", options), 0).tokens == Ids{0, 0, 1, 0, 2, 0, 3, 0, 4, 0});
}

TEST_CASE("Ids above 2^15 in u16 and above 2^31 in u32 and i64 are read as they are") {
  const Files files([](const fs::path& directory) {
    test::write_text(directory / "a.u16",
                     test::raw_bytes(std::vector<std::uint16_t>{65535, 40000}));
    test::write_text(directory / "a.u32",
                     test::raw_bytes(std::vector<std::uint32_t>{4294967295u, 1}));
    test::write_npy(directory / "a.npy", "<i8", "(1, 2)", std::vector<std::int64_t>{1ll << 40, -7});
  });
  CHECK(read(files.open("a.u16", with_length(2)), 0).tokens == Ids{65535, 40000});
  CHECK(read(files.open("a.u32", with_length(2)), 0).tokens == Ids{4294967295, 1});
  CHECK(read(files.open("a.npy"), 0).tokens == Ids{1ll << 40, -7});
}

TEST_CASE("Labels and masks may be other datasets, other files, integers or booleans") {
  const Files files([](const fs::path& directory) {
    const Ids tokens{1, 2, 3, 4, 5, 6, 7, 8}, labels{-100, 12, 13, 14, 15, 16, 17, 18},
        mask{1, 1, 0, 1, 0, 0, 1, 1};
    test::add_dataset(directory / "a.h5", "tokens", H5T_STD_I64LE, {2, 4}, tokens);
    test::add_dataset(directory / "a.h5", "labels", H5T_STD_I64LE, {2, 4}, labels);
    const hid_t boolean = test::boolean_type();
    test::add_dataset(directory / "a.h5", "mask", boolean, {2, 4}, mask);
    H5Tclose(boolean);
    test::write_npy(directory / "a.npy", "<i8", "(2, 4)", tokens);
    test::write_npy(directory / "labels.npy", "<i8", "(2, 4)", labels);
    test::write_npy(directory / "mask.npy", "|b1", "(2, 4)",
                    std::vector<std::uint8_t>(mask.begin(), mask.end()));
  });
  TokenDataOptions options;
  CHECK(read(files.open("a.h5"), 0).labels == Ids{1, 2, 3, 4});
  options.mask.dataset = "mask";
  CHECK(read(files.open("a.h5", options), 0).labels == Ids{1, 2, -100, 4});
  CHECK(read(files.open("a.h5", options), 1).tokens == Ids{5, 6, 7, 8});
  options.labels.dataset = "labels";
  CHECK(read(files.open("a.h5", options), 0).labels == Ids{-100, 12, -100, 14});
  TokenDataOptions other_files;
  other_files.vocab_size = 19;
  other_files.labels.path = files.directory / "labels.npy";
  other_files.mask.path = files.directory / "mask.npy";
  CHECK(read(files.open("a.npy", other_files), 1).labels == Ids{-100, -100, 17, 18});
  other_files.mask.path = files.directory / "a.h5";  // its dataset named "mask"
  CHECK(read(files.open("a.npy", other_files), 1).labels == Ids{-100, -100, 17, 18});
}

TEST_CASE("A bad id is named with its place, when it is read and before training, on all ranks") {
  const Files files([](const fs::path& directory) {
    auto tokens = counting<std::uint16_t>(200);
    for (auto& token : tokens) token %= 50;
    tokens[137] = 999;
    tokens[163] = 998;
    test::write_text(directory / "a.u16", test::raw_bytes(tokens));
    Ids labels(200, 1);
    labels[81] = -1;
    test::write_npy(directory / "labels.npy", "<i8", "(200,)", labels);
  });
  TokenDataOptions options = with_length(10);
  options.vocab_size = 50;
  const TokenData data = files.open("a.u16", options);
  CHECK_NOTHROW(read(data, 12));
  CHECK_THROWS_WITH(read(data, 13), Contains("999") && Contains("sequence 13, offset 7"));
  const std::string message =
      test::same_error(files.world, ErrorKind::format, [&] { data.validate(files.world); });
  CHECK_THAT(message, Contains("999") && Contains("sequence 13, offset 7") && Contains("50"));

  options.vocab_size = 1000;
  CHECK_NOTHROW(files.open("a.u16", options).validate(files.world));
  options.labels.path = files.directory / "labels.npy";
  const TokenData labelled = files.open("a.u16", options);
  CHECK_THAT(
      test::same_error(files.world, ErrorKind::format, [&] { labelled.validate(files.world); }),
      Contains("labels.npy") && Contains("sequence 8, offset 1"));
}

TEST_CASE("Validation reads large files in blocks and finds the last id") {
  const Files files([](const fs::path& directory) {
    std::vector<std::uint16_t> tokens(300'000, 3);
    tokens[299'999] = 77;
    test::write_text(directory / "a.u16", test::raw_bytes(tokens));
    test::add_dataset(directory / "a.h5", "tokens", H5T_STD_U16LE, {3000, 100},
                      Ids(tokens.begin(), tokens.end()), 64);
  });
  for (const char* name : {"a.u16", "a.h5"}) {
    TokenDataOptions options = with_length(100);
    options.vocab_size = 77;
    const TokenData data = files.open(name, options);
    CHECK_THAT(
        test::same_error(files.world, ErrorKind::format, [&] { data.validate(files.world); }),
        Contains("sequence 2999, offset 99"));
  }
}

TEST_CASE("Lengths that do not fit are usage errors that say what the file has") {
  const Files files(make_counting_files);
  CHECK_THAT(files.error("a.u16", ErrorKind::usage), Contains("sequence length"));
  CHECK_THAT(files.error("a.u16", ErrorKind::usage, with_length(44)), Contains("43 tokens"));
  CHECK_THAT(files.error("a.u16", ErrorKind::usage, with_length(1)), Contains("no target"));
  CHECK_THAT(files.error("a.u16", ErrorKind::usage, with_length(-4)), Contains("-4"));
  CHECK_THAT(files.error("rows.npy", ErrorKind::usage, with_length(5)), Contains("10 tokens wide"));
}

TEST_CASE("Files that hold no token ids are refused alike on all ranks") {
  const Files files([](const fs::path& directory) {
    make_counting_files(directory);
    test::write_text(directory / "odd.u32", "123456");
    test::write_text(directory / "empty.bin", "");
    test::write_text(directory / "empty.npy", "");
    test::write_text(directory / "text.h5", "no HDF5 in here");
    test::write_npy(directory / "cube.npy", "<i8", "(1, 2, 2)", counting<std::int64_t>(4));
    test::write_npy(directory / "bool.npy", "|b1", "(4,)", std::vector<std::uint8_t>(4));
    test::add_dataset(directory / "b.h5", "cube", H5T_STD_I64LE, {1, 2, 2}, {1, 2, 3, 4});
    test::add_dataset(directory / "b.h5", "real", H5T_IEEE_F32LE, {4}, {1, 2, 3, 4});
    test::add_dataset(directory / "b.h5", "short", H5T_STD_I64LE, {3}, {1, 2, 3});
    fs::create_directory(directory / "folder");
  });
  const TokenDataOptions s2 = with_length(2);
  CHECK_THAT(files.error("absent.u16", ErrorKind::file, s2), Contains("No such file"));
  CHECK_THAT(files.error("folder", ErrorKind::file, s2), Contains("directory"));
  CHECK_THAT(files.error("odd.u32", ErrorKind::format, s2), Contains("6 bytes"));
  CHECK_THAT(files.error("empty.bin", ErrorKind::usage, s2), Contains("0 tokens"));
  CHECK_THAT(files.error("empty.npy", ErrorKind::format, s2), Contains("not a .npy file"));
  CHECK_THAT(files.error("text.h5", ErrorKind::format, s2), Contains("HDF5"));
  CHECK_THAT(files.error("cube.npy", ErrorKind::format, s2), Contains("[1, 2, 2]"));
  CHECK_THAT(files.error("bool.npy", ErrorKind::format, s2), Contains("booleans"));
  CHECK_THAT(files.error("b.h5", ErrorKind::format, s2),
             Contains("'tokens'") && Contains("cube, real"));
  TokenDataOptions options = s2;
  options.dataset = "cube";
  CHECK_THAT(files.error("b.h5", ErrorKind::format, options), Contains("3 dimensions"));
  options.dataset = "real";
  CHECK_THAT(files.error("b.h5", ErrorKind::format, options), Contains("no integers"));
  CHECK_THAT(files.error("a.u16", ErrorKind::usage, options), Contains("not an HDF5 file"));
  options.dataset = "tokens";
  options.labels = {files.directory / "b.h5", "short"};
  CHECK_THAT(files.error("a.h5", ErrorKind::format, options), Contains("[3]") && Contains("[43]"));
}

TEST_CASE("A rank that sees another file stops all ranks") {
  const Files files([](const fs::path& directory) {
    test::write_text(directory / "rank0.u16", std::string(40, '\0'));
    test::write_text(directory / "other.u16", std::string(60, '\0'));
  });
  if (files.world.size() == 1) return;
  const std::string name = files.world.rank() == 0 ? "rank0.u16" : "other.u16";
  std::string message = "no error";
  try {
    files.open(name, with_length(5));
  } catch (const Error& error) {
    message = error.what();
  }
  CHECK_THAT(message, Contains("some ranks see 4 sequences, others 6"));

  // One rank without the file: all fail with its message.
  const std::string maybe =
      files.world.rank() == files.world.size() - 1 ? "absent.u16" : "rank0.u16";
  CHECK_THAT(files.error(maybe, ErrorKind::file, with_length(5)), Contains("absent.u16"));
}
