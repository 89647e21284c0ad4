// SPDX-License-Identifier: Apache-2.0
// One run of a scaling study and its file: all that a report needs, and what it was measured with.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "tessera/study/machine.hpp"
#include "tessera/study/run_shape.hpp"

namespace tessera::study {

struct StudyResult {
  // Where it comes from.
  std::string program;       ///< version, commit and compiler
  std::string dependencies;  ///< versions of the libraries
  std::string modules;       ///< $LOADEDMODULES
  std::string nodes;         ///< the grid in words
  std::string config_json;
  std::string machine_json;                 ///< of the prediction; empty: none
  std::vector<std::int64_t> cpus_of_ranks;  ///< processors that each rank may run on

  // What was run.
  std::string series;   ///< "strong" or "weak"
  std::string routing;  ///< "real", "balanced", "zipf:EXPONENT"
  RunShape shape;

  // What came out.
  std::vector<double> step_s;  ///< of each repeat [s], the slowest rank's mean
  std::vector<std::string> phases;
  std::vector<double> phase_s;          ///< mean over ranks and repeats
  std::vector<double> planned_phase_s;  ///< empty: no machine
  double planned_s = 0.0;               ///< with the load of experts as counted
  double simulated_s = 0.0;
  std::vector<std::string> communicators;
  std::vector<double> logical_bytes, moved_bytes;  ///< of a step, mean over ranks
  std::vector<std::int64_t> expert_choices;        ///< [layers with experts, E]

  Figure step() const { return Figure::median_of(step_s); }
  bool has_plan() const { return planned_s > 0.0; }
  /// The prediction is outside the measured interval and more than 10 % off. @pre has_plan().
  bool leaves_model() const;
  /// The phase whose prediction misses most seconds; empty: none. local.
  std::string worst_phase() const;
};

/// local; throws Error::file.
void save(const StudyResult& result, const std::filesystem::path& path);
/// local; throws Error::file, Error::format.
StudyResult load_result(const std::filesystem::path& path);
/// All result-*.h5 of a directory, by their names. Throws Error::file if there is none. local.
std::vector<StudyResult> load_results(const std::filesystem::path& directory);

}  // namespace tessera::study
