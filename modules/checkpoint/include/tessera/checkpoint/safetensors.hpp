// SPDX-License-Identifier: Apache-2.0
// The header of a safetensors file (https://github.com/huggingface/safetensors): where each tensor
// lies. Files come from strangers, so every number is checked before it is used.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "base/dtype.hpp"
#include "base/parameter.hpp"

namespace tessera::checkpoint {

/// Longest header that is read, the limit of the safetensors library [bytes].
inline constexpr std::uint64_t max_safetensors_header_bytes = 100'000'000;

struct SafetensorsTensor {
  std::string name;
  Dtype dtype = Dtype::f32;
  Shape shape;
  std::int64_t begin_bytes = 0;  ///< in the data section
  std::int64_t end_bytes = 0;    ///< one past the last byte
};

struct SafetensorsHeader {
  std::vector<SafetensorsTensor> tensors;  ///< in the order of their data
  std::int64_t data_offset_bytes = 0;      ///< where the data section begins in the file
};

/// The tensors that `header_json` describes, checked: they fill the data section of `data_bytes`
/// without overlap or hole, and each one's shape and dtype need exactly its bytes. `file` names it
/// in messages. Throws Error::format naming file, tensor and reason. local, pure.
std::vector<SafetensorsTensor> parse_safetensors_header(std::string_view header_json,
                                                        std::uint64_t data_bytes,
                                                        const std::string& file);

/// Reads and checks the header of one file; its length is checked against the file's size and the
/// limit before memory is asked for. Throws Error::file or Error::format. local; world_rank: of
/// this process.
SafetensorsHeader read_safetensors_header(const std::filesystem::path& path, int world_rank);

}  // namespace tessera::checkpoint
