// SPDX-License-Identifier: Apache-2.0
// model.safetensors.index.json, of a directory with two files of three tensors. Input: its text.
#include <filesystem>
#include <fstream>

#include "fuzz.hpp"
#include "hugging_face_directory.hpp"

using namespace tessera;

namespace {

namespace fs = std::filesystem;

void write(const fs::path& path, std::string_view content) {
  std::ofstream(path, std::ios::binary) << content;
}

void write_shard(const fs::path& path, const std::string& header, int num_data_bytes) {
  std::string length(8, '\0');
  length[0] = static_cast<char>(header.size());  // below 128
  write(path, length + header + std::string(static_cast<std::size_t>(num_data_bytes), '\0'));
}

/// A directory that lacks only the index.
fs::path make_directory() {
  const fs::path path = fs::temp_directory_path() / "model";
  fs::create_directory(path);
  write(path / "config.json", "{}");
  write_shard(path / "1.safetensors",
              R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
              R"("b":{"dtype":"F32","shape":[0],"data_offsets":[1,1]}})",
              1);
  write_shard(path / "2.safetensors", R"({"c":{"dtype":"BF16","shape":[],"data_offsets":[0,2]}})",
              2);
  return path;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const fs::path directory = make_directory();
  write(directory / "model.safetensors.index.json", fuzz::text_of(data, size));
  fuzz::expect_read_or_refused([&] {
    const auto found = checkpoint::scan_hugging_face_directory(directory, 0);
    const auto passed_on = checkpoint::HuggingFaceDirectory::deserialise(found.serialise());
    if (passed_on.tensors.size() != 3) fuzz::stop("tensors got lost");
  });
  return 0;
}
