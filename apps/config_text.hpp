// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "comm/communicator.hpp"

namespace tessera::apps {

/// The text of MODEL's configuration: config.json itself, of a directory, or of a Tessera file.
/// collective over world; errors are agreed.
std::string read_config_text(const comm::Communicator& world, const std::string& model);

}  // namespace tessera::apps
