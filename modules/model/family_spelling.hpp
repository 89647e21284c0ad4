// SPDX-License-Identifier: Apache-2.0
// config.json of the original gpt-oss release, which has no model_type, and how transformers spells
// the same.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace tessera::model {

/// Whether it is spelled as the original gpt-oss release (gpt_oss/torch/model.py, ModelConfig).
/// local.
bool is_original_spelling(const nlohmann::json& config);

/// The same in transformers' spelling. Keys that the original does not have are kept, so that they
/// can be refused. `json_text` has passed parse_object(). Throws Error::config. local.
std::string from_original_spelling(const std::string& json_text);

}  // namespace tessera::model
