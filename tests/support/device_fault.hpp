// SPDX-License-Identifier: Apache-2.0
// What happens where host code touches device memory, tried in a process of its own.
#pragma once

#include <functional>
#include <string>

namespace tessera::test {

/// Runs the body in a copy of this process (which talks to no other rank) and returns what it says
/// on stdout and stderr; "it went on" if the body returned, "it ended by signal N" if one ended it.
/// local.
std::string fault_of(const std::function<void()>& body);

/// Host code reads the first byte. local.
void touch(const void* data);

}  // namespace tessera::test
