// SPDX-License-Identifier: Apache-2.0
// What is on disk when a save does not come to its end.
#include <sys/resource.h>

#include <csignal>
#include <cstdlib>
#include <fstream>

#include "hdf5_fixture.hpp"
#include "same_error.hpp"
#include "support/temporary_directory.hpp"
#include "tessera/checkpoint/report_file.hpp"

using namespace tessera;
using namespace tessera::checkpoint;
using Catch::Contains;
using comm::ProcessGrid;
using test::Checkpoint;

namespace fs = std::filesystem;

namespace {

// A writer for the dense unit, of which nothing is written yet.
Hdf5Writer begin_save(const ProcessGrid& grid, const fs::path& path, const test::Unit& unit) {
  std::vector<DatasetSpec> specs;
  test::add_specs(unit, "parameters", specs);
  return Hdf5Writer(grid.world(), path, specs, {}, {});
}

bool exists(const ProcessGrid& grid, const fs::path& path) {
  grid.world().barrier("look at files");
  const bool found = fs::exists(path);
  grid.world().barrier("looked at files");
  return found;
}

void require_intact(const ProcessGrid& grid, const Checkpoint& checkpoint, const fs::path& path) {
  LoadReport report;
  const std::string wrong = checkpoint.compare(grid, path, report);
  CHECK(wrong == "");
}

}  // namespace

TEST_CASE("a save that is not finished leaves the older checkpoint and no temporary file") {
  const ProcessGrid grid(MPI_COMM_WORLD, {1});
  const test::TemporaryDirectory directory(grid.world());
  const fs::path path = directory / "model.h5";
  const Checkpoint checkpoint;
  checkpoint.save(grid, path);
  {
    Hdf5Writer writer = begin_save(grid, path, checkpoint.dense);
    test::write_unit(writer, grid, "parameters", checkpoint.dense, 99);
    CHECK(exists(grid, path.string() + ".partial"));
  }
  CHECK_FALSE(exists(grid, path.string() + ".partial"));
  require_intact(grid, checkpoint, path);
}

TEST_CASE("a report that is not finished leaves no file, and a finished one only itself") {
  const ProcessGrid grid(MPI_COMM_WORLD, {1});
  const test::TemporaryDirectory directory(grid.world());
  const fs::path path = directory / "report.h5";
  {
    ReportFile report(grid.world(), path);
    report.write_scalar("loss", 1.5);
    CHECK(exists(grid, path.string() + ".partial"));
  }
  CHECK_FALSE(exists(grid, path.string() + ".partial"));
  CHECK_FALSE(exists(grid, path));
  {
    ReportFile report(grid.world(), path);
    report.write_scalar("loss", 1.5);
    report.commit();
  }
  CHECK_FALSE(exists(grid, path.string() + ".partial"));
  CHECK(exists(grid, path));
}

TEST_CASE("a dataset that a report has already is an error of all ranks") {
  const ProcessGrid grid(MPI_COMM_WORLD, {1});
  const test::TemporaryDirectory directory(grid.world());
  ReportFile report(grid.world(), directory / "report.h5");
  report.write_scalar("loss", 1.5);
  CHECK_THAT(
      test::same_error(grid.world(), ErrorKind::file, [&] { report.write_scalar("loss", 2.5); }),
      Contains("cannot create dataset loss"));
}

TEST_CASE("a checkpoint is replaced as a whole, and what a killed job left is removed") {
  const ProcessGrid grid(MPI_COMM_WORLD, {1});
  const test::TemporaryDirectory directory(grid.world());
  const fs::path path = directory / "model.h5";
  Checkpoint checkpoint;
  checkpoint.save(grid, path);
  if (grid.world().rank() == 0) {
    std::ofstream(path.string() + ".partial") << std::string(8 << 20, 'x');
  }
  grid.world().barrier("stale file is there");
  checkpoint.expert = test::expert_unit(3);
  checkpoint.save(grid, path);
  CHECK_FALSE(exists(grid, path.string() + ".partial"));
  require_intact(grid, checkpoint, path);
}

TEST_CASE("equal content gives equal files on every grid") {
  const ProcessGrid grid(MPI_COMM_WORLD, {test::expert_axes().back()}), alone(MPI_COMM_SELF, {1});
  const test::TemporaryDirectory directory(grid.world());
  const Checkpoint checkpoint;
  checkpoint.save(grid, directory / "a.h5");
  if (grid.world().rank() != 0) return grid.world().barrier("compared");
  checkpoint.save(alone, directory / "b.h5");
  const auto content = [&](const char* name) {
    std::ifstream file(directory / name, std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(file), {});
  };
  CHECK(content("a.h5") == content("b.h5"));
  grid.world().barrier("compared");
}

TEST_CASE("an element that no rank wrote is found before the file gets its name") {
  const ProcessGrid grid(MPI_COMM_WORLD, {1});
  const test::TemporaryDirectory directory(grid.world());
  const test::Unit unit = test::dense_unit();
  Hdf5Writer writer = begin_save(grid, directory / "model.h5", unit);
  const test::Shard mine = test::deal_unit(grid, unit.parameters);
  std::vector<Slice> slices = mine.slices;
  if (grid.world().rank() == 0) --slices.back().end;
  const std::vector<float> shard(std::size_t(mine.num_elements));
  writer.write("parameters", unit.parameters, slices, shard);
  CHECK_THAT(test::same_error(grid.world(), ErrorKind::internal, [&] { writer.commit(); }),
             Contains("elements of 'parameters/"));
  CHECK_FALSE(exists(grid, directory / "model.h5"));
}

TEST_CASE("a slice of a parameter that was not announced is an error of all ranks") {
  const ProcessGrid grid(MPI_COMM_WORLD, {1});
  const test::TemporaryDirectory directory(grid.world());
  const test::Unit unit = test::dense_unit();
  Hdf5Writer writer = begin_save(grid, directory / "model.h5", unit);
  const Parameter stranger{.name = "stranger", .shape = {4}};
  CHECK_THAT(test::same_error(grid.world(), ErrorKind::internal,
                              [&] { writer.write("parameters", std::span(&stranger, 1), {}, {}); }),
             Contains("'stranger' [4] was not announced"));
  // On the last rank alone: a slice beyond its shard.
  std::vector<Slice> slices;
  if (grid.world().rank() == grid.world().size() - 1)
    slices.push_back({&unit.parameters[1], 0, 35, 0});
  CHECK_THAT(test::same_error(grid.world(), ErrorKind::internal,
                              [&] { writer.write("parameters", unit.parameters, slices, {}); }),
             Contains(fmt::format("[rank {} of", grid.world().size() - 1)));
}

TEST_CASE("a full disk is found before anything is written") {
  const ProcessGrid grid(MPI_COMM_WORLD, {1});
  const test::TemporaryDirectory directory(grid.world());
  const fs::path path = directory / "model.h5";
  const Checkpoint checkpoint;
  checkpoint.save(grid, path);
  setenv("TESSERA_FAULT", "diskfull:0", 1);
  const std::string message =
      test::same_error(grid.world(), ErrorKind::file, [&] { checkpoint.save(grid, path); });
  unsetenv("TESSERA_FAULT");
  CHECK_THAT(message, Contains("GiB") && Contains("0.000 GiB are free"));
  CHECK_FALSE(exists(grid, path.string() + ".partial"));
  require_intact(grid, checkpoint, path);
}

TEST_CASE("a save is not done until every rank has its part on disk") {
  const ProcessGrid grid(MPI_COMM_WORLD, {1});
  const test::TemporaryDirectory directory(grid.world());
  const fs::path path = directory / "model.h5";
  const Checkpoint checkpoint;
  checkpoint.save(grid, path);
  const int last = grid.world().size() - 1;
  setenv("TESSERA_FAULT", fmt::format("unsynced:{}", last).c_str(), 1);
  const std::string message =
      test::same_error(grid.world(), ErrorKind::file, [&] { checkpoint.save(grid, path); });
  unsetenv("TESSERA_FAULT");
  CHECK_THAT(message, Contains("fsync of " + path.string() + ".partial: Input/output error"));
  if (last > 0) CHECK_THAT(message, Contains(fmt::format("[rank {} of", last)));
  CHECK_FALSE(exists(grid, path.string() + ".partial"));
  require_intact(grid, checkpoint, path);
}

TEST_CASE("a limit that only reserving the blocks meets is found before tensors are written") {
  const ProcessGrid grid(MPI_COMM_WORLD, {1});
  const test::TemporaryDirectory directory(grid.world());
  const fs::path path = directory / "model.h5";
  const Checkpoint checkpoint;
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, SIG_IGN);
  rlimit limit = before;
  limit.rlim_cur = 1 << 20;
  if (grid.world().rank() == 0) setrlimit(RLIMIT_FSIZE, &limit);
  const std::string message =
      test::same_error(grid.world(), ErrorKind::file, [&] { checkpoint.save(grid, path); });
  if (grid.world().rank() == 0) setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, SIG_DFL);
  CHECK_THAT(message, Contains("could not be reserved"));
  CHECK_FALSE(exists(grid, path));
}

TEST_CASE(
    "a directory that does not exist, or a directory in the file's place, is an error of all") {
  const ProcessGrid grid(MPI_COMM_WORLD, {1});
  const test::TemporaryDirectory directory(grid.world());
  const Checkpoint checkpoint;
  CHECK_THAT(test::same_error(grid.world(), ErrorKind::file,
                              [&] { checkpoint.save(grid, directory / "nowhere" / "model.h5"); }),
             Contains("No such file or directory"));
  CHECK_THAT(test::same_error(grid.world(), ErrorKind::file,
                              [&] { checkpoint.save(grid, directory.path()); }),
             Contains("is a directory"));
}

// Run by small_disk.sh on a file system of 4 MiB.
TEST_CASE("a small file system refuses a large checkpoint with the bytes needed and free",
          "[.small-disk]") {
  const ProcessGrid grid(MPI_COMM_WORLD, {1});
  const fs::path path = fs::path(std::getenv("TESSERA_SMALL_DISK")) / "model.h5";
  const Checkpoint checkpoint;
  const std::string message =
      test::same_error(grid.world(), ErrorKind::file, [&] { checkpoint.save(grid, path); });
  CHECK_THAT(message, Contains("0.004 GiB are free"));
  CHECK_FALSE(exists(grid, path.string() + ".partial"));
}
