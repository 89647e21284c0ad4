// SPDX-License-Identifier: Apache-2.0
// Files that are broken, foreign, newer, or that hide their data elsewhere: refused by all ranks
// alike, with the object's name, before any tensor is read.
#include <hdf5.h>

#include <cstdlib>
#include <fstream>
#include <functional>

#include "hdf5_fixture.hpp"
#include "same_error.hpp"
#include "support/temporary_directory.hpp"

using namespace tessera;
using namespace tessera::checkpoint;
using Catch::Contains;
using comm::ProcessGrid;

namespace fs = std::filesystem;

namespace {

constexpr hsize_t extent = 16;

// A checkpoint on disk that one rank can damage with plain HDF5 calls.
class Victim {
 public:
  explicit Victim(const ProcessGrid& grid)
      : grid_(grid), directory_(grid.world()), path_(directory_ / "model.h5") {
    test::Checkpoint().save(grid, path_);
  }

  /// The error that all ranks get after `damage` on rank 0.
  std::string refusal(const std::function<void(const fs::path&)>& damage,
                      ErrorKind kind = ErrorKind::format) {
    if (grid_.world().rank() == 0) damage(path_);
    grid_.world().barrier("damaged");
    return test::same_error(grid_.world(), kind, [&] { Hdf5Source::open(grid_.world(), path_); });
  }

  /// The same for what `damage` does to the opened file.
  std::string refusal_of_object(const std::function<void(hid_t)>& damage) {
    return refusal([&](const fs::path& path) {
      const hid_t file = H5Fopen(path.c_str(), H5F_ACC_RDWR, H5P_DEFAULT);
      damage(file);
      H5Fclose(file);
    });
  }

 private:
  const ProcessGrid& grid_;
  test::TemporaryDirectory directory_;
  fs::path path_;
};

void overwrite(const fs::path& path, const std::string& content) {
  std::ofstream(path, std::ios::binary) << content;
}

void set_integer_attribute(hid_t file, const char* name, std::int64_t value) {
  const hid_t attribute = H5Aopen(file, name, H5P_DEFAULT);
  H5Awrite(attribute, H5T_NATIVE_INT64, &value);
  H5Aclose(attribute);
}

void create(hid_t file, const char* path, hid_t type, hid_t properties) {
  const hid_t space = H5Screate_simple(1, &extent, nullptr);
  H5Dclose(H5Dcreate2(file, path, type, space, H5P_DEFAULT, properties, H5P_DEFAULT));
  H5Sclose(space);
}

void create_with(hid_t file, const std::function<void(hid_t)>& change) {
  const hid_t properties = H5Pcreate(H5P_DATASET_CREATE);
  change(properties);
  create(file, "/parameters/strange", H5T_IEEE_F32LE, properties);
  H5Pclose(properties);
}

}  // namespace

TEST_CASE("a truncated file is refused, wherever it was cut") {
  const ProcessGrid grid(MPI_COMM_WORLD, {1});
  for (const double part : {0.001, 0.3, 0.9, 0.9999}) {
    Victim victim(grid);
    const std::string message = victim.refusal([&](const fs::path& path) {
      fs::resize_file(path, std::uintmax_t(double(fs::file_size(path)) * part));
    });
    CHECK_THAT(message, Contains("model.h5") && Contains("truncated"));
  }
}

TEST_CASE("what is no HDF5 file at all is said to be none") {
  const ProcessGrid grid(MPI_COMM_WORLD, {1});
  Victim victim(grid);
  for (const std::string& content : {std::string(), std::string("short"), std::string(5000, 'g')}) {
    CHECK_THAT(victim.refusal([&](const fs::path& path) { overwrite(path, content); }),
               Contains("not an HDF5 file"));
  }
  CHECK_THAT(victim.refusal([](const fs::path& path) { fs::remove(path); }, ErrorKind::file),
             Contains("No such file"));
}

TEST_CASE("an HDF5 file of another program is said to be foreign") {
  const ProcessGrid grid(MPI_COMM_WORLD, {1});
  Victim victim(grid);
  CHECK_THAT(victim.refusal([](const fs::path& path) {
    H5Fclose(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT));
  }),
             Contains("not a Tessera checkpoint"));
}

TEST_CASE("a newer format version is refused, with both versions") {
  const ProcessGrid grid(MPI_COMM_WORLD, {1});
  Victim victim(grid);
  CHECK_THAT(victim.refusal_of_object(
                 [](hid_t file) { set_integer_attribute(file, "format_version", 3); }),
             Contains("version 3 is newer") && Contains("up to 2"));
}

TEST_CASE("a root attribute that is missing is named") {
  const ProcessGrid grid(MPI_COMM_WORLD, {1});
  Victim victim(grid);
  CHECK_THAT(victim.refusal_of_object([](hid_t file) { H5Adelete(file, "data_position"); }),
             Contains("'data_position' is missing"));
}

TEST_CASE("a count below zero or too large to add to is refused by its name") {
  const ProcessGrid grid(MPI_COMM_WORLD, {1});
  for (const char* name : {"step", "optimizer_steps", "data_position"}) {
    for (const std::int64_t value : {std::int64_t(-5), (std::int64_t(1) << 62) + 1}) {
      Victim victim(grid);
      CHECK_THAT(
          victim.refusal_of_object([&](hid_t file) { set_integer_attribute(file, name, value); }),
          Contains(fmt::format("'{}' is {}", name, value)));
    }
  }
}

TEST_CASE("a dataset that does not say how it is oriented is refused by its name") {
  const ProcessGrid grid(MPI_COMM_WORLD, {1});
  const auto refusal_after = [&](const std::function<void(hid_t)>& damage) {
    return Victim(grid).refusal_of_object([&](hid_t file) {
      const hid_t dataset = H5Dopen2(file, "/parameters/layers.0.down_proj", H5P_DEFAULT);
      damage(dataset);
      H5Dclose(dataset);
    });
  };
  CHECK_THAT(refusal_after([](hid_t dataset) { H5Adelete(dataset, "orientation"); }),
             Contains("'/parameters/layers.0.down_proj'") && Contains("'orientation' is missing"));
  CHECK_THAT(refusal_after(
                 [](hid_t dataset) { set_integer_attribute(dataset, "checkpoint_transposed", 0); }),
             Contains("'/parameters/layers.0.down_proj'") &&
                 Contains("'expert,out,in' with checkpoint_transposed 0"));
}

TEST_CASE("a tensor of the other orientation is not read, even where its shape is the same") {
  const ProcessGrid grid(MPI_COMM_WORLD, {1});
  const test::TemporaryDirectory directory(grid.world());
  test::Checkpoint().save(grid, directory / "model.h5");
  const auto source = Hdf5Source::open(grid.world(), directory / "model.h5");
  test::Unit other = test::expert_unit();
  other.parameters[2].transposed = false;
  LoadReport report;
  CHECK_THAT(test::same_error(
                 grid.world(), ErrorKind::keys,
                 [&] { test::compare_unit(*source, grid, "parameters", other, 2, {}, report); }),
             Contains("'/parameters/layers.0.down_proj'") && Contains("needs them unchanged"));
}

TEST_CASE("a compressed, chunked, external or virtual dataset is refused by its name") {
  const ProcessGrid grid(MPI_COMM_WORLD, {1});
  const std::vector<std::pair<std::string, std::function<void(hid_t)>>> cases{
      {"filtered",
       [](hid_t properties) {
         H5Pset_chunk(properties, 1, &extent);
         H5Pset_shuffle(properties);
       }},
      {"contiguous", [](hid_t properties) { H5Pset_chunk(properties, 1, &extent); }},
      {"contiguous", [](hid_t properties) { H5Pset_layout(properties, H5D_COMPACT); }},
      {"other files",
       [](hid_t properties) { H5Pset_external(properties, "/etc/passwd", 0, extent * 4); }},
      {"other files", [](hid_t properties) {
         const hid_t space = H5Screate_simple(1, &extent, nullptr);
         H5Pset_virtual(properties, space, "other.h5", "/data", space);
         H5Sclose(space);
       }}};
  for (const auto& [text, change] : cases) {
    Victim victim(grid);
    CHECK_THAT(victim.refusal_of_object([&](hid_t file) { create_with(file, change); }),
               Contains("'/parameters/strange'") && Contains(text));
  }
}

TEST_CASE("a soft or external link among the parameters is not followed") {
  const ProcessGrid grid(MPI_COMM_WORLD, {1});
  Victim soft(grid), external(grid);
  CHECK_THAT(soft.refusal_of_object([](hid_t file) {
    H5Lcreate_soft("/parameters/kernel", file, "/parameters/strange", H5P_DEFAULT, H5P_DEFAULT);
  }),
             Contains("'/parameters/strange' is a soft or external link"));
  CHECK_THAT(external.refusal_of_object([](hid_t file) {
    H5Lcreate_external("other.h5", "/x", file, "/parameters/strange", H5P_DEFAULT, H5P_DEFAULT);
  }),
             Contains("'/parameters/strange' is a soft or external link"));
}

TEST_CASE("groups that contain themselves do not keep the walk going for ever") {
  const ProcessGrid grid(MPI_COMM_WORLD, {1});
  Victim victim(grid);
  CHECK_THAT(victim.refusal_of_object([](hid_t file) {
    H5Lcreate_hard(file, "/parameters", file, "/parameters/again", H5P_DEFAULT, H5P_DEFAULT);
  }),
             Contains("nested too deep"));
}

TEST_CASE("groups deeper than the format has are refused by their names") {
  const ProcessGrid grid(MPI_COMM_WORLD, {1});
  for (const char* path : {"/parameters/deeper", "/optimizer/exp_avg/deeper"}) {
    Victim victim(grid);
    CHECK_THAT(victim.refusal_of_object([&](hid_t file) {
      H5Gclose(H5Gcreate2(file, path, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
    }),
               Contains(fmt::format("'{}' is nested too deep", path)));
  }
}

TEST_CASE("an element type that is no tensor's is refused by the dataset's name") {
  const ProcessGrid grid(MPI_COMM_WORLD, {1});
  const hid_t text = H5Tcopy(H5T_C_S1), compound = H5Tcreate(H5T_COMPOUND, 8);
  H5Tset_size(text, H5T_VARIABLE);
  H5Tinsert(compound, "a", 0, H5T_IEEE_F32LE);
  for (const hid_t type : {text, compound, H5T_STD_REF_OBJ, H5T_IEEE_F32BE, H5T_STD_I32LE}) {
    Victim victim(grid);
    CHECK_THAT(victim.refusal_of_object(
                   [&](hid_t file) { create(file, "/parameters/strange", type, H5P_DEFAULT); }),
               Contains("'/parameters/strange' has an element type"));
  }
  H5Tclose(text);
  H5Tclose(compound);
}

TEST_CASE("a dataset that was created and never stored is refused") {
  const ProcessGrid grid(MPI_COMM_WORLD, {1});
  Victim victim(grid);
  CHECK_THAT(victim.refusal_of_object([](hid_t file) {
    create(file, "/optimizer/exp_avg/strange", H5T_IEEE_F32LE, H5P_DEFAULT);
  }),
             Contains("'/optimizer/exp_avg/strange' is incomplete"));
}

TEST_CASE("groups of others beside the parameters do not disturb") {
  const ProcessGrid grid(MPI_COMM_WORLD, {1});
  const test::TemporaryDirectory directory(grid.world());
  const test::Checkpoint checkpoint;
  checkpoint.save(grid, directory / "model.h5");
  if (grid.world().rank() == 0) {
    const hid_t file = H5Fopen((directory / "model.h5").c_str(), H5F_ACC_RDWR, H5P_DEFAULT);
    create(file, "/notes", H5T_STD_I32BE, H5P_DEFAULT);
    H5Fclose(file);
  }
  grid.world().barrier("noted");
  LoadReport report;
  CHECK(checkpoint.compare(grid, directory / "model.h5", report) == "");
}

TEST_CASE("a file that one rank cannot open is an error of all, naming that rank") {
  const ProcessGrid grid(MPI_COMM_WORLD, {1});
  const int last = grid.world().size() - 1;
  Victim victim(grid);
  const std::string message =
      victim.refusal([](const fs::path&) {},
                     [&] {
                       setenv("TESSERA_FAULT", fmt::format("unreadable:{}", last).c_str(), 1);
                       return ErrorKind::file;
                     }());
  unsetenv("TESSERA_FAULT");
  CHECK_THAT(message, Contains(fmt::format("[rank {} of", last)));
}

TEST_CASE("flipped bytes of the metadata give an error or the same checkpoint, never a crash",
          "[single]") {
  const ProcessGrid grid(MPI_COMM_SELF, {1});
  int world_rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &world_rank);
  if (world_rank != 0) return;
  const test::TemporaryDirectory directory(grid.world());
  const fs::path path = directory / "model.h5";
  test::Checkpoint().save(grid, path);
  std::ifstream file(path, std::ios::binary);
  const std::string original(std::istreambuf_iterator<char>(file), {});
  int num_refused = 0;
  for (std::size_t position = 0; position < 6000; position += 41) {
    std::string damaged = original;
    damaged[position] = static_cast<char>(damaged[position] ^ 0x5a);
    overwrite(path, damaged);
    try {
      Hdf5Source::open(grid.world(), path);
    } catch (const Error&) {
      ++num_refused;
    }
  }
  CHECK(num_refused > 20);
}
