// SPDX-License-Identifier: Apache-2.0
#include "run_record.hpp"

#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "base/log.hpp"

namespace tessera::trainer {
namespace {

/// An object, empty if the text is none.
nlohmann::json parse_record(const std::string& text) {
  nlohmann::json record = nlohmann::json::parse(text, nullptr, false);
  return record.is_object() ? record : nlohmann::json::object();
}

}  // namespace

std::string run_record(const TrainingOptions& options, std::int64_t total_steps,
                       const TokenData& data) {
  const zero3::OptimizerOptions& optimizer = options.optimizer;
  return nlohmann::json{{"total_steps", total_steps},
                        {"batch", options.batch},
                        {"sequence_length", data.sequence_length()},
                        {"num_sequences", data.num_sequences()},
                        {"held_out", options.num_held_out},
                        {"schedule", static_cast<int>(options.schedule.kind)},
                        {"lr", options.schedule.peak},
                        {"warmup", options.schedule.num_warmup_steps},
                        {"min_lr_fraction", options.schedule.min_fraction},
                        {"clip", options.max_grad_norm},
                        {"weight_decay", optimizer.weight_decay},
                        {"beta1", optimizer.beta1},
                        {"beta2", optimizer.beta2},
                        {"eps", optimizer.epsilon},
                        {"aux_loss_coef", options.aux_coefficient}}
      .dump();
}

std::int64_t recorded_total_steps(const checkpoint::TrainingState& earlier) {
  const nlohmann::json record = parse_record(earlier.training_json);
  const auto found = record.find("total_steps");
  return found != record.end() && found->is_number_integer() ? found->get<std::int64_t>() : 0;
}

void compare_with_record(const checkpoint::TrainingState& earlier, const TrainingOptions& options,
                         const std::string& record) {
  const std::string optimizer = to_string(options.optimizer.kind);
  if (!earlier.optimizer.empty() && earlier.optimizer != optimizer) {
    fail(ErrorKind::usage,
         "the run to resume used {}, not {} (its state and step count belong to that optimizer); "
         "give "
         "--optimizer {}, or start anew from the checkpoint as MODEL",
         earlier.optimizer, optimizer, earlier.optimizer);
  }
  const nlohmann::json before = parse_record(earlier.training_json), now = parse_record(record);
  for (const auto& [key, value] : now.items()) {
    const auto found = before.find(key);
    if (found == before.end() || *found == value) continue;
    log_warning("{} is {} and was {} in the run that this one resumes", key, value.dump(),
                found->dump());
  }
}

}  // namespace tessera::trainer
