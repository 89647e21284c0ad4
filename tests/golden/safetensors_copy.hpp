// SPDX-License-Identifier: Apache-2.0
// The tensors of a Hugging Face directory in memory, to compare their bytes and to write altered
// copies. Serial, one rank.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <tessera/checkpoint/safetensors.hpp>
#include <vector>

namespace tessera::test {

struct StoredTensor {
  std::string dtype;  ///< as the header says: "BF16", ...
  std::vector<std::int64_t> shape;
  std::string bytes;

  bool operator==(const StoredTensor&) const = default;
};

class SafetensorsCopy {
 public:
  explicit SafetensorsCopy(const std::filesystem::path& directory) {
    for (const auto& entry : std::filesystem::directory_iterator(directory)) {
      if (entry.path().extension() == ".safetensors") read(entry.path());
    }
  }

  std::map<std::string, StoredTensor> tensors;  ///< by name

  /// One file of all tensors. Overwrites.
  void write(const std::filesystem::path& path) const {
    nlohmann::json header;
    std::string data;
    for (const auto& [name, tensor] : tensors) {
      header[name] = {{"dtype", tensor.dtype},
                      {"shape", tensor.shape},
                      {"data_offsets", {data.size(), data.size() + tensor.bytes.size()}}};
      data += tensor.bytes;
    }
    const std::string text = header.dump();
    const std::uint64_t length = text.size();
    std::ofstream file(path, std::ios::binary);
    file.write(reinterpret_cast<const char*>(&length), sizeof length);
    file << text << data;
  }

 private:
  void read(const std::filesystem::path& path) {
    std::ifstream file(path, std::ios::binary);
    const std::string all{std::istreambuf_iterator<char>(file), {}};
    const auto header = checkpoint::read_safetensors_header(path, 0);
    const auto json = nlohmann::json::parse(
        all.substr(sizeof(std::uint64_t), header.data_offset_bytes - sizeof(std::uint64_t)));
    for (const checkpoint::SafetensorsTensor& tensor : header.tensors) {
      tensors[tensor.name] = {json.at(tensor.name).at("dtype"), tensor.shape,
                              all.substr(header.data_offset_bytes + tensor.begin_bytes,
                                         tensor.end_bytes - tensor.begin_bytes)};
    }
  }
};

}  // namespace tessera::test
