// SPDX-License-Identifier: Apache-2.0
// Opening Hugging Face directories: what they hold, and every way in which index, headers and files
// can disagree. Nothing here reads tensor data.
#include <sys/stat.h>

#include <catch2/catch.hpp>

#include "comm/communicator.hpp"
#include "safetensors_writer.hpp"
#include "same_error.hpp"
#include "support/temporary_directory.hpp"
#include "tessera/checkpoint/hugging_face.hpp"

using namespace tessera;
using namespace tessera::checkpoint;
using Catch::Contains;
using test::TestTensor;

namespace {

const std::vector<TestTensor> tensors = {{{.name = "b", .shape = {3, 4}}, Dtype::bf16},
                                         {{.name = "a", .shape = {5}}, Dtype::f32},
                                         {{.name = "c", .shape = {2, 2}}, Dtype::f16}};
const char* first_file = "model-00001-of-00002.safetensors";
const char* second_file = "model-00002-of-00002.safetensors";
const char* index_file = "model.safetensors.index.json";

/// A directory that rank 0 prepares and all ranks open.
struct Fixture {
  comm::Communicator world{MPI_COMM_WORLD, "world"};
  test::TemporaryDirectory directory{world};

  /// Two files with their index, then `change` by rank 0.
  template <class Change>
  void write(Change&& change) {
    if (world.rank() == 0) {
      test::write_directory(directory.path(), tensors, 2);
      change(directory.path());
    }
    world.barrier("directory is written");
  }
  std::string error(ErrorKind kind) {
    return test::same_error(world, kind, [&] { Source::open(world, directory.path()); });
  }
  /// As write, for an index of this weight map.
  void write_index(const std::string& map) {
    write([&](const auto& path) {
      test::write_text(path / index_file, R"({"weight_map":{)" + map + "}}");
    });
  }
};

}  // namespace

TEST_CASE_METHOD(Fixture, "a directory with an index shows the tensors of all files by name") {
  write([](const auto& path) {
    test::write_text(path / "tokenizer.model", std::string("\0\xff\n binary", 10));
    test::write_text(path / "README.md", "not kept");
  });
  const auto source = Source::open(world, directory.path());
  REQUIRE(source->tensors().size() == 3);
  CHECK(source->tensors()[0].name == "a");
  CHECK(source->tensors()[0].file == second_file);
  CHECK(source->tensors()[1].shape == Shape{3, 4});
  CHECK(source->tensors()[1].dtype == Dtype::bf16);
  CHECK(source->tensors()[2].file == first_file);
  CHECK(source->tensors()[2].bytes() == 8);
  CHECK(source->find("b") == &source->tensors()[1]);
  CHECK(source->find("bb") == nullptr);
  CHECK(source->config_json() == R"({"model_type": "test"})");
  CHECK(source->kind() == std::string("Hugging Face directory"));
  const auto& files = dynamic_cast<const HuggingFaceSource&>(*source).files();
  CHECK(files.size() == 2);
  CHECK(files.at("tokenizer.model") == std::string("\0\xff\n binary", 10));
}

TEST_CASE_METHOD(Fixture, "a directory with a single file needs no index") {
  if (world.rank() == 0) test::write_directory(directory.path(), tensors, 1);
  const auto source = Source::open(world, directory.path());
  CHECK(source->tensors().size() == 3);
  CHECK(source->tensors()[0].file == "model.safetensors");
}

TEST_CASE_METHOD(Fixture, "a path with nothing at it is an error") {
  CHECK_THAT(
      test::same_error(world, ErrorKind::file, [&] { Source::open(world, directory / "nowhere"); }),
      Contains("no checkpoint at") && Contains("nowhere"));
}

TEST_CASE_METHOD(Fixture, "a directory without config.json is an error") {
  write([](const auto& path) { std::filesystem::remove(path / "config.json"); });
  CHECK_THAT(error(ErrorKind::file), Contains("no config.json"));
}

TEST_CASE_METHOD(Fixture, "a directory without safetensors is an error that names what it has") {
  if (world.rank() == 0) test::write_text(directory / "config.json", "{}");
  CHECK_THAT(error(ErrorKind::file), Contains("holds no weights"));
  if (world.rank() == 0) test::write_text(directory / "pytorch_model.bin", "x");
  CHECK_THAT(error(ErrorKind::file),
             Contains("only pytorch_model.bin") && Contains("not supported"));
}

TEST_CASE_METHOD(Fixture, "an index that is no index is an error") {
  write([](const auto& path) { test::write_text(path / index_file, "{]"); });
  CHECK_THAT(error(ErrorKind::format),
             Contains((directory / index_file).string()) && Contains("not valid JSON"));
  write([](const auto& path) { test::write_text(path / index_file, R"({"weight_map":[]})"); });
  CHECK_THAT(error(ErrorKind::format), Contains("no weight_map"));
}

TEST_CASE_METHOD(Fixture, "an index that names a tensor twice is an error") {
  write_index(fmt::format(R"("a":"{}","a":"{}")", first_file, second_file));
  CHECK_THAT(error(ErrorKind::format), Contains("'a' occurs twice"));
}

TEST_CASE_METHOD(Fixture, "an index may name only files of its own directory") {
  for (const char* name : {R"("../x.safetensors")", R"("/etc/passwd")", R"("..")", R"("")", "3",
                           R"("a\\b")", R"("a\u0000b")"}) {
    write_index(fmt::format(R"("a":{})", name));
    CHECK_THAT(error(ErrorKind::format), Contains("'a'") && Contains("own directory"));
  }
}

TEST_CASE_METHOD(Fixture, "an index that names a file which is not there is an error") {
  write([](const auto& path) { std::filesystem::remove(path / second_file); });
  CHECK_THAT(error(ErrorKind::file), Contains(second_file) && Contains("No such file"));
}

TEST_CASE_METHOD(Fixture, "a tensor of the index that its file does not have is an error by name") {
  write_index(fmt::format(R"("a":"{1}","b":"{0}","c":"{0}","d":"{1}")", first_file, second_file));
  CHECK_THAT(error(ErrorKind::keys), Contains((directory / index_file).string()) &&
                                         Contains("'d' is in model-00002") &&
                                         Contains("not by its header"));
}

TEST_CASE_METHOD(Fixture, "a tensor of a file that the index does not have is an error by name") {
  write_index(fmt::format(R"("a":"{1}","c":"{0}")", first_file, second_file));
  CHECK_THAT(error(ErrorKind::keys),
             Contains("'b' is in model-00001") && Contains("not in the index"));
}

TEST_CASE_METHOD(Fixture, "a tensor in two files is an error by name") {
  write([](const auto& path) {
    test::write_safetensors(path / second_file, {tensors[0], tensors[1]});
  });
  CHECK_THAT(error(ErrorKind::keys), Contains("'b' is in two files"));
}

TEST_CASE_METHOD(Fixture, "an index beside a single file of another model is an error") {
  write([](const auto& path) { test::write_safetensors(path / "model.safetensors", tensors); });
  CHECK_THAT(error(ErrorKind::format), Contains("both model.safetensors and an index"));
}

TEST_CASE_METHOD(Fixture, "a truncated file is found before any tensor is read") {
  write([](const auto& path) {
    std::filesystem::resize_file(path / first_file,
                                 std::filesystem::file_size(path / first_file) - 1);
  });
  CHECK_THAT(error(ErrorKind::format),
             Contains((directory / first_file).string()) && Contains("bytes of data"));
}

TEST_CASE_METHOD(Fixture, "a directory in place of a file is an error") {
  write([](const auto& path) {
    std::filesystem::remove(path / first_file);
    std::filesystem::create_directory(path / first_file);
  });
  CHECK_THAT(error(ErrorKind::file), Contains("not a regular file"));
}

TEST_CASE_METHOD(Fixture, "a FIFO in place of a file is an error, not a wait for its writer") {
  write([](const auto& path) {
    std::filesystem::remove(path / first_file);
    CHECK(::mkfifo((path / first_file).c_str(), 0600) == 0);
  });
  CHECK_THAT(error(ErrorKind::file), Contains("not a regular file"));
}

TEST_CASE_METHOD(Fixture, "a config.json of more than 1 MiB is not read") {
  write([](const auto& path) {
    test::write_text(path / "config.json", "{}" + std::string(1 << 20, ' '));
  });
  CHECK_THAT(error(ErrorKind::format), Contains("config.json") && Contains("more than the limit"));
}
