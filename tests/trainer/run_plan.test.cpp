// SPDX-License-Identifier: Apache-2.0
// What --dry-run foretells is what a run then does: bytes read, and memory as Kokkos counts it.
#include <Kokkos_Core.hpp>
#include <algorithm>
#include <atomic>
#include <catch2/catch.hpp>
#include <cstdlib>
#include <tessera/trainer/batch_reader.hpp>
#include <tessera/trainer/run_plan.hpp>
#include <tessera/trainer/train_step.hpp>

#include "support/collective_check.hpp"

namespace tessera::trainer {
namespace {

/// Bytes of all Kokkos views, counted from construction on.
class ViewMemory {
 public:
  ViewMemory() {
    live = peak = 0;
    Kokkos::Tools::Experimental::set_allocate_data_callback(
        [](Kokkos_Profiling_SpaceHandle, const char*, const void*, std::uint64_t size) {
          live += static_cast<std::int64_t>(size);
          peak = std::max<std::int64_t>(peak, live);
        });
    Kokkos::Tools::Experimental::set_deallocate_data_callback(
        [](Kokkos_Profiling_SpaceHandle, const char*, const void*, std::uint64_t size) {
          live -= static_cast<std::int64_t>(size);
        });
  }
  ~ViewMemory() {
    Kokkos::Tools::Experimental::set_allocate_data_callback(nullptr);
    Kokkos::Tools::Experimental::set_deallocate_data_callback(nullptr);
  }
  std::int64_t peak_bytes() const { return peak; }

 private:
  static inline std::atomic<std::int64_t> live, peak;
};

TrainingOptions options_for(const std::filesystem::path& model) {
  TrainingOptions options;
  options.data = model / "tokens.npy";
  options.batch = 4;
  return options;
}

/// One step as a run does it; the load's report and the most memory that views took.
template <class T>
std::pair<checkpoint::LoadReport, std::int64_t> run_step(const comm::ProcessGrid& grid,
                                                         ModelSource& source,
                                                         const TrainingOptions& options) {
  const ViewMemory memory;
  auto store = make_store<T>(grid, source.config);
  const checkpoint::LoadReport report = load_parameters(grid, source, store);
  model::Transformer<T> model(grid, source.config, store);
  const TokenData data = TokenData::open(grid.world(), options.data, options.data_options);
  const BatchReader reader(grid.world(), data, source.config.vocab_size, options.micro_batch);
  std::vector<std::int64_t> rows(static_cast<std::size_t>(options.batch));
  for (std::size_t i = 0; i < rows.size(); ++i) {
    rows[i] = static_cast<std::int64_t>(i) % data.num_sequences();
  }
  const StepBatches read = reader.read(rows);
  StepOptions step;
  step.learning_rate = 1e-3;
  train_step(grid, model, store, std::span<const model::Batch>(read.batches), options.optimizer,
             step, false);
  return {report, memory.peak_bytes()};
}

template <class T>
void check_plan(const comm::ProcessGrid& grid, const std::string& name) {
  const auto path = std::filesystem::path(TESSERA_GOLDEN_DIRECTORY) / name;
  ModelSource source = open_model(grid.world(), path, {});
  TrainingOptions options = options_for(path);
  options.dtype = dtype_of<T>;
  const std::vector<RankPlan> plans = plan_run(grid, source, options);
  CHECK(std::ssize(plans) == grid.world().size());
  const RankPlan& plan = plans[static_cast<std::size_t>(grid.world().rank())];
  const auto [report, peak_bytes] = run_step<T>(grid, source, options);
  INFO(name << ", " << to_string(dtype_of<T>) << ", " << grid.describe());
  CHECK(plan.read_bytes == report.planned_bytes);
  CHECK(plan.read_bytes == report.read_bytes);
  std::int64_t num_parameters = 0;
  for (const RankPlan& each : plans) num_parameters += each.num_parameters;
  CHECK(num_parameters == model::num_parameters(source.config));
  const double ratio = static_cast<double>(plan.memory_bytes()) / static_cast<double>(peak_bytes);
  CAPTURE(plan.state_bytes, plan.gathered_bytes, plan.activation_bytes, peak_bytes);
  // The plan counts what lives at the same time. The pool keeps each size that was ever needed and
  // rounds capacities up, which in models as small as these is nearly half of the whole; and the
  // busiest rank has more than its share of tokens.
  CHECK(ratio > 0.45);
  CHECK(ratio < 1.3);
}

}  // namespace

TEST_CASE("A plan foretells what is read and how much memory a step takes") {
  const std::string name = GENERATE("wide", "deepseek_v3", "llama");
  // The plan is that of messages; what ranks share is no view and would not be counted.
  setenv("TESSERA_SHARED_MEMORY", "off", 1);
  const comm::Communicator world(MPI_COMM_WORLD, "test");
  for (int expert = 1; expert <= world.size(); ++expert) {
    if (world.size() % expert != 0) continue;
    const comm::ProcessGrid grid(MPI_COMM_WORLD, {expert});
    check_plan<float>(grid, name);
    check_plan<bf16>(grid, name);
  }
}

TEST_CASE("The table of a plan shows sixteen ranks and the largest of more") {
  std::vector<RankPlan> plans(40, RankPlan{1000, 1 << 20, 2 << 20, 3 << 20, 4 << 20});
  plans[30].state_bytes = 5 << 20;
  const std::string text = describe(plans);
  CHECK(std::count(text.begin(), text.end(), '\n') == 1 + 16 + 3);
  CHECK(text.find("(24 more)") != std::string::npos);
  CHECK(text.find("12.0 MiB") != std::string::npos);  // of rank 30
  CHECK(text.find("40000") != std::string::npos);     // parameters of all
}

}  // namespace tessera::trainer
