// SPDX-License-Identifier: Apache-2.0
#include "plan_machine.hpp"

#include "comm/agree.hpp"

namespace tessera::apps {

study::PlanMachine read_plan_machine(const comm::Communicator& world, const std::string& path,
                                     const std::string& collectives) {
  return {comm::agreed(world, "read the machine file", [&] { return study::read_machine(path); }),
          study::parse_algorithm(collectives)};
}

}  // namespace tessera::apps
