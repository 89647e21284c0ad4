// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace tessera {

/// Of this node, as the system calls it. local.
std::string host_name();

}  // namespace tessera
