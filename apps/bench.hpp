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
#include "tessera/trainer/step_profile.hpp"

namespace tessera::apps {

using trainer::OverRanks;

/// What this rank's machine reaches, measured while all ranks measure the same; the roofs of the
/// kernels.
struct Roofs {
  double f32_product = 0.0;    ///< [FLOP/s] the best that kernel::gemm reaches on large squares
  double bf16_product = 0.0;   ///< likewise, f32 sums
  double f32_registers = 0.0;  ///< [FLOP/s] of the arithmetic units, without any memory
  double bf16_registers = 0.0;
  double memory = 0.0;   ///< [B/s] triad out of caches
  double message = 0.0;  ///< [B/s] large messages between two ranks, mean over pairs; 0: one rank

  double product(Dtype dtype) const { return dtype == Dtype::bf16 ? bf16_product : f32_product; }
  double registers(Dtype dtype) const {
    return dtype == Dtype::bf16 ? bf16_registers : f32_registers;
  }
};

/// What arithmetic units reach, and with which instructions.
struct RegisterRates {
  std::string f32_instructions;
  double f32 = 0.0;  ///< [FLOP/s]
  std::string bf16_instructions;
  double bf16 = 0.0;  ///< [FLOP/s]; f32's where the processor has none for bf16
};
/// collective over world.
RegisterRates measure_registers(const comm::Communicator& world, int num_repeats);

/// A line of the machine's table.
struct MachineRow {
  std::string name;
  std::string unit;
  OverRanks value;
};

struct MachineReport {
  Roofs roofs;  ///< of this rank
  std::vector<MachineRow> rows;
};

/// Arithmetic, memory and messages. collective over world.
MachineReport measure_machine(const comm::Communicator& world, int num_repeats);

/// Reads `file`, or a temporary one if that is empty: all ranks together, each its part. On several
/// nodes the directory of temporary files must be shared. collective over world; errors are agreed.
std::vector<MachineRow> measure_file(const comm::Communicator& world,
                                     const std::filesystem::path& file);

/// Loads MODEL and saves its weights as a Tessera file among the temporary ones, in turns with
/// pread and pwrite of the same bytes by the same ranks; medians. collective over grid.world();
/// errors are agreed.
std::vector<MachineRow> measure_checkpoint(const comm::ProcessGrid& grid,
                                           const std::filesystem::path& model, int num_repeats);

/// What a kernel has to do on this rank at least: each array moved once.
struct Work {
  double flops = 0.0;
  double memory_bytes = 0.0;
  double message_bytes = 0.0;
};

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

/// Median time of `body` [s] on this rank, which starts with the others each time. collective over
/// world.
double median_seconds(const comm::Communicator& world, int num_repeats,
                      const std::function<void()>& body);

/// The shortest of several times: a roof is what can be reached. collective over world.
double best_seconds(const comm::Communicator& world, int num_repeats,
                    const std::function<void()>& body);

/// Seconds of the MLPs of `local_experts` experts on `num_rows` rows, dealt to them alike.
/// collective over world.
struct ExpertSeconds {
  double forward = 0.0;
  double backward = 0.0;
};
ExpertSeconds time_experts(const comm::Communicator& world, const BenchShape& shape,
                           std::int64_t local_experts, std::int64_t num_rows);

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

// The work of one rank in one call, by the shapes alone. `tokens`: of this rank.
Work expert_work(const model::ModelConfig& config, double rows, double local_experts,
                 std::int64_t element_bytes, bool backward);
Work attention_work(const model::ModelConfig& config, std::int64_t sequences, std::int64_t length,
                    std::int64_t window, std::int64_t element_bytes, bool backward);
Work head_work(const model::ModelConfig& config, std::int64_t tokens, std::int64_t element_bytes);
Work adamw_work(std::int64_t num_parameters, std::int64_t num_copied);
/// Products with the projections of all layers, experts aside, whose names contain `part`; forward.
double projection_flops(const model::ModelConfig& config, std::int64_t tokens,
                        std::string_view part);
/// All products of forward and backward.
double step_flops(const model::ModelConfig& config, std::int64_t sequences, std::int64_t length);

/// Tokens to the ranks of their experts, or outputs back to their tokens.
Work dispatch_work(const model::ModelConfig& config, std::int64_t tokens, int expert_ranks,
                   std::int64_t element_bytes, StepPhase phase);
/// One unit of `whole` elements over `num_ranks`. Ranks that share memory gather nothing, and their
/// sums need no messages.
Work gather_work(double whole, int num_ranks, std::int64_t element_bytes, bool shares_memory);
Work reduce_work(double whole, int num_ranks, bool shares_memory);

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
