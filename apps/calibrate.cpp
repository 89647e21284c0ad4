// SPDX-License-Identifier: Apache-2.0
// tessera calibrate: measures this machine into a machine file, for `tessera plan` and `tessera
// study`.
#include <chrono>
#include <filesystem>
#include <fstream>
#include <memory>
#include <tessera/study/calibrate.hpp>

#include "base/seconds_since.hpp"
#include "comm/agree.hpp"
#include "command.hpp"
#include "numeric_options.hpp"

namespace tessera::apps {
namespace {

struct CalibrateArguments {
  std::filesystem::path output;
  study::CalibrateOptions calibrate;
  std::string dtype = "bf16";
  GridOptions grid;
};

int run(const CalibrateArguments& options) {
  const comm::ProcessGrid grid = make_grid(options.grid);
  const comm::Communicator& world = grid.world();
  study::CalibrateOptions calibrate = options.calibrate;
  calibrate.dtype = parse_dtype(options.dtype);
  const auto start = std::chrono::steady_clock::now();
  calibrate.progress = [&](const std::string& part, int number, int num_parts) {
    if (world.rank() == 0) {
      fmt::print(stderr, "[{:>5.1f} s] {} of {}: {}\n", seconds_since(start), number, num_parts,
                 part);
    }
  };
  const study::Machine machine = study::calibrate(grid, calibrate);
  comm::agreed(world, "write the machine file", [&] {
    if (world.rank() != 0) return;
    std::ofstream file(options.output, std::ios::trunc);
    file << to_json(machine);
    file.close();
    if (!file) fail(ErrorKind::file, "cannot write {}", options.output.string());
  });
  if (world.rank() == 0) {
    fmt::print(
        "{}\n{} written after {:.0f} s. Nothing else should have run meanwhile; where an "
        "interval is wide, something did.\n",
        describe(machine), options.output.string(), seconds_since(start));
    std::fflush(stdout);
  }
  return 0;
}

}  // namespace

Command add_calibrate(CLI::App& program) {
  const auto options = std::make_shared<CalibrateArguments>();
  CLI::App* app = add_command(
      program, "calibrate", "Measure this machine into a file that plan and study read.",
      "  mpirun --bind-to core -n 2 tessera calibrate machine.json --expert 2\n"
      "  srun -N 2 --ntasks-per-node 64 tessera calibrate machine.json --expert 8 --name spring\n"
      "Latency and bandwidth within and between nodes, collectives, products, memory, file system\n"
      "(where TMPDIR is), and one training step; under two minutes. Two nodes are needed for what "
      "is\n"
      "between nodes. modules/study/MACHINE.md describes the file.");
  app->add_option("output", options->output, "machine file to write")
      ->required()
      ->type_name("MACHINE.json");
  app->add_option("--name", options->calibrate.name, "of the machine")->capture_default_str();
  app->add_option("--dtype", options->dtype, "arithmetic of the step: f32 or bf16")
      ->capture_default_str();
  app->add_option("--repeat", options->calibrate.num_repeats, "times that each part is timed")
      ->capture_default_str()
      ->check(positive());
  app->add_flag("--trial", options->calibrate.is_trial,
                "tiny sizes: see that everything runs, believe no number");
  add_grid_options(*app, options->grid);
  return {app, [options] { return run(*options); }};
}

}  // namespace tessera::apps
