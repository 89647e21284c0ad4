// SPDX-License-Identifier: Apache-2.0
// Runs that belong to one curve, from the fewest ranks on.
#pragma once

#include "tessera/study/study_result.hpp"

namespace tessera::study {

struct ScalingPoint {
  const StudyResult* result = nullptr;
  double speed_up = 1.0;    ///< tokens per second over the first point's
  double efficiency = 1.0;  ///< speed-up per rank
};

/// Strong or weak, one routing, one dtype, one length; of each number of ranks the quickest grid
/// stands for the curve, the others are points beside it.
struct ScalingSeries {
  std::string name;  ///< "weak", "strong"
  std::vector<ScalingPoint> points;
};

/// `results` must outlive them. local.
std::vector<ScalingSeries> scaling_series(const std::vector<StudyResult>& results);
/// The quickest of each number of ranks. local.
std::vector<ScalingPoint> curve_of(const ScalingSeries& series);

}  // namespace tessera::study
