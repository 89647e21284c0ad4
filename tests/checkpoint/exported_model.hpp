// SPDX-License-Identifier: Apache-2.0
// A model of every kind of parameter that an export meets, with known values; and the reading of
// what was exported, in plain loops.
#pragma once

#include <array>
#include <bit>
#include <catch2/catch.hpp>
#include <cmath>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "shards.hpp"
#include "tessera/checkpoint/hugging_face_writer.hpp"
#include "tessera/checkpoint/safetensors.hpp"

namespace tessera::test {

using namespace tessera::checkpoint;
using comm::ProcessGrid;
namespace fs = std::filesystem;

/// Bit pattern of element i of a parameter: any of the type's numbers, infinities and NaN of one
/// kind included.
inline float element(const Parameter& parameter, Dtype dtype, std::int64_t i) {
  std::uint64_t hash =
      std::hash<std::string>{}(parameter.name) + std::uint64_t(i) * 0x9e3779b97f4a7c15u;
  hash = (hash ^ (hash >> 29)) * 0xbf58476d1ce4e5b9u;
  const auto bits = static_cast<std::uint32_t>(hash >> 32);
  const float value = dtype == Dtype::f16    ? f16_to_float(static_cast<std::uint16_t>(bits))
                      : dtype == Dtype::bf16 ? std::bit_cast<float>(bits & 0xffff0000u)
                                             : std::bit_cast<float>(bits);
  return std::isnan(value) ? std::bit_cast<float>(0x7fc00000u) : value;
}

template <class T>
void append(std::string& bytes, T value) {
  bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
}

inline void append_element(std::string& bytes, Dtype dtype, float value) {
  if (dtype == Dtype::f32) append(bytes, value);
  if (dtype == Dtype::bf16) append(bytes, bf16(value).bits);
  if (dtype == Dtype::f16) append(bytes, float_to_f16(value));
  if (dtype == Dtype::f64) append(bytes, double(value));
}

struct ReadTensor {
  Dtype dtype;
  Shape shape;
  std::string bytes;
  bool operator==(const ReadTensor&) const = default;
};
using Tensors = std::map<std::string, ReadTensor>;

inline std::string read_file(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

inline Tensors read_tensors(const fs::path& directory) {
  Tensors tensors;
  for (const auto& entry : fs::directory_iterator(directory)) {
    if (entry.path().extension() != ".safetensors") continue;
    const SafetensorsHeader header = read_safetensors_header(entry.path(), 0);
    CHECK(header.data_offset_bytes % 8 == 0);
    const std::string content = read_file(entry.path());
    for (const SafetensorsTensor& tensor : header.tensors) {
      CHECK(tensor.begin_bytes % std::int64_t(size_of(tensor.dtype)) == 0);
      tensors[tensor.name] = {
          tensor.dtype, tensor.shape,
          content.substr(std::size_t(header.data_offset_bytes + tensor.begin_bytes),
                         std::size_t(tensor.end_bytes - tensor.begin_bytes))};
    }
  }
  return tensors;
}

struct ExportedModel {
  std::vector<Parameter> dense = {
      {.name = "embed", .shape = {61, 35}},
      {.name = "norm", .shape = {35}},
      {.name = "gate", .shape = {7, 35}},
      {.name = "bias", .shape = {7}, .trainable = false},
      {.name = "kernel", .shape = {3, 2, 5, 7}},
      {.name = "q", .shape = {4, 10}, .stored = {{"qk", {6, 10}, 0, 40, 0}}},
      {.name = "k", .shape = {2, 10}, .stored = {{"qk", {6, 10}, 0, 20, 40}}}};
  std::vector<Parameter> expert = {
      {.name = "up", .shape = {5, 22, 13}, .is_expert = true, .transposed = true},
      {.name = "up_bias", .shape = {5, 22}, .is_expert = true},
      {.name = "fp4",
       .shape = {5, 6, 64},
       .is_expert = true,
       .transposed = true,
       .may_be_mxfp4 = true},
      {.name = "fused", .shape = {5, 6, 11}, .is_expert = true}};
  Origins origins = {{"norm", {{Dtype::f32}}},       {"gate", {{Dtype::f16}}},
                     {"bias", {{Dtype::f32}}},       {"kernel", {{Dtype::f64}}},
                     {"fp4", {{Dtype::bf16}, true}}, {"up_bias", {{Dtype::f16}}}};
  EmbeddedFiles files = {{"config.json", "{}"}, {"tokenizer.json", std::string("\0\xff", 2)}};

  ExportedModel() {
    Origin& fused = origins["fused"];
    fused.dtypes.clear();
    for (std::int64_t e = 0; e < 5; ++e)
      for (std::int64_t half = 0; half < 2; ++half) {
        expert[3].stored.push_back(
            {fmt::format("experts.{}.w{}", e, half), {3, 11}, (2 * e + half) * 33, 33, 0});
        fused.dtypes.push_back(half == 0 ? Dtype::bf16 : e == 3 ? Dtype::f32 : Dtype::f16);
      }
  }

  std::vector<Parameter> all() const {
    std::vector<Parameter> parameters = dense;
    parameters.insert(parameters.end(), expert.begin(), expert.end());
    return parameters;
  }
  bool is_mxfp4(const Parameter& parameter) const { return parameter.name == "fp4" && keeps_mxfp4; }
  bool keeps_mxfp4 = true;

  static std::uint8_t scale(std::int64_t block) { return std::uint8_t(60 + block * 7 % 120); }
  /// Value of element i as it is in memory.
  float value(const Parameter& parameter, std::int64_t i) const {
    if (parameter.name == "fp4")
      return std::ldexp(std::array{0.f, -0.f, .5f, 1.f, -1.5f, 2.f, -3.f}[std::size_t(i * i % 7)],
                        scale(i / 32) - 127);
    return element(parameter, dtype(parameter, i), i);
  }
  Dtype dtype(const Parameter& parameter, std::int64_t i) const {
    const auto found = origins.find(parameter.name);
    if (found == origins.end()) return Dtype::bf16;
    const std::vector<Dtype>& dtypes = found->second.dtypes;
    return dtypes.size() == 1 ? dtypes[0] : dtypes[std::size_t(i / 33)];
  }

  Tensors expected() const;
};

inline Tensors ExportedModel::expected() const {
  Tensors tensors;
  for (const Parameter& parameter : all()) {
    if (is_mxfp4(parameter)) {
      std::vector<float> values;
      std::vector<std::uint8_t> scales, blocks(5 * 6 * 2 * 16), kept(5 * 6 * 2);
      for (std::int64_t i = 0; i < parameter.size(); ++i) values.push_back(value(parameter, i));
      for (std::int64_t b = 0; b < 5 * 6 * 2; ++b) scales.push_back(scale(b));
      mxfp4_encode(values, scales, blocks, kept);
      CHECK(kept == scales);
      tensors["fp4_blocks"] = {Dtype::u8, {5, 6, 2, 16}, {blocks.begin(), blocks.end()}};
      tensors["fp4_scales"] = {Dtype::u8, {5, 6, 2}, {scales.begin(), scales.end()}};
      continue;
    }
    for (const StoredPart& part : parameter.stored_parts()) {
      const Dtype type = dtype(parameter, part.begin);
      ReadTensor& tensor = tensors[part.tensor];
      tensor.dtype = type;
      tensor.shape = part.shape;
      for (std::int64_t k = 0; k < part.size; ++k) {
        std::int64_t i = part.begin + k;
        if (parameter.transposed) {
          const std::int64_t in = parameter.shape[2], out = parameter.shape[1];
          i = (k / (in * out) * out + k % out) * in + k / out % in;
        }
        append_element(tensor.bytes, type, value(parameter, i));
      }
    }
  }
  return tensors;
}

inline void write_unit(HuggingFaceWriter& writer, const ProcessGrid& grid,
                       const ExportedModel& model, const std::vector<Parameter>& parameters) {
  const Shard mine = deal_unit(grid, parameters);
  std::vector<float> shard(std::size_t(mine.num_elements));
  ScaleShards scales;
  for (const Slice& slice : mine.slices) {
    for (std::int64_t i = slice.begin; i < slice.end; ++i)
      shard[std::size_t(slice.shard_offset + i - slice.begin)] = model.value(*slice.parameter, i);
    if (slice.parameter->name == "fp4")
      for (std::int64_t b = slice.begin / 32; b < slice.end / 32; ++b)
        scales["fp4"].push_back(ExportedModel::scale(b));
  }
  writer.write(mine.slices, shard, scales);
}

/// collective over grid.world().
inline std::int64_t save(const ProcessGrid& grid, const ExportedModel& model, const fs::path& path,
                         const ExportOptions& options = {}) {
  HuggingFaceWriter writer(grid.world(), path, model.all(), model.origins, model.files, options);
  write_unit(writer, grid, model, model.dense);
  write_unit(writer, grid, model, model.expert);
  writer.commit();
  return writer.written_bytes();
}

inline std::vector<int> expert_axes() {
  int size = 1;
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  std::vector<int> axes;
  for (int e = 1; e <= size; ++e)
    if (size % e == 0) axes.push_back(e);
  return axes;
}

inline bool exists(const ProcessGrid& grid, const fs::path& path) {
  grid.world().barrier("look at files");
  const bool found = fs::exists(path);
  grid.world().barrier("looked at files");
  return found;
}

inline std::string differing(const Tensors& actual, const Tensors& expected) {
  std::string names;
  for (const auto& [name, tensor] : expected)
    if (!actual.contains(name) || actual.at(name) != tensor) names += " " + name;
  for (const auto& [name, tensor] : actual)
    if (!expected.contains(name)) names += " unexpected:" + name;
  return names;
}

}  // namespace tessera::test
