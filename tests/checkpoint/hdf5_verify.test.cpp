// SPDX-License-Identifier: Apache-2.0
// What verification says of files whose experts were swapped, zeroed or written by the wrong rank.
#include <fmt/ranges.h>

#include <optional>

#include "hdf5_change.hpp"
#include "support/collective_check.hpp"
#include "support/temporary_directory.hpp"
#include "tessera/checkpoint/verify.hpp"

using namespace tessera;
using namespace tessera::checkpoint;
using Catch::Contains;
using comm::ProcessGrid;
using test::Checkpoint;

namespace fs = std::filesystem;

namespace {

std::vector<std::string> differences(const ProcessGrid& grid, const fs::path& path) {
  const auto source = Hdf5Source::open(grid.world(), path);
  const VerifyReport report = verify_file(grid, *source);
  CHECK_SAME(grid.world(), fmt::format("{}", fmt::join(report.differences, "\n")));
  return report.differences;
}

std::vector<Parameter> parameters_of(const Checkpoint& checkpoint) {
  std::vector<Parameter> all = checkpoint.dense.parameters;
  for (const test::Unit* unit : {&checkpoint.expert, &checkpoint.mxfp4})
    all.insert(all.end(), unit->parameters.begin(), unit->parameters.end());
  return all;
}

VerifyReport compare(const ProcessGrid& grid, const fs::path& a, const fs::path& b,
                     const std::vector<Parameter>& parameters) {
  const auto first = Source::open(grid.world(), a), second = Source::open(grid.world(), b);
  VerifyReport report = compare_sources(grid, *first, *second, parameters, parameters);
  CHECK_SAME(grid.world(), fmt::format("{}", fmt::join(report.differences, "\n")));
  return report;
}

}  // namespace

TEST_CASE("a file is as it was written, whichever grid wrote it and whichever reads it") {
  const Checkpoint checkpoint = test::with_mxfp4();
  std::optional<Fingerprint> first;
  for (const int writing : test::expert_axes()) {
    const ProcessGrid writers(MPI_COMM_WORLD, {writing}), readers(MPI_COMM_WORLD, {1});
    const test::TemporaryDirectory directory(writers.world());
    checkpoint.save(writers, directory / "model.h5");
    const auto source = Hdf5Source::open(readers.world(), directory / "model.h5");
    const VerifyReport report = verify_file(readers, *source);
    CHECK(report.differences.empty());
    CHECK(report.has_stored_fingerprints);
    CHECK(report.num_tensors == 8 + 8 + 1 + 1 + 1);  // both groups, MXFP4 with scales, one file
    CHECK(report.read_bytes == std::int64_t(checkpoint.file_bytes() + 3 * 6 * 96 * 2 + 3 * 6 * 3 +
                                            checkpoint.files.at("config.json").size()));
    if (first) CHECK(report.parameters == *first);
    first = report.parameters;
  }
}

TEST_CASE("scales come back beside the values, and with them where the parameter came from") {
  const Checkpoint checkpoint = test::with_mxfp4();
  for (const int axis : test::expert_axes()) {
    const ProcessGrid grid(MPI_COMM_WORLD, {axis});
    const test::TemporaryDirectory directory(grid.world());
    checkpoint.save(grid, directory / "model.h5");
    const auto source = Hdf5Source::open(grid.world(), directory / "model.h5");
    const Parameter& parameter = checkpoint.mxfp4.parameters[0];
    CHECK(source->origin(parameter).mxfp4);
    CHECK_FALSE(source->origin(checkpoint.dense.parameters[0]).mxfp4);
    CHECK(source->stored_bytes(parameter) == 3 * 6 * 96 * 2 + 3 * 6 * 3);

    const test::Shard mine = test::deal_unit(grid, checkpoint.mxfp4.parameters);
    std::vector<float> shard(std::size_t(mine.num_elements));
    ScaleShards scales;
    FingerprintTable read;
    source->load(grid, checkpoint.mxfp4.parameters, mine.slices, shard,
                 {.scales = &scales, .fingerprints = &read});
    std::vector<std::uint8_t> expected;
    for (const Slice& slice : mine.slices)
      for (std::int64_t i = slice.begin / 32; i < slice.end / 32; ++i)
        expected.push_back(test::scale(i));
    CHECK(scales[parameter.name] == expected);
    read.sum(grid.world());
    CHECK(read.find(parameter.name)->experts ==
          source->fingerprint("parameters", parameter.name)->experts);
  }
}

TEST_CASE("two experts that changed places are named, in parameters, moments and scales") {
  const ProcessGrid grid(MPI_COMM_WORLD, {1});
  const Checkpoint checkpoint = test::with_mxfp4();
  for (const auto& [name, num_experts] : std::vector<std::pair<std::string, std::int64_t>>{
           {"/parameters/layers.0.gate_up_proj", 5},
           {"/optimizer/exp_avg/layers.0.down_proj", 5},
           {"/mxfp4_scales/layers.1.down_proj", 3}}) {
    const test::TemporaryDirectory directory(grid.world());
    checkpoint.save(grid, directory / "model.h5");
    test::change_experts(grid, directory / "model.h5", name, num_experts,
                         [](auto& experts) { std::swap(experts[0], experts[2]); });
    const auto found = differences(grid, directory / "model.h5");
    REQUIRE_ALL(grid.world(), found.size() == 2);
    CHECK(found[0] == name + ": expert 0 holds what was written as expert 2");
    CHECK(found[1] == name + ": expert 2 holds what was written as expert 0");
  }
}

TEST_CASE("an expert of zeros is called so") {
  const ProcessGrid grid(MPI_COMM_WORLD, {1});
  const test::TemporaryDirectory directory(grid.world());
  const Checkpoint checkpoint;
  checkpoint.save(grid, directory / "model.h5");
  test::change_experts(grid, directory / "model.h5", "/parameters/layers.0.down_proj", 5,
                       [](auto& experts) { experts[3].assign(experts[3].size(), '\0'); });
  const auto found = differences(grid, directory / "model.h5");
  REQUIRE_ALL(grid.world(), found.size() == 1);
  CHECK_THAT(found[0], Contains("/parameters/layers.0.down_proj: expert 3 is all zeros"));
}

TEST_CASE("a rank that was given another rank's experts is found against the model it came from") {
  const ProcessGrid grid(MPI_COMM_WORLD, {test::expert_axes().back()});
  const int num_ranks = grid.world().size();
  if (num_ranks < 2) return;
  const test::TemporaryDirectory directory(grid.world());
  Checkpoint checkpoint;
  checkpoint.expert = test::expert_unit(num_ranks);  // one expert on each rank
  checkpoint.save(grid, directory / "right.h5");
  // As save() does, but rank 1 writes rank 0's values into its own places.
  const test::Unit& unit = checkpoint.expert;
  std::vector<DatasetSpec> specs;
  test::add_specs(unit, "parameters", specs);
  Hdf5Writer writer(grid.world(), directory / "wrong.h5", specs, {}, {});
  const test::Shard mine = test::deal_unit(grid, unit.parameters);
  std::vector<float> shard(std::size_t(mine.num_elements));
  for (const Slice& slice : mine.slices) {
    const std::size_t p = std::size_t(slice.parameter - unit.parameters.data());
    const std::int64_t shift = grid.world().rank() == 1 ? slice.begin : 0;
    for (std::int64_t i = slice.begin; i < slice.end; ++i)
      shard[std::size_t(slice.shard_offset + i - slice.begin)] =
          test::element(unit.dtypes[p], 2, p, i - shift);
  }
  writer.write("parameters", unit.parameters, mine.slices, shard);
  writer.commit();

  CHECK(differences(grid, directory / "wrong.h5").empty());  // it is what was written
  const auto report =
      compare(grid, directory / "right.h5", directory / "wrong.h5", unit.parameters);
  REQUIRE_ALL(grid.world(), report.differences.size() == 4);
  for (std::size_t p = 0; p < 4; ++p)
    CHECK(report.differences[p] ==
          fmt::format("{}: expert 1 of {} is expert 0 of {}", unit.parameters[p].name,
                      (directory / "wrong.h5").string(), (directory / "right.h5").string()));
}

TEST_CASE("a comparison names the first element that differs, its place and both values") {
  const ProcessGrid grid(MPI_COMM_WORLD, {1});
  const test::TemporaryDirectory directory(grid.world());
  const Checkpoint checkpoint;
  checkpoint.save(grid, directory / "a.h5");
  checkpoint.save(grid, directory / "b.h5");
  const auto parameters = parameters_of(checkpoint);
  CHECK(compare(grid, directory / "a.h5", directory / "b.h5", parameters).differences.empty());
  // Expert 4, element [3, 7] of [13, 11] in f16: transformers calls it [4, 7, 3].
  test::change_experts(
      grid, directory / "b.h5", "/parameters/layers.0.down_proj", 5, [](auto& experts) {
        experts[4].replace((3 * 11 + 7) * 2, 2, std::string("\x00\x3c", 2));  // 1.0
        experts[4].back() ^= 1;
      });
  const auto found = compare(grid, directory / "a.h5", directory / "b.h5", parameters).differences;
  REQUIRE_ALL(grid.world(), found.size() == 1);
  CHECK_THAT(found[0],
             Contains("layers.0.down_proj: expert 4: 2 of 143 elements differ, first "
                      "[4, 7, 3]: ") &&
                 Contains(fmt::format("against 1 (byte {})", (4 * 143 + 3 * 11 + 7) * 2)));
}

TEST_CASE("tensors that only one checkpoint has, or that have another shape, are differences") {
  const ProcessGrid grid(MPI_COMM_WORLD, {1});
  const test::TemporaryDirectory directory(grid.world());
  Checkpoint a, b;
  b.dense.parameters[1].name = "other.weight";
  a.save(grid, directory / "a.h5");
  b.save(grid, directory / "b.h5");
  const auto first = Source::open(grid.world(), directory / "a.h5");
  const auto second = Source::open(grid.world(), directory / "b.h5");
  b.dense.parameters[3].shape = {3, 2, 7, 5};
  const auto found =
      compare_sources(grid, *first, *second, parameters_of(a), parameters_of(b)).differences;
  REQUIRE_ALL(grid.world(), found.size() == 3);
  CHECK(found[0] == "norm.weight: only " + (directory / "a.h5").string() + " has it");
  CHECK(found[1] == "kernel: [3, 2, 5, 7] against [3, 2, 7, 5]");
  CHECK(found[2] == "other.weight: only " + (directory / "b.h5").string() + " has it");
}

TEST_CASE("an embedded file that was changed is named") {
  const ProcessGrid grid(MPI_COMM_WORLD, {1});
  const test::TemporaryDirectory directory(grid.world());
  Checkpoint checkpoint;
  checkpoint.files["empty.txt"] = "";
  checkpoint.save(grid, directory / "model.h5");
  CHECK(differences(grid, directory / "model.h5").empty());
  test::change_experts(grid, directory / "model.h5", "/files/config.json", 1,
                       [](auto& content) { content[0][5] ^= 4; });
  const auto found = differences(grid, directory / "model.h5");
  REQUIRE_ALL(grid.world(), found.size() == 1);
  CHECK_THAT(found[0], Contains("/files/config.json is not what was written"));
}

TEST_CASE("a tensor of 65,536 experts keeps a fingerprint of each") {
  const ProcessGrid grid(MPI_COMM_WORLD, {test::expert_axes().back()});
  const test::TemporaryDirectory directory(grid.world());
  const test::Unit unit{{{.name = "bias", .shape = {65536, 4}, .is_expert = true}}, {Dtype::bf16}};
  std::vector<DatasetSpec> specs;
  test::add_specs(unit, "parameters", specs);
  Hdf5Writer writer(grid.world(), directory / "model.h5", specs, {}, {});
  test::write_unit(writer, grid, "parameters", unit, 1);
  writer.commit();
  CHECK(writer.fingerprints().find("bias")->experts.size() == 65536);
  CHECK(differences(grid, directory / "model.h5").empty());
  test::change_experts(grid, directory / "model.h5", "/parameters/bias", 65536,
                       [](auto& experts) { std::swap(experts[4095], experts[65535]); });
  const auto found = differences(grid, directory / "model.h5");
  REQUIRE_ALL(grid.world(), found.size() == 2);
  CHECK_THAT(found[0], Contains("expert 4095 holds what was written as expert 65535"));
}
