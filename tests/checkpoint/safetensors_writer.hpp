// SPDX-License-Identifier: Apache-2.0
// Writes safetensors files and Hugging Face directories for tests: every element's bits follow from
// its tensor and its place in Tessera's orientation, so that a single misplaced element shows.
#pragma once

#include <fmt/format.h>

#include <bit>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "base/dtype.hpp"
#include "base/parameter.hpp"

namespace tessera::test {

inline void write_text(const std::filesystem::path& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}

/// A file of header length, header and data as they are given, sound or not.
inline std::string safetensors_bytes(const std::string& header, const std::string& data) {
  std::uint64_t length = header.size();
  std::string text(sizeof length, '\0');
  std::memcpy(text.data(), &length, sizeof length);
  return text + header + data;
}

struct TestTensor {
  Parameter parameter;
  Dtype dtype = Dtype::f32;
};

/// Bits of element `index` (global, row-major in Tessera's orientation): never NaN or infinity.
inline std::uint64_t element_bits(const TestTensor& tensor, std::int64_t index) {
  std::uint64_t hash = std::hash<std::string>{}(tensor.parameter.name) + std::uint64_t(index);
  hash = (hash ^ (hash >> 30)) * 0xbf58476d1ce4e5b9u;
  hash = (hash ^ (hash >> 27)) * 0x94d049bb133111ebu;
  hash ^= hash >> 31;
  switch (tensor.dtype) {
    case Dtype::bf16: return hash % 0x7f80 + (hash >> 63) * 0x8000;
    case Dtype::f16: return hash % 0x7c00 + (hash >> 63) * 0x8000;
    case Dtype::f32: return hash % 0x7f800000 + (hash >> 63) * 0x80000000u;
    default: return std::bit_cast<std::uint64_t>(double(std::int32_t(hash)));
  }
}

inline float element_value(const TestTensor& tensor, std::int64_t index) {
  const std::uint64_t bits = element_bits(tensor, index);
  switch (tensor.dtype) {
    case Dtype::bf16: return std::bit_cast<float>(std::uint32_t(bits) << 16);
    case Dtype::f16: return f16_to_float(std::uint16_t(bits));
    case Dtype::f32: return std::bit_cast<float>(std::uint32_t(bits));
    default: return float(std::bit_cast<double>(bits));
  }
}

/// The tensor's bytes in the file's orientation.
inline std::string tensor_bytes(const TestTensor& tensor) {
  const Shape shape = tensor.parameter.checkpoint_shape();
  const auto element_bytes = std::int64_t(size_of(tensor.dtype));
  std::string bytes(std::size_t(num_elements(shape) * element_bytes), '\0');
  for (std::int64_t k = 0; k < num_elements(shape); ++k) {
    std::int64_t index = k;
    if (tensor.parameter.transposed) {
      const std::int64_t column = k % shape[2], row = k / shape[2] % shape[1];
      index = (k / (shape[1] * shape[2]) * shape[2] + column) * shape[1] + row;
    }
    const std::uint64_t bits = element_bits(tensor, index);
    std::memcpy(bytes.data() + k * element_bytes, &bits, std::size_t(element_bytes));
  }
  return bytes;
}

/// A tensor as it lies in the file.
struct RawTensor {
  std::string name;
  Dtype dtype = Dtype::f32;
  Shape shape;
  std::string bytes;
};

inline RawTensor raw(const TestTensor& tensor) {
  return {tensor.parameter.name, tensor.dtype, tensor.parameter.checkpoint_shape(),
          tensor_bytes(tensor)};
}

inline void write_safetensors(const std::filesystem::path& path,
                              const std::vector<RawTensor>& tensors) {
  const std::map<Dtype, const char*> names = {
      {Dtype::f32, "F32"}, {Dtype::bf16, "BF16"}, {Dtype::f16, "F16"},        {Dtype::f64, "F64"},
      {Dtype::i64, "I64"}, {Dtype::u8, "U8"},     {Dtype::f8_e4m3, "F8_E4M3"}};
  std::string header = R"({"__metadata__":{"format":"pt"})", data;
  for (const RawTensor& tensor : tensors) {
    header += fmt::format(R"(,"{}":{{"dtype":"{}","shape":{},"data_offsets":[{},{}]}})",
                          tensor.name, names.at(tensor.dtype), to_string(tensor.shape), data.size(),
                          data.size() + tensor.bytes.size());
    data += tensor.bytes;
  }
  header += "}   ";  // padded with spaces, as the safetensors library does
  write_text(path, safetensors_bytes(header, data));
}

inline std::vector<RawTensor> raw(const std::vector<TestTensor>& tensors) {
  std::vector<RawTensor> result;
  for (const TestTensor& tensor : tensors) result.push_back(raw(tensor));
  return result;
}

inline void write_safetensors(const std::filesystem::path& path,
                              const std::vector<TestTensor>& tensors) {
  write_safetensors(path, raw(tensors));
}

/// config.json and the tensors, dealt in turn to `num_files` files with their index (1: the single
/// file).
inline void write_directory(const std::filesystem::path& path,
                            const std::vector<RawTensor>& tensors, int num_files) {
  write_text(path / "config.json", R"({"model_type": "test"})");
  if (num_files == 1) return write_safetensors(path / "model.safetensors", tensors);
  std::string map;
  for (int file = 0; file < num_files; ++file) {
    const std::string name = fmt::format("model-{:05}-of-{:05}.safetensors", file + 1, num_files);
    std::vector<RawTensor> part;
    for (std::size_t k = std::size_t(file); k < tensors.size(); k += std::size_t(num_files)) {
      part.push_back(tensors[k]);
      map += fmt::format("{}\"{}\":\"{}\"", map.empty() ? "" : ",", tensors[k].name, name);
    }
    write_safetensors(path / name, part);
  }
  write_text(path / "model.safetensors.index.json",
             fmt::format(R"({{"metadata":{{}},"weight_map":{{{}}}}})", map));
}

inline void write_directory(const std::filesystem::path& path,
                            const std::vector<TestTensor>& tensors, int num_files) {
  write_directory(path, raw(tensors), num_files);
}

}  // namespace tessera::test
