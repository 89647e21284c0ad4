// SPDX-License-Identifier: Apache-2.0
// Options of arithmetic and optimizer that train and probe share.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "base/dtype.hpp"
#include "tessera/zero3/optimizer.hpp"

namespace tessera::apps {

struct NumericOptions {
  std::string optimizer = "adamw";
  std::vector<double> betas{0.9, 0.999};
  double epsilon = 1e-8;
  double weight_decay = 0.01;
};

/// --optimizer, --betas, --eps, --weight-decay.
void add_optimizer_options(CLI::App& app, NumericOptions& options);
/// Throws Error::usage for a bad name or number. local.
zero3::OptimizerOptions optimizer_options(const NumericOptions& options);
/// f32 or bf16; throws Error::usage for any other name. local.
Dtype parse_dtype(const std::string& name);

}  // namespace tessera::apps
