// SPDX-License-Identifier: Apache-2.0
// What `tessera bench` measures, in parts: the machine, the kernels of a step, and what is made of
// both.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/dtype.hpp"
#include "comm/process_grid.hpp"
#include "tessera/model/config.hpp"
#include "tessera/model/transformer.hpp"
#include "tessera/study/measure.hpp"
#include "tessera/study/work.hpp"
#include "tessera/trainer/step_profile.hpp"

namespace tessera::apps {

using study::MachineReport;
using study::MachineRow;
using study::Roofs;
using study::Work;
using trainer::OverRanks;

/// Loads MODEL and saves its weights as a Tessera file among the temporary ones, in turns with
/// pread and pwrite of the same bytes by the same ranks; medians. collective over grid.world();
/// errors are agreed.
std::vector<MachineRow> measure_checkpoint(const comm::ProcessGrid& grid,
                                           const std::filesystem::path& model, int num_repeats);

struct KernelRow {
  std::string name;
  OverRanks ms;                     ///< median of the repeats
  OverRanks rate;                   ///< in `unit`
  std::string unit;                 ///< GFLOP/s or GB/s: of what binds
  std::string roof;                 ///< what binds: "product", "memory" or "message"
  double share = 0.0;               ///< of that roof, mean over ranks; 0: no work is known
  double gflops = 0.0;              ///< GFLOP/s of its products, mean over ranks; 0: none
  double share_of_registers = 0.0;  ///< of the arithmetic units' rate; 0: no products
  double share_of_step = 0;         ///< of the phases of a step only
};

/// Time and work of this rank as a row. collective over world.
KernelRow make_row(const comm::Communicator& world, const std::string& name, double seconds,
                   const Work& work, const Roofs& roofs, Dtype dtype);

struct BenchShape {
  model::ModelConfig config;
  Dtype dtype = Dtype::f32;
  model::Recompute recompute = model::Recompute::none;
  std::int64_t batch = 1;  ///< sequences over all ranks
  std::int64_t length = 0;
  int num_repeats = 5;

  std::int64_t element_bytes() const { return dtype == Dtype::bf16 ? 2 : 4; }
};

/// A rank's experts with so many rows each.
struct ExpertRow {
  std::int64_t tokens = 0;
  KernelRow forward;
  KernelRow backward;
  KernelRow both;
};
/// collective over grid.world().
std::vector<ExpertRow> measure_experts(const comm::ProcessGrid& grid, const BenchShape& shape,
                                       const Roofs& roofs, const std::vector<std::int64_t>& tokens);

/// Each kernel of a step alone, with equally loaded experts. collective over grid.world().
std::vector<KernelRow> measure_kernels(const comm::ProcessGrid& grid, const BenchShape& shape,
                                       const Roofs& roofs);

/// The phases of a step against the roofs, the step itself as the last row, and what each
/// communicator passed.
struct StepReport {
  std::vector<KernelRow> rows;
  std::vector<trainer::StepProfile::TrafficRow> traffic;
};
/// collective over grid.world().
StepReport measure_step(const comm::ProcessGrid& grid, const BenchShape& shape, const Roofs& roofs);

std::string machine_table(const std::vector<MachineRow>& rows);
std::string kernel_table(const std::string& title, const std::vector<KernelRow>& rows);
std::string expert_table(const std::vector<ExpertRow>& rows);

struct BenchReport {
  std::vector<MachineRow> machine;
  std::vector<KernelRow> kernels;
  std::vector<ExpertRow> experts;
  StepReport step;
};
std::string bench_json(const std::string& description, const BenchShape& shape, int num_ranks,
                       const BenchReport& report);

}  // namespace tessera::apps
