// SPDX-License-Identifier: Apache-2.0
// Files of format version 1, and what version 2 asks of its datasets beyond the plain storage of
// both.
#define H5_USE_110_API  // H5Ovisit2 as in HDF5 1.10, from whatever version
#include "hdf5_change.hpp"
#include "same_error.hpp"
#include "support/temporary_directory.hpp"
#include "tessera/checkpoint/verify.hpp"

using namespace tessera;
using namespace tessera::checkpoint;
using Catch::Contains;
using comm::ProcessGrid;
using test::Checkpoint;

TEST_CASE("a file of format version 1 is read; it states no fingerprints") {
  const ProcessGrid grid(MPI_COMM_WORLD, {test::expert_axes().back()});
  const test::TemporaryDirectory directory(grid.world());
  const Checkpoint checkpoint;
  checkpoint.save(grid, directory / "model.h5");
  test::change(grid, directory / "model.h5", [](hid_t file) {
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
  grid.world().barrier("file is read");
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
  test::change(grid, directory / "model.h5", add_f64);
  CHECK_THAT(test::same_error(grid.world(), ErrorKind::format,
                              [&] { Hdf5Source::open(grid.world(), directory / "model.h5"); }),
             Contains("'/parameters/x'") && Contains("f64 elements belong to format version 1"));
}

TEST_CASE("scales without their parameter, and a parameter without its scales, are refused") {
  const ProcessGrid grid(MPI_COMM_WORLD, {1});
  const Checkpoint checkpoint = test::with_mxfp4();
  const auto refusal = [&](const std::function<void(hid_t)>& damage) {
    const test::TemporaryDirectory directory(grid.world());
    checkpoint.save(grid, directory / "model.h5");
    test::change(grid, directory / "model.h5", damage);
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
