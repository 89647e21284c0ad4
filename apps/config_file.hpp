// SPDX-License-Identifier: Apache-2.0
// Options from a TOML file: one table per subcommand, keys are the long option names.
#pragma once

#include <CLI/CLI.hpp>

namespace tessera::apps {

/// Adds `--config FILE` to the program. The command line wins over the file; a key or table that is
/// no option or subcommand is an error, and so is broken TOML.
void add_config_file(CLI::App& program);

}  // namespace tessera::apps
