// SPDX-License-Identifier: Apache-2.0
// For tests that carry a checkpoint from one grid to another: grids on the first ranks of a job,
// and two files compared bit for bit.
#pragma once

#include <catch2/catch.hpp>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <tessera/trainer/model_state.hpp>
#include <vector>

#include "golden/golden_file.hpp"

namespace tessera::test {

namespace fs = std::filesystem;

struct GridShape {
  int ranks, expert;
  std::string name() const { return std::to_string(ranks) + "x" + std::to_string(expert); }
};

/// Runs `body(grid)` on the first ranks of the job; the others wait. collective over world.
template <class Body>
void on_grid(const comm::Communicator& world, const GridShape& shape, const Body& body) {
  const bool takes_part = world.rank() < shape.ranks;
  const comm::Communicator group = world.split(takes_part ? 0 : 1, shape.name());
  if (takes_part) {
    const comm::ProcessGrid grid(group.mpi(), {shape.expert});
    body(grid);
  }
  world.barrier("grid done");
}

/// Of each step of a run. local.
inline std::vector<double> losses(const fs::path& run) {
  std::ifstream file(run / "metrics.jsonl");
  std::vector<double> losses;
  for (std::string line; std::getline(file, line);) {
    losses.push_back(nlohmann::json::parse(line).at("loss").get<double>());
  }
  return losses;
}

/// Loads everything on this grid and writes it again. collective over grid.world().
inline void copy_checkpoint(const comm::ProcessGrid& grid, const fs::path& from,
                            const fs::path& to) {
  trainer::ModelSource model = trainer::open_model(grid.world(), from, {});
  auto store = trainer::make_store<float>(grid, model.config);
  trainer::load_parameters(grid, model, store);
  trainer::load_optimizer(grid, dynamic_cast<checkpoint::Hdf5Source&>(*model.source), store);
  trainer::save_checkpoint(grid, store, to, model.training, model);
}

/// Groups of a file, each with the number of its datasets.
using Groups = std::vector<std::pair<std::string, std::size_t>>;

/// Values of all datasets of these groups, and the training state. local.
inline void check_equal(const fs::path& a, const fs::path& b, const Groups& groups) {
  const ResultFile first(a.string()), second(b.string());
  for (const auto& [group, num_datasets] : groups) {
    const std::vector<std::string> names = first.names(group);
    CHECK(names == second.names(group));
    CHECK(names.size() == num_datasets);
    for (const std::string& name : names) {
      const std::string path = group + "/" + name;
      INFO(path);
      CHECK(first.values(path) == second.values(path));
    }
  }
  for (const char* name : {"step", "optimizer_steps", "data_position", "seed"}) {
    CHECK(first.attribute("/", name) == second.attribute("/", name));
  }
}

}  // namespace tessera::test
