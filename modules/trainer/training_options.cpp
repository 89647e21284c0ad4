// SPDX-License-Identifier: Apache-2.0
// TrainingOptions from TOML text.
#include <fmt/ranges.h>

#include <map>
#include <tessera/trainer/trainer.hpp>

#include "base/toml.hpp"

namespace tessera::trainer {
namespace {

using Setter = std::function<void(TrainingOptions&, const toml::node&, const std::string&)>;

[[noreturn]] void refuse(const std::string& key, const char* wanted) {
  fail(ErrorKind::usage, "key '{}' of the training's configuration is not {}", key, wanted);
}

std::string text(const toml::node& node, const std::string& key) {
  const auto value = node.value_exact<std::string>();
  if (!value) refuse(key, "a text");
  return *value;
}

std::int64_t count(const toml::node& node, const std::string& key) {
  const auto value = node.value_exact<std::int64_t>();
  if (!value || *value < 0) refuse(key, "a whole number from 0 on");
  return *value;
}

double number(const toml::node& node, const std::string& key) {
  const auto value = node.is_number() ? node.value<double>() : std::nullopt;
  if (!value || !(*value >= 0.0)) refuse(key, "a number from 0 on");
  return *value;
}

bool is_bf16(const toml::node& node, const std::string& key) {
  const std::string name = text(node, key);
  if (name != "f32" && name != "bf16") refuse(key, "f32 or bf16");
  return name == "bf16";
}

double decay_rate(const toml::array& betas, std::size_t i) {
  const double beta = number(*betas.get(i), "betas");
  if (beta >= 1.0) refuse("betas", "a pair of numbers in [0, 1)");
  return beta;
}

/// The keys are the options of `tessera train`; what that only shows or times is not among them.
const std::map<std::string, Setter, std::less<>>& setters() {
  using O = TrainingOptions&;
  using N = const toml::node&;
  using K = const std::string&;
  static const std::map<std::string, Setter, std::less<>> table{
      {"model", [](O o, N n, K k) { o.model = text(n, k); }},
      {"resume", [](O o, N n, K k) { o.resume = text(n, k); }},
      {"data", [](O o, N n, K k) { o.data = text(n, k); }},
      {"dataset", [](O o, N n, K k) { o.data_options.dataset = text(n, k); }},
      {"sequence-length", [](O o, N n, K k) { o.data_options.sequence_length = count(n, k); }},
      {"held-out", [](O o, N n, K k) { o.num_held_out = count(n, k); }},
      {"steps", [](O o, N n, K k) { o.num_steps = count(n, k); }},
      {"total-steps", [](O o, N n, K k) { o.total_steps = count(n, k); }},
      {"batch", [](O o, N n, K k) { o.batch = std::max<std::int64_t>(count(n, k), 1); }},
      {"micro-batch", [](O o, N n, K k) { o.micro_batch = count(n, k); }},
      {"seed", [](O o, N n, K k) { o.seed = static_cast<std::uint64_t>(count(n, k)); }},
      {"dtype", [](O o, N n, K k) { o.dtype = is_bf16(n, k) ? Dtype::bf16 : Dtype::f32; }},
      {"reduce-dtype",
       [](O o, N n, K k) {
         o.gradient_transport =
             is_bf16(n, k) ? zero3::GradientTransport::bf16 : zero3::GradientTransport::f32;
       }},
      {"recompute", [](O o, N n, K k) { o.recompute = model::parse_recompute(text(n, k)); }},
      {"lr", [](O o, N n, K k) { o.schedule.peak = number(n, k); }},
      {"schedule", [](O o, N n, K k) { o.schedule.kind = parse_schedule(text(n, k)); }},
      {"warmup", [](O o, N n, K k) { o.schedule.num_warmup_steps = count(n, k); }},
      {"min-lr-fraction", [](O o, N n, K k) { o.schedule.min_fraction = number(n, k); }},
      {"clip", [](O o, N n, K k) { o.max_grad_norm = number(n, k); }},
      {"aux-loss-coef", [](O o, N n, K k) { o.aux_coefficient = number(n, k); }},
      {"optimizer", [](O o, N n, K k) { o.optimizer.kind = zero3::optimizer_kind(text(n, k)); }},
      {"betas",
       [](O o, N n, K k) {
         const toml::array* betas = n.as_array();
         if (betas == nullptr || betas->size() != 2) refuse(k, "a pair of numbers in [0, 1)");
         o.optimizer.beta1 = decay_rate(*betas, 0);
         o.optimizer.beta2 = decay_rate(*betas, 1);
       }},
      {"eps", [](O o, N n, K k) { o.optimizer.epsilon = number(n, k); }},
      {"weight-decay", [](O o, N n, K k) { o.optimizer.weight_decay = number(n, k); }},
  };
  return table;
}

toml::table parse(std::string_view text) {
  try {
    return toml::parse(text);
  } catch (const toml::parse_error& error) {
    fail(ErrorKind::usage, "the training's configuration, line {}: {}", error.source().begin.line,
         error.description());
  }
}

}  // namespace

TrainingOptions parse_training_options(std::string_view toml) {
  TrainingOptions options;
  for (const auto& [key, node] : parse(toml)) {
    const auto setter = setters().find(key.str());
    if (setter == setters().end()) {
      std::vector<std::string> names;
      for (const auto& [name, set] : setters()) names.push_back(name);
      fail(ErrorKind::usage, "key '{}' of the training's configuration is not known; keys are {}",
           std::string(key.str()), fmt::join(names, ", "));
    }
    setter->second(options, node, setter->first);
  }
  if (options.data.empty()) fail(ErrorKind::usage, "the training's configuration has no 'data'");
  if (options.model.empty() && options.resume.empty())
    fail(ErrorKind::usage, "the training's configuration has neither 'model' nor 'resume'");
  return options;
}

}  // namespace tessera::trainer
