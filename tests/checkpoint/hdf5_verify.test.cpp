// SPDX-License-Identifier: Apache-2.0
// What verification says of files whose experts were swapped, zeroed or written by the wrong rank,
// and of files of format version 1.
#include <hdf5.h>

#include <functional>

#include "hdf5_fixture.hpp"
#include "same_error.hpp"
#include "support/temporary_directory.hpp"
#include "tessera/checkpoint/verify.hpp"

using namespace tessera;
using namespace tessera::checkpoint;
using Catch::Matchers::Contains;
using comm::ProcessGrid;
using test::Checkpoint;

namespace fs = std::filesystem;

namespace {

Checkpoint with_mxfp4() {
  Checkpoint checkpoint;
  checkpoint.mxfp4 = test::mxfp4_unit();
  return checkpoint;
}

/// Lets rank 0 change the file with plain HDF5 calls. collective.
void change(const ProcessGrid& grid, const fs::path& path, const std::function<void(hid_t)>& body) {
  if (grid.world().rank() == 0) {
    const hid_t file = H5Fopen(path.c_str(), H5F_ACC_RDWR, H5P_DEFAULT);
    body(file);
    H5Fclose(file);
  }
  grid.world().barrier("changed");
}

/// Lets rank 0 change a dataset's bytes, as one run for each expert. collective.
void change_experts(const ProcessGrid& grid, const fs::path& path, const std::string& name,
                    std::int64_t num_experts,
                    const std::function<void(std::vector<std::string>&)>& body) {
  change(grid, path, [&](hid_t file) {
    const hid_t dataset = H5Dopen2(file, name.c_str(), H5P_DEFAULT);
    const hid_t type = H5Dget_type(dataset);
    std::string bytes(H5Dget_storage_size(dataset), '\0');
    H5Dread(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, bytes.data());
    const std::size_t size = bytes.size() / std::size_t(num_experts);
    std::vector<std::string> experts;
    for (std::size_t e = 0; e < std::size_t(num_experts); ++e)
      experts.push_back(bytes.substr(e * size, size));
    body(experts);
    bytes.clear();
    for (const std::string& expert : experts) bytes += expert;
    H5Dwrite(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, bytes.data());
    H5Tclose(type);
    H5Dclose(dataset);
  });
}

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
  const Checkpoint checkpoint = with_mxfp4();
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
  const Checkpoint checkpoint = with_mxfp4();
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
  const Checkpoint checkpoint = with_mxfp4();
  for (const auto& [name, num_experts] : std::vector<std::pair<std::string, std::int64_t>>{
           {"/parameters/layers.0.gate_up_proj", 5},
           {"/optimizer/exp_avg/layers.0.down_proj", 5},
           {"/mxfp4_scales/layers.1.down_proj", 3}}) {
    const test::TemporaryDirectory directory(grid.world());
    checkpoint.save(grid, directory / "model.h5");
    change_experts(grid, directory / "model.h5", name, num_experts,
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
  change_experts(grid, directory / "model.h5", "/parameters/layers.0.down_proj", 5,
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
  change_experts(grid, directory / "b.h5", "/parameters/layers.0.down_proj", 5, [](auto& experts) {
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
  change_experts(grid, directory / "model.h5", "/files/config.json", 1,
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
  change_experts(grid, directory / "model.h5", "/parameters/bias", 65536,
                 [](auto& experts) { std::swap(experts[4095], experts[65535]); });
  const auto found = differences(grid, directory / "model.h5");
  REQUIRE_ALL(grid.world(), found.size() == 2);
  CHECK_THAT(found[0], Contains("expert 4095 holds what was written as expert 65535"));
}

TEST_CASE("a file of format version 1 is read; it states no fingerprints") {
  const ProcessGrid grid(MPI_COMM_WORLD, {test::expert_axes().back()});
  const test::TemporaryDirectory directory(grid.world());
  const Checkpoint checkpoint;
  checkpoint.save(grid, directory / "model.h5");
  change(grid, directory / "model.h5", [](hid_t file) {
    const auto strip = [](hid_t group, const char* name, const H5O_info_t* info, void*) -> herr_t {
      if (info->type != H5O_TYPE_DATASET) return 0;
      const hid_t dataset = H5Oopen(group, name, H5P_DEFAULT);
      for (const char* attribute : {"fingerprints", "checkpoint_dtypes", "checkpoint_mxfp4"})
        if (H5Aexists(dataset, attribute) > 0) H5Adelete(dataset, attribute);
      return H5Oclose(dataset);
    };
    H5Ovisit2(file, H5_INDEX_NAME, H5_ITER_INC, strip, nullptr, H5O_INFO_BASIC);
    const hid_t version = H5Aopen(file, "format_version", H5P_DEFAULT);
    const std::int64_t one = 1;
    H5Awrite(version, H5T_NATIVE_INT64, &one);
    H5Aclose(version);
  });
  LoadReport report;
  CHECK(checkpoint.compare(grid, directory / "model.h5", report) == "");
  const auto source = Hdf5Source::open(grid.world(), directory / "model.h5");
  CHECK(source->fingerprint("parameters", "norm.weight") == nullptr);
  CHECK(source->origin(checkpoint.dense.parameters[0]).dtypes == std::vector{Dtype::bf16});
  const VerifyReport verified = verify_file(grid, *source);
  CHECK_FALSE(verified.has_stored_fingerprints);
  CHECK(verified.differences.empty());
  CHECK(summarize_file(directory / "model.h5").format_version == 1);
}

TEST_CASE("f64 is stored as f32; a file that has it is refused, unless it is of format version 1") {
  const ProcessGrid grid(MPI_COMM_WORLD, {1});
  const test::TemporaryDirectory directory(grid.world());
  const test::Unit unit{{{.name = "w", .shape = {4, 32}}}, {Dtype::f64}};
  std::vector<DatasetSpec> specs;
  test::add_specs(unit, "parameters", specs);
  Hdf5Writer writer(grid.world(), directory / "model.h5", specs, {}, {});
  test::write_unit(writer, grid, "parameters", unit, 1);
  writer.commit();
  CHECK(Source::open(grid.world(), directory / "model.h5")->find("w")->dtype == Dtype::f32);
  const auto add_f64 = [](hid_t file) {
    const hsize_t extent[] = {4, 32};
    const hid_t space = H5Screate_simple(2, extent, nullptr);
    const hid_t early = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_alloc_time(early, H5D_ALLOC_TIME_EARLY);
    const hid_t old = H5Dopen2(file, "/parameters/w", H5P_DEFAULT);
    const hid_t added =
        H5Dcreate2(file, "/parameters/x", H5T_IEEE_F64LE, space, H5P_DEFAULT, early, H5P_DEFAULT);
    for (const char* name : {"orientation", "checkpoint_transposed", "placement",
                             "checkpoint_dtypes", "checkpoint_mxfp4", "fingerprints"}) {
      const hid_t from = H5Aopen(old, name, H5P_DEFAULT), type = H5Aget_type(from);
      const hid_t its_space = H5Aget_space(from);
      std::string value(64, '\0');
      H5Aread(from, type, value.data());
      const hid_t to = H5Acreate2(added, name, type, its_space, H5P_DEFAULT, H5P_DEFAULT);
      H5Awrite(to, type, value.data());
      for (const hid_t attribute : {from, to}) H5Aclose(attribute);
      H5Sclose(its_space);
      H5Tclose(type);
    }
    for (const hid_t dataset : {old, added}) H5Dclose(dataset);
    H5Sclose(space);
    H5Pclose(early);
  };
  change(grid, directory / "model.h5", add_f64);
  CHECK_THAT(test::same_error(grid.world(), ErrorKind::format,
                              [&] { Hdf5Source::open(grid.world(), directory / "model.h5"); }),
             Contains("'/parameters/x'") && Contains("f64 elements belong to format version 1"));
}

TEST_CASE("scales without their parameter, and a parameter without its scales, are refused") {
  const ProcessGrid grid(MPI_COMM_WORLD, {1});
  const Checkpoint checkpoint = with_mxfp4();
  const auto refusal = [&](const std::function<void(hid_t)>& damage) {
    const test::TemporaryDirectory directory(grid.world());
    checkpoint.save(grid, directory / "model.h5");
    change(grid, directory / "model.h5", damage);
    return test::same_error(grid.world(), ErrorKind::format,
                            [&] { Hdf5Source::open(grid.world(), directory / "model.h5"); });
  };
  CHECK_THAT(
      refusal([](hid_t file) { H5Ldelete(file, "/mxfp4_scales/layers.1.down_proj", H5P_DEFAULT); }),
      Contains("'/mxfp4_scales/layers.1.down_proj' does not hold its scales"));
  CHECK_THAT(
      refusal([](hid_t file) { H5Ldelete(file, "/parameters/layers.1.down_proj", H5P_DEFAULT); }),
      Contains("'/mxfp4_scales/layers.1.down_proj' are scales of no MXFP4 parameter"));
  CHECK_THAT(refusal([](hid_t file) {
               H5Lcreate_soft("/parameters/kernel", file, "/mxfp4_scales/strange", H5P_DEFAULT,
                              H5P_DEFAULT);
             }),
             Contains("'/mxfp4_scales/strange' is a soft or external link"));
  CHECK_THAT(refusal([](hid_t file) {
               const hid_t dataset = H5Dopen2(file, "/parameters/kernel", H5P_DEFAULT);
               H5Adelete(dataset, "fingerprints");
               H5Dclose(dataset);
             }),
             Contains("'/parameters/kernel'") && Contains("'fingerprints' is missing"));
}
