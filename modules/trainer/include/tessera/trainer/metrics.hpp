// SPDX-License-Identifier: Apache-2.0
// What a training step reports, and the file of JSON lines that keeps it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "comm/communicator.hpp"

namespace tessera::trainer {

/// One line of metrics.jsonl; the key of each field is its name here unless said otherwise.
struct StepMetrics {
  std::int64_t step = 0;   ///< steps done, dropped ones and this one included: the first is 1
  double loss = 0.0;       ///< mean over the global batch's targets before the step [nat], plus the
                           ///< weighted aux_loss
  double grad_norm = 0.0;  ///< before clipping
  double learning_rate = 0.0;  ///< key "lr"
  double step_s = 0.0;         ///< wall time of the step [s]
  double tokens_per_s = 0.0;   ///< of the whole job
  double peak_rss_mib = 0.0;   ///< largest of all ranks [MiB]
  double expert_load =
      0.0;  ///< tokens of the busiest expert / mean over experts; of all layers the worst
  bool dropped = false;  ///< nothing was updated: NaN or infinity in a gradient, or no target;
                         ///< written only if so
  std::optional<double> aux_loss;   ///< auxiliary loss, where it is in use
  std::optional<double> eval_loss;  ///< on the held-out sequences, where this step evaluated
};

/// The line without its newline; NaN and infinity become null. local.
std::string to_json_line(const StepMetrics& metrics);

/// Highest resident memory of this process so far, VmHWM [MiB]. local.
double peak_rss_mib();
/// Memory of this process now, of what it shares with others its part [MiB]. local.
double proportional_set_mib();

/// Appends a line per step to a file, on rank 0. A full disk does not stop the training: the lines
/// are kept, written when there is room again, and a warning is given once.
class MetricsWriter {
 public:
  /// Opens `path`; of an earlier run's lines those up to `resumed_step` are kept (0: none), so that
  /// no step occurs twice. collective over world; throws Error::file, agreed.
  MetricsWriter(const comm::Communicator& world, std::filesystem::path path,
                std::int64_t resumed_step);
  ~MetricsWriter();
  MetricsWriter(const MetricsWriter&) = delete;
  MetricsWriter& operator=(const MetricsWriter&) = delete;

  /// Writes one line through to the file. local; does nothing on ranks other than 0.
  void write(const StepMetrics& metrics);
  /// Throws Error::file, agreed, if lines are still unwritten. collective over world.
  void finish(const comm::Communicator& world);

 private:
  void flush_pending();

  std::filesystem::path path_;
  int descriptor_ = -1;      ///< -1 on ranks other than 0
  std::string pending_;      ///< whole lines that are not in the file yet
  std::int64_t offset_ = 0;  ///< end of the last whole line in the file [bytes]
  bool warned_ = false;
};

}  // namespace tessera::trainer
