// SPDX-License-Identifier: Apache-2.0
#include "numeric_options.hpp"

#include "base/error.hpp"
#include "command.hpp"

namespace tessera::apps {

void add_optimizer_options(CLI::App& app, NumericOptions& options) {
  app.add_option("--optimizer", options.optimizer, "adamw or sgd")->capture_default_str();
  app.add_option("--betas", options.betas, "Adam's decay rates of the moments")
      ->delimiter(',')
      ->expected(2)
      ->type_name("B1,B2")
      ->capture_default_str()
      ->check(non_negative());
  app.add_option("--eps", options.epsilon, "Adam's epsilon")
      ->capture_default_str()
      ->check(positive());
  app.add_option("--weight-decay", options.weight_decay, "decoupled weight decay")
      ->capture_default_str()
      ->check(non_negative());
}

zero3::OptimizerOptions optimizer_options(const NumericOptions& numeric) {
  zero3::OptimizerOptions options;
  options.kind = zero3::optimizer_kind(numeric.optimizer);
  for (const double beta : numeric.betas) {
    if (beta >= 1.0) fail(ErrorKind::usage, "--betas {} is outside [0, 1)", beta);
  }
  options.beta1 = numeric.betas[0];
  options.beta2 = numeric.betas[1];
  options.epsilon = numeric.epsilon;
  options.weight_decay = numeric.weight_decay;
  return options;
}

Dtype parse_dtype(const std::string& name) {
  if (name == "f32") return Dtype::f32;
  if (name == "bf16") return Dtype::bf16;
  fail(ErrorKind::usage, "--dtype {} is unknown; use f32 or bf16", name);
}

}  // namespace tessera::apps
