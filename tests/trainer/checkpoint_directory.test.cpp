// SPDX-License-Identifier: Apache-2.0
// Which files of a run's directory stay, which are listed, and which one is resumed from.
#include <fmt/ranges.h>

#include <catch2/catch.hpp>
#include <fstream>
#include <tessera/trainer/checkpoint_directory.hpp>

#include "base/error.hpp"
#include "comm/process_grid.hpp"
#include "support/collective_check.hpp"
#include "support/temporary_directory.hpp"

namespace tessera::trainer {
namespace {

namespace fs = std::filesystem;
using Catch::Contains;

/// A complete checkpoint of one small tensor. collective.
fs::path save(const comm::ProcessGrid& grid, const fs::path& directory, std::int64_t step) {
  const Parameter parameter{.name = "w", .shape = {4}};
  const checkpoint::DatasetSpec spec{"parameters", &parameter};
  checkpoint::TrainingState state;
  state.step = step;
  state.optimizer = "sgd";
  const fs::path path = checkpoint_path(directory, step);
  checkpoint::Hdf5Writer writer(grid.world(), path, std::span(&spec, 1), state, {});
  const std::vector<float> values(4, float(step));
  std::vector<Slice> slices;
  if (grid.world().rank() == 0) slices.push_back({&parameter, 0, 4, 0});
  writer.write("parameters", std::span(&parameter, 1), slices, values);
  writer.commit();
  return path;
}

/// Rank 0 writes a file that is no checkpoint. collective.
void write_text(const comm::ProcessGrid& grid, const fs::path& path) {
  if (grid.world().rank() == 0) std::ofstream(path) << "not HDF5\n";
  grid.world().barrier("written");
}

std::string names(const comm::ProcessGrid& grid, const fs::path& directory) {
  grid.world().barrier("done");
  std::vector<std::string> found;
  for (const auto& file : fs::directory_iterator(directory))
    found.push_back(file.path().filename().string());
  grid.world().barrier("looked");
  std::ranges::sort(found);
  return fmt::format("{}", fmt::join(found, " "));
}

std::string error_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    return error.what();
  }
  return "(no error)";
}

}  // namespace

TEST_CASE("the newest checkpoints stay, with the one that latest names and files of others") {
  const comm::ProcessGrid grid(MPI_COMM_WORLD, {1});
  const test::TemporaryDirectory directory(grid.world());
  for (const std::int64_t step : {1, 2, 3, 10, 200000000}) save(grid, directory.path(), step);
  write_text(grid, directory / "step-00000004.h5.partial");
  write_text(grid, directory / "step-old.h5");
  write_text(grid, directory / "step-00000001.h5.txt");
  write_text(grid, directory / "model.h5");
  set_latest(grid.world(), checkpoint_path(directory.path(), 2));
  keep_newest(grid.world(), directory.path(), 2);
  CHECK(names(grid, directory.path()) ==
        "latest model.h5 step-00000001.h5.txt step-00000002.h5 step-00000010.h5 "
        "step-200000000.h5 step-old.h5");
  keep_newest(grid.world(), directory.path(), 5);
  set_latest(grid.world(), checkpoint_path(directory.path(), 200000000));
  keep_newest(grid.world(), directory.path(), 1);
  CHECK(names(grid, directory.path()) ==
        "latest model.h5 step-00000001.h5.txt step-200000000.h5 step-old.h5");
}

TEST_CASE("a listing tells complete, unfinished and broken files apart") {
  const comm::ProcessGrid grid(MPI_COMM_WORLD, {1});
  const test::TemporaryDirectory directory(grid.world());
  save(grid, directory.path(), 1);
  set_latest(grid.world(), save(grid, directory.path(), 2));
  write_text(grid, directory / "step-00000003.h5");
  write_text(grid, directory / "step-00000004.h5.partial");
  write_text(grid, directory / "metrics.jsonl");
  const auto entries = list_checkpoints(directory.path());
  REQUIRE_ALL(grid.world(), entries.size() == 4);
  CHECK(entries[0].summary->state.step == 1);
  CHECK(entries[0].summary->num_parameters == 4);
  CHECK_FALSE(entries[0].is_latest);
  CHECK(entries[1].is_latest);
  CHECK(entries[1].file_bytes == std::int64_t(fs::file_size(entries[1].path)));
  CHECK_FALSE(entries[2].summary);
  CHECK(entries[2].problem == "not an HDF5 file");
  CHECK(entries[3].is_partial);
  CHECK(resume_path(grid.world(), directory.path()) == entries[1].path);
}

TEST_CASE("where there is nothing to resume from, the error says what there is") {
  const comm::ProcessGrid grid(MPI_COMM_WORLD, {1});
  const test::TemporaryDirectory directory(grid.world());
  const auto error = [&] {
    const std::string text = error_of([&] { resume_path(grid.world(), directory.path()); });
    CHECK_SAME(grid.world(), text);
    return text;
  };
  CHECK_THAT(error(), Contains("has no file 'latest'") && Contains("in it: no checkpoint"));
  save(grid, directory.path(), 1);
  write_text(grid, directory / "step-00000002.h5");
  set_latest(grid.world(), directory / "step-00000002.h5");
  CHECK_THAT(error(), Contains("names step-00000002.h5, which cannot be read: not an HDF5 file") &&
                          Contains("step-00000001.h5 (step 1), step-00000002.h5 (damaged)"));
  set_latest(grid.world(), directory / "step-00000007.h5");
  CHECK_THAT(error(), Contains("names step-00000007.h5") && Contains("No such file"));
}

}  // namespace tessera::trainer
