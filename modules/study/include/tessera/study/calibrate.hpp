// SPDX-License-Identifier: Apache-2.0
// A machine file from measurements.
#pragma once

#include <functional>
#include <string>

#include "comm/process_grid.hpp"
#include "tessera/study/machine.hpp"

namespace tessera::study {

struct CalibrateOptions {
  std::string name = "this machine";
  /// Of the step whose phases are timed; products and attention are measured in f32 and bf16.
  Dtype dtype = Dtype::bf16;
  int num_repeats = 9;
  /// Sizes for a test: everything is measured, nothing of it is meant to be believed.
  bool is_trial = false;
  /// Told what is measured next; on all ranks.
  std::function<void(const std::string& part, int number, int num_parts)> progress;
};

/// Latency and bandwidth per tier, collectives by size, products, attention, triad, file system,
/// and one training step on the grid, from which what the others do not explain follows. The tier
/// "network" needs two nodes with equally many ranks. Each figure is the median of its repeats,
/// over ranks the slowest. collective over grid.world(); errors are agreed.
Machine calibrate(const comm::ProcessGrid& grid, const CalibrateOptions& options);

/// A summary for people. local.
std::string describe(const Machine& machine);

}  // namespace tessera::study
