// SPDX-License-Identifier: Apache-2.0
#include "safetensors_header.hpp"

#include <cstring>
#include <nlohmann/json.hpp>

#include "base/error.hpp"

namespace tessera::checkpoint {

const char* safetensors_name(Dtype dtype) {
  switch (dtype) {
    case Dtype::u8: return "U8";
    case Dtype::f16: return "F16";
    case Dtype::bf16: return "BF16";
    case Dtype::f32: return "F32";
    case Dtype::f64: return "F64";
    default: fail(ErrorKind::internal, "{} is no element type of an export", to_string(dtype));
  }
}

std::string safetensors_header(std::span<const SafetensorsTensor> tensors) {
  std::string json = R"({"__metadata__":{"format":"pt"})";
  for (const SafetensorsTensor& tensor : tensors) {
    const nlohmann::ordered_json entry = {{"dtype", safetensors_name(tensor.dtype)},
                                          {"shape", tensor.shape},
                                          {"data_offsets", {tensor.begin_bytes, tensor.end_bytes}}};
    json += fmt::format(",{}:{}", nlohmann::json(tensor.name).dump(), entry.dump());
  }
  json += "}";
  std::uint64_t length = (json.size() + 7) / 8 * 8;
  json.resize(length, ' ');
  std::string header(sizeof length, '\0');
  std::memcpy(header.data(), &length, sizeof length);
  return header + json;
}

}  // namespace tessera::checkpoint
