// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <tessera/study/grid_choice.hpp>

#include "comm/communicator.hpp"

namespace tessera::apps {

/// --machine and --collectives. collective over world; errors are the same on all ranks.
study::PlanMachine read_plan_machine(const comm::Communicator& world, const std::string& path,
                                     const std::string& collectives);

}  // namespace tessera::apps
