// SPDX-License-Identifier: Apache-2.0
// Loads units of a Hugging Face directory on every grid and compares each element, the bytes that
// were moved and the fingerprints with what a test says.
#pragma once

#include <bit>
#include <catch2/catch.hpp>
#include <vector>

#include "safetensors_writer.hpp"
#include "shards.hpp"
#include "support/collective_check.hpp"
#include "support/temporary_directory.hpp"
#include "tessera/checkpoint/hugging_face.hpp"

namespace tessera::test {

/// A parameter and all of its values, in Tessera's order.
struct Expected {
  Parameter parameter;
  std::vector<float> values;
};

inline std::vector<Parameter> parameters_of(const std::vector<Expected>& expected) {
  std::vector<Parameter> parameters;
  for (const Expected& each : expected) parameters.push_back(each.parameter);
  return parameters;
}

/// Bits, because -0 equals 0 and a NaN nothing.
inline std::vector<std::uint32_t> bits_of(const std::vector<float>& values) {
  std::vector<std::uint32_t> bits;
  for (const float value : values) bits.push_back(std::bit_cast<std::uint32_t>(value));
  return bits;
}

/// The sum over the ranks equals what add() says of the whole tensor. collective over the grid.
inline void check_fingerprints(const comm::ProcessGrid& grid, const std::vector<Expected>& expected,
                               checkpoint::FingerprintTable& of_ranks) {
  of_ranks.sum(grid.world());
  checkpoint::FingerprintTable of_whole;
  for (const Expected& each : expected) of_whole.add(each.parameter, 0, each.values);
  CHECK(of_ranks.tensors().size() == of_whole.tensors().size());
  for (const auto& [name, whole] : of_whole.tensors()) {
    const checkpoint::TensorFingerprint* found = of_ranks.find(name);
    INFO(name);
    CHECK((found != nullptr && found->experts == whole.experts));
    CHECK((found != nullptr && found->num_elements == whole.num_elements));
  }
}

/// Loads one unit and compares every element of the shard, padding included, and the fingerprints.
/// Returns what was moved; `scales` as in LoadOptions. collective over the grid.
inline checkpoint::LoadReport load_and_check(const comm::ProcessGrid& grid,
                                             checkpoint::Source& source,
                                             const std::vector<Expected>& expected,
                                             std::int64_t buffer_bytes,
                                             checkpoint::ScaleShards* scales = nullptr) {
  constexpr float untouched = -12345.0f;
  const std::vector<Parameter> parameters = parameters_of(expected);
  const Shard shard = deal_unit(grid, parameters);
  std::vector<float> values(std::size_t(shard.num_elements), untouched);
  std::vector<float> wanted = values;
  for (const Slice& slice : shard.slices) {
    const auto& whole = expected[std::size_t(slice.parameter - parameters.data())].values;
    std::copy(whole.begin() + slice.begin, whole.begin() + slice.end,
              wanted.begin() + slice.shard_offset);
  }
  checkpoint::FingerprintTable fingerprints;
  const checkpoint::LoadReport report =
      source.load(grid, parameters, shard.slices, values,
                  {.buffer_bytes = buffer_bytes, .scales = scales, .fingerprints = &fingerprints});
  CHECK((bits_of(values) == bits_of(wanted)));
  CHECK(report.read_bytes == report.planned_bytes);
  CHECK(report.peak_buffer_bytes <= buffer_bytes);
  check_fingerprints(grid, expected, fingerprints);
  return report;
}

inline std::int64_t sum(const comm::ProcessGrid& grid, std::int64_t value) {
  return grid.world().all_reduce_value("sum", value, comm::ReduceOp::sum);
}

/// Calls `body` with every grid of this number of ranks.
template <class Body>
void for_each_grid(Body&& body) {
  int num_ranks = 0;
  MPI_Comm_size(MPI_COMM_WORLD, &num_ranks);
  for (int expert_ranks = 1; expert_ranks <= num_ranks; ++expert_ranks) {
    if (num_ranks % expert_ranks != 0) continue;
    const comm::ProcessGrid grid(MPI_COMM_WORLD, {.expert = expert_ranks});
    INFO(grid.describe());
    body(grid);
  }
}

/// `tensors`: RawTensors or TestTensors.
template <class Tensor>
std::unique_ptr<checkpoint::Source> write_and_open(const comm::ProcessGrid& grid,
                                                   const TemporaryDirectory& directory,
                                                   const std::vector<Tensor>& tensors,
                                                   int num_files) {
  if (grid.world().rank() == 0) write_directory(directory.path(), tensors, num_files);
  return checkpoint::Source::open(grid.world(), directory.path());
}

}  // namespace tessera::test
