// SPDX-License-Identifier: Apache-2.0
// toml++ for texts that are not to be trusted: version 3.3 asserts that a table's name begins as a
// key may, where `[!` in a file would end a debug build, before it checks the same and refuses it.
#pragma once

#define TOML_ASSERT(expression) static_assert(true)
#include <toml++/toml.h>
