// SPDX-License-Identifier: Apache-2.0
// Plans as text.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "tessera/study/grid_choice.hpp"

namespace tessera::study {

/// One line: grid, batch, arithmetic. local.
std::string describe(const RunShape& shape);
/// A table of kinds, one column for each group of ranks that are alike. local.
std::string describe(const std::vector<MemoryPlan>& plans);
/// One line: the sum, and what of it stays and what a step has. local.
std::string summarize(const MemoryPlan& plan);
/// A table of grids, the best one marked, and why it is. local.
std::string describe(const std::vector<GridPlan>& grids, std::optional<std::int64_t> limit_bytes);

}  // namespace tessera::study
