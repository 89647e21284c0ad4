// SPDX-License-Identifier: Apache-2.0
// What a Hugging Face directory holds, found by one rank from headers alone and given to the others
// as one string.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "tessera/checkpoint/hdf5_store.hpp"

namespace tessera::checkpoint {

struct HuggingFaceDirectory {
  std::string config_json;
  std::vector<TensorInfo> tensors;  ///< sorted by name
  EmbeddedFiles files;

  std::string serialise() const;
  static HuggingFaceDirectory deserialise(const std::string& text);
};

/// Reads config.json, the index if there is one, every header and the small files, and checks that
/// index and headers name the same tensors. Throws Error::file, Error::format or Error::keys.
/// local.
HuggingFaceDirectory scan_hugging_face_directory(const std::filesystem::path& directory,
                                                 int world_rank);

}  // namespace tessera::checkpoint
