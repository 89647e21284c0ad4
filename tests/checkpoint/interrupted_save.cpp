// SPDX-License-Identifier: Apache-2.0
// Saves checkpoints over one another and dies in the middle: run again and again by
// interrupted_save.sh. interrupted_save FILE SEED MICROSECONDS: checks that FILE, if it is there,
// holds one generation whole and bit for bit, prints "generation G", and saves generation G + 1
// while a rank chosen by SEED kills itself at a time chosen by SEED within the MICROSECONDS that a
// save takes. 0 microseconds: nobody dies, and what the save took is printed.
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <thread>

#include "comm/environment.hpp"
#include "comm/watchdog.hpp"
#include "hdf5_fixture.hpp"
#include "tessera/checkpoint/verify.hpp"

using namespace tessera;
using namespace tessera::checkpoint;
using comm::ProcessGrid;

namespace {

std::vector<Parameter> parameters() {
  return {{.name = "layers.0.down_proj", .shape = {6, 40, 512}, .is_expert = true},
          {.name = "layers.0.bias", .shape = {6, 40}, .is_expert = true}};
}

test::Unit unit() { return {parameters(), {Dtype::bf16, Dtype::f32}}; }

/// Throws unless the file is one whole generation. collective.
std::int64_t checked_generation(const ProcessGrid& grid, const std::string& path) {
  const auto source = Hdf5Source::open(grid.world(), path);
  const std::int64_t generation = source->state().step;
  LoadReport report;
  const std::string wrong =
      test::compare_unit(*source, grid, "parameters", unit(), int(generation), {}, report);
  const bool is_wrong = grid.world().all_reduce_value("wrong", std::int64_t(!wrong.empty()),
                                                      comm::ReduceOp::max) != 0;
  if (is_wrong || !verify_file(grid, *source).differences.empty()) {
    fail(ErrorKind::format, "{} is not generation {}: {}", path, generation, wrong);
  }
  return generation;
}

void save(const ProcessGrid& grid, const std::string& path, std::int64_t generation) {
  const test::Unit content = unit();
  std::vector<DatasetSpec> specs;
  test::add_specs(content, "parameters", specs);
  TrainingState state;
  state.step = generation;
  Hdf5Writer writer(grid.world(), path, specs, state, {{"config.json", "{}"}});
  test::write_unit(writer, grid, "parameters", content, int(generation));
  writer.commit();
}

void die_within(const ProcessGrid& grid, unsigned long seed, long microseconds) {
  std::mt19937_64 random(seed);
  const auto victim = int(random() % std::uint64_t(grid.world().size()));
  const auto delay = std::chrono::microseconds(random() % std::uint64_t(microseconds));
  if (grid.world().rank() != victim) return;
  std::thread([delay] {
    std::this_thread::sleep_for(delay);
    std::raise(SIGKILL);
  }).detach();
}

}  // namespace

int main(int argc, char** argv) {
  comm::Environment environment(argc, argv);
  if (argc != 4) return 2;
  const std::string path = argv[1];
  const unsigned long seed = std::strtoul(argv[2], nullptr, 10);
  const long microseconds = std::strtol(argv[3], nullptr, 10);
  try {
    const ProcessGrid grid(MPI_COMM_WORLD, {1});
    const bool is_there =
        grid.world().all_reduce_value("file is there", std::int64_t(std::filesystem::exists(path)),
                                      comm::ReduceOp::min) != 0;
    const std::int64_t generation = is_there ? checked_generation(grid, path) : 0;
    if (grid.world().rank() == 0) {
      std::printf("generation %lld\n", static_cast<long long>(generation));
      std::fflush(stdout);
    }
    grid.world().barrier("checked");
    const auto start = std::chrono::steady_clock::now();
    if (microseconds > 0) die_within(grid, seed, microseconds);
    save(grid, path, generation + 1);
    const std::chrono::duration<double, std::micro> took = std::chrono::steady_clock::now() - start;
    if (grid.world().rank() == 0) std::printf("took %ld\n", std::lround(took.count()));
    std::fflush(stdout);
  } catch (const std::exception& error) {
    std::printf("FAILED: %s\n", error.what());
    std::fflush(stdout);
    comm::abort_job(1);
  }
}
