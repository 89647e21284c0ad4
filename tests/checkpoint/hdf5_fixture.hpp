// SPDX-License-Identifier: Apache-2.0
// Units of parameters with known element values, written to and compared with Tessera files.
#pragma once

#include <bit>
#include <catch2/catch.hpp>
#include <cmath>
#include <string>
#include <vector>

#include "shards.hpp"
#include "tessera/checkpoint/hdf5_store.hpp"

namespace tessera::test {

using namespace tessera::checkpoint;

/// Parameters of one flat unit with the dtype of each dataset.
struct Unit {
  std::vector<Parameter> parameters;
  std::vector<Dtype> dtypes;

  std::int64_t file_bytes() const {
    std::int64_t sum = 0;
    for (std::size_t p = 0; p < parameters.size(); ++p)
      sum += parameters[p].size() * std::int64_t(size_of(dtypes[p]));
    return sum;
  }
};

inline Unit dense_unit() {
  return {{{.name = "embed.weight", .shape = {61, 35}},
           {.name = "norm.weight", .shape = {35}},
           {.name = "head.weight", .shape = {277, 1021}},
           {.name = "kernel", .shape = {3, 2, 5, 7}}},
          {Dtype::bf16, Dtype::f32, Dtype::f32, Dtype::f16}};
}

inline Unit expert_unit(std::int64_t experts = 5) {
  return {{{.name = "layers.0.gate_up_proj",
            .shape = {experts, 22, 13},
            .is_expert = true,
            .transposed = true},
           {.name = "layers.0.gate_up_bias", .shape = {experts, 22}, .is_expert = true},
           {.name = "layers.0.down_proj",
            .shape = {experts, 13, 11},
            .is_expert = true,
            .transposed = true},
           {.name = "layers.0.scale", .shape = {experts, 3}, .is_expert = true}},
          {Dtype::bf16, Dtype::bf16, Dtype::f16, Dtype::f32}};
}

/// Experts that were MXFP4 where they came from.
inline Unit mxfp4_unit() {
  return {
      {{.name = "layers.1.down_proj", .shape = {3, 6, 96}, .is_expert = true, .transposed = true}},
      {Dtype::bf16}};
}

/// Element i of parameter p: a bit pattern of the dtype (no NaN), different for each salt.
inline float element(Dtype dtype, int salt, std::size_t p, std::int64_t i) {
  std::uint64_t hash = (std::uint64_t(i) + 1) * 0x9e3779b97f4a7c15u + p * 1000003u + unsigned(salt);
  hash = (hash ^ (hash >> 29)) * 0xbf58476d1ce4e5b9u;
  const auto bits = static_cast<std::uint32_t>(hash >> 32);
  float value = std::bit_cast<float>(bits);
  if (dtype == Dtype::bf16) value = std::bit_cast<float>(bits & 0xffff0000u);
  if (dtype == Dtype::f16) value = f16_to_float(static_cast<std::uint16_t>(bits));
  return std::isnan(value) ? float(p + 1) : value;
}

/// Specifications of a unit's datasets in `group`; `unit` must outlive them.
inline void add_specs(const Unit& unit, const std::string& group, std::vector<DatasetSpec>& specs) {
  for (std::size_t p = 0; p < unit.parameters.size(); ++p)
    specs.push_back({group, &unit.parameters[p], unit.dtypes[p]});
}

/// Writes this rank's part of the unit. collective over grid.world().
inline void write_unit(Hdf5Writer& writer, const comm::ProcessGrid& grid, const std::string& group,
                       const Unit& unit, int salt) {
  const Shard mine = deal_unit(grid, unit.parameters);
  std::vector<float> shard(std::size_t(mine.num_elements), -1.0f);
  for (const Slice& slice : mine.slices) {
    const std::size_t p = std::size_t(slice.parameter - unit.parameters.data());
    for (std::int64_t i = slice.begin; i < slice.end; ++i)
      shard[std::size_t(slice.shard_offset + i - slice.begin)] =
          element(unit.dtypes[p], salt, p, i);
  }
  writer.write(group, unit.parameters, mine.slices, shard);
}

inline std::uint8_t scale(std::int64_t block) { return std::uint8_t(100 + block * 7 % 50); }

/// Writes the scales of this rank's part. collective over grid.world().
inline void write_scales(Hdf5Writer& writer, const comm::ProcessGrid& grid, const Unit& unit) {
  const Shard mine = deal_unit(grid, unit.parameters);
  ScaleShards scales;
  for (const Slice& slice : mine.slices)
    for (std::int64_t i = slice.begin / 32; i < slice.end / 32; ++i)
      scales[slice.parameter->name].push_back(scale(i));
  writer.write_scales(unit.parameters, mine.slices, scales);
}

/// Reads this rank's part and compares every element bit for bit, padding included. Empty if all
/// agree. collective over grid.world().
inline std::string compare_unit(Hdf5Source& source, const comm::ProcessGrid& grid,
                                const std::string& group, const Unit& unit, int salt,
                                const LoadOptions& options, LoadReport& report) {
  constexpr float untouched = -12345.0f;
  const Shard mine = deal_unit(grid, unit.parameters);
  std::vector<float> shard(std::size_t(mine.num_elements), untouched), expected = shard;
  report += source.load_group(grid, group, unit.parameters, mine.slices, shard, options);
  for (const Slice& slice : mine.slices) {
    const std::size_t p = std::size_t(slice.parameter - unit.parameters.data());
    for (std::int64_t i = slice.begin; i < slice.end; ++i)
      expected[std::size_t(slice.shard_offset + i - slice.begin)] =
          element(unit.dtypes[p], salt, p, i);
  }
  for (std::size_t i = 0; i < shard.size(); ++i) {
    if (std::bit_cast<std::uint32_t>(shard[i]) == std::bit_cast<std::uint32_t>(expected[i]))
      continue;
    return fmt::format("shard[{}] of /{} is {} instead of {}", i, group, shard[i], expected[i]);
  }
  return "";
}

/// A whole checkpoint: both units as parameters and as two optimizer states in f32.
struct Checkpoint {
  Unit dense = dense_unit();
  Unit expert = expert_unit();
  Unit mxfp4 = {};  ///< mxfp4_unit() to have one; without optimizer state
  TrainingState state{.step = 17,
                      .optimizer_steps = 16,
                      .data_position = 544,
                      .seed = 18446744073709551557u,
                      .optimizer = "adamw",
                      .training_json = R"({"total_steps": 40})"};
  EmbeddedFiles files{{"config.json", R"({"model_type": "gpt_oss"})"}};

  static Unit in_f32(Unit unit) {
    unit.dtypes.assign(unit.dtypes.size(), Dtype::f32);
    return unit;
  }

  void save(const comm::ProcessGrid& grid, const std::filesystem::path& path,
            TransferMode transfer = TransferMode::automatic) const {
    const Unit dense_state = in_f32(dense), expert_state = in_f32(expert);
    std::vector<DatasetSpec> specs;
    add_specs(dense, "parameters", specs);
    add_specs(expert, "parameters", specs);
    add_specs(dense_state, "optimizer/exp_avg", specs);
    add_specs(expert_state, "optimizer/exp_avg", specs);
    for (const Parameter& parameter : mxfp4.parameters) {
      specs.push_back(
          {"parameters", &parameter, mxfp4.dtypes[0], {.dtypes = {Dtype::bf16}, .mxfp4 = true}});
    }
    Hdf5Writer writer(grid.world(), path, specs, state, files, transfer);
    write_unit(writer, grid, "parameters", dense, 1);
    write_unit(writer, grid, "parameters", expert, 2);
    write_unit(writer, grid, "optimizer/exp_avg", dense_state, 3);
    write_unit(writer, grid, "optimizer/exp_avg", expert_state, 4);
    if (!mxfp4.parameters.empty()) {
      write_unit(writer, grid, "parameters", mxfp4, 5);
      write_scales(writer, grid, mxfp4);
    }
    writer.commit();
  }

  /// Empty if the file has this checkpoint's elements.
  std::string compare(const comm::ProcessGrid& grid, const std::filesystem::path& path,
                      LoadReport& report, const LoadOptions& options = {},
                      TransferMode transfer = TransferMode::automatic) const {
    const auto source = Hdf5Source::open(grid.world(), path, transfer);
    std::string wrong;
    wrong += compare_unit(*source, grid, "parameters", dense, 1, options, report);
    wrong += compare_unit(*source, grid, "parameters", expert, 2, options, report);
    wrong += compare_unit(*source, grid, "optimizer/exp_avg", in_f32(dense), 3, options, report);
    wrong += compare_unit(*source, grid, "optimizer/exp_avg", in_f32(expert), 4, options, report);
    if (!mxfp4.parameters.empty())
      wrong += compare_unit(*source, grid, "parameters", mxfp4, 5, options, report);
    return wrong;
  }

  std::int64_t file_bytes() const {
    return dense.file_bytes() + expert.file_bytes() + in_f32(dense).file_bytes() +
           in_f32(expert).file_bytes();
  }
};

/// Every expert-axis length that divides the job.
inline std::vector<int> expert_axes() {
  int size = 1;
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  std::vector<int> axes;
  for (int e = 1; e <= size; ++e)
    if (size % e == 0) axes.push_back(e);
  return axes;
}

}  // namespace tessera::test
