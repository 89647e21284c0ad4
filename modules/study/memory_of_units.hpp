// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "tessera/model/parameter_units.hpp"
#include "tessera/study/memory_plan.hpp"

namespace tessera::study {

/// plan_memory() for many shapes of one model. `units`: in_vocabulary_chunks(parameter_units()).
std::vector<MemoryPlan> plan_memory(const model::ModelConfig& config,
                                    const std::vector<model::ParameterUnit>& units,
                                    const RunShape& given);

}  // namespace tessera::study
