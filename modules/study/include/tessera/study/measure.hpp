// SPDX-License-Identifier: Apache-2.0
// What a machine reaches, measured: for `tessera bench` to hold kernels against, for `tessera
// calibrate` to write down. All collective over the communicator that they get first: each rank
// measures while the others measure the same.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "base/dtype.hpp"
#include "comm/communicator.hpp"
#include "tessera/model/config.hpp"
#include "tessera/trainer/step_profile.hpp"

namespace tessera::study {

using trainer::OverRanks;

/// The roofs of kernels, of this rank.
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

/// Arithmetic, memory and messages.
MachineReport measure_machine(const comm::Communicator& world, int num_repeats);

/// Reads `file`, or a temporary one if that is empty: all ranks together, each its part. On several
/// nodes the directory of temporary files must be shared. Errors are agreed.
std::vector<MachineRow> measure_file(const comm::Communicator& world,
                                     const std::filesystem::path& file);

/// Bytes per second at which the ranks together write a temporary file, `bytes` each with fsync,
/// and read it after it was dropped from the cache. Errors are agreed.
struct FileRates {
  double write = 0.0;
  double read = 0.0;
};
FileRates measure_file_rates(const comm::Communicator& world, std::int64_t bytes);

/// Median time of `body` [s] on this rank, which starts with the others each time.
double median_seconds(const comm::Communicator& world, int num_repeats,
                      const std::function<void()>& body);
/// The shortest of several times: a roof is what can be reached.
double best_seconds(const comm::Communicator& world, int num_repeats,
                    const std::function<void()>& body);
/// All times [s], the first one left out (it allocates and compiles).
std::vector<double> sample_seconds(const comm::Communicator& world, int num_repeats,
                                   const std::function<void()>& body);

/// Bytes per second of a triad on arrays that no cache holds, while all ranks do the same.
std::vector<double> sample_triad(const comm::Communicator& world, int num_repeats);

struct KernelTimes {
  std::vector<double> forward;  ///< [s] of each repeat
  std::vector<double> backward;
};
/// The MLPs of `local_experts` experts on `num_rows` rows, dealt to them alike.
KernelTimes time_experts(const comm::Communicator& world, const model::ModelConfig& config,
                         Dtype dtype, std::int64_t local_experts, std::int64_t num_rows,
                         int num_repeats);
/// Attention of one layer without its projections.
KernelTimes time_attention(const comm::Communicator& world, const model::ModelConfig& config,
                           Dtype dtype, std::int64_t sequences, std::int64_t length,
                           std::int64_t window, int num_repeats);
/// @pre not empty. local.
double median(std::vector<double> samples);

}  // namespace tessera::study
