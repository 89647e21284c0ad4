// SPDX-License-Identifier: Apache-2.0
// Keys of a configuration by the family's map.
#include "family_reader.hpp"

#include "base/error.hpp"

namespace tessera::model {

using nlohmann::json;

namespace {

/// Keys without any influence on the numbers of a forward or backward pass, whatever the family.
/// Those of text generation are dropped by transformers too.
constexpr std::initializer_list<const char*> harmless_keys = {"architectures",
                                                              "auto_map",
                                                              "transformers_version",
                                                              "use_cache",
                                                              "bos_token_id",
                                                              "eos_token_id",
                                                              "_name_or_path",
                                                              "name_or_path",
                                                              "_commit_hash",
                                                              "id2label",
                                                              "label2id",
                                                              "problem_type",
                                                              "output_attentions",
                                                              "output_hidden_states",
                                                              "return_dict",
                                                              "chunk_size_feed_forward",
                                                              "attn_implementation",
                                                              "_attn_implementation",
                                                              "_attn_implementation_autoset",
                                                              "experts_implementation",
                                                              "_experts_implementation",
                                                              "tokenizer_class",
                                                              "task_specific_params",
                                                              "torchscript",
                                                              "pruned_heads",
                                                              "do_sample",
                                                              "temperature",
                                                              "top_k",
                                                              "top_p",
                                                              "typical_p",
                                                              "max_length",
                                                              "min_length",
                                                              "num_beams",
                                                              "num_beam_groups",
                                                              "num_return_sequences",
                                                              "repetition_penalty",
                                                              "length_penalty",
                                                              "diversity_penalty",
                                                              "no_repeat_ngram_size",
                                                              "encoder_no_repeat_ngram_size",
                                                              "early_stopping",
                                                              "bad_words_ids",
                                                              "forced_bos_token_id",
                                                              "forced_eos_token_id",
                                                              "suppress_tokens",
                                                              "begin_suppress_tokens",
                                                              "exponential_decay_length_penalty",
                                                              "output_scores",
                                                              "remove_invalid_values",
                                                              "return_dict_in_generate"};

void require_equal(ConfigReader& config, const char* key, const char* other, const json& value) {
  if (config.value(key) != value) {
    fail(ErrorKind::config,
         "{} is {} but {} is {} (two spellings of one parameter must agree); correct or remove one",
         config.name(key), config.value(key).dump(), other, value.dump());
  }
}

}  // namespace

FamilyReader::FamilyReader(ConfigReader& config, const Family& family)
    : config_(config), family_(family) {
  check_repeats();
  check_required();
}

void FamilyReader::check_repeats() {
  for (const auto& [key, other] : family_.repeats) {
    if (!config_.contains(key.c_str())) continue;
    const char* spelled = spelling(other.c_str());
    require_equal(config_, key.c_str(), spelled,
                  config_.contains(spelled) ? config_.value(spelled) : family_.defaults.at(other));
  }
}

void FamilyReader::check_required() {
  for (const auto& [key, value] : family_.required.items()) {
    if (config_.contains(key.c_str()) && config_.value(key.c_str()) != value) {
      fail(ErrorKind::config,
           "{} {} is not implemented for {} (the mathematics would differ); only {} is",
           config_.name(key.c_str()), config_.value(key.c_str()).dump(), family_.model_type,
           value.dump());
    }
  }
}

const char* FamilyReader::spelling(const char* key) {
  const char* found = key;
  for (const auto& [other, canonical] : family_.aliases) {
    if (canonical != key || !config_.contains(other.c_str())) continue;
    if (config_.contains(key)) {
      require_equal(config_, key, other.c_str(), config_.value(other.c_str()));
    }
    found = other.c_str();
  }
  return found;
}

bool FamilyReader::is_given(const char* key, const json*& fallback) {
  const auto found = family_.defaults.find(key);
  fallback = found == family_.defaults.end() ? nullptr : &*found;
  const bool is_optional = family_.optional.count(key) != 0;
  if (fallback == nullptr && !is_optional) return false;
  const char* spelled = spelling(key);
  if (!config_.contains(spelled)) return false;
  if (!is_optional || !config_.is_null(spelled)) return true;
  fallback = nullptr;
  return false;
}

std::int64_t FamilyReader::integer(const char* key, std::int64_t none, std::int64_t lowest,
                                   std::int64_t highest) {
  const json* fallback = nullptr;
  if (is_given(key, fallback)) return config_.integer(spelling(key), 0, lowest, highest);
  return fallback == nullptr ? none : fallback->get<std::int64_t>();
}

double FamilyReader::number(const char* key, double none, double lowest, double highest) {
  const json* fallback = nullptr;
  if (is_given(key, fallback)) return config_.number(spelling(key), 0.0, lowest, highest);
  return fallback == nullptr ? none : fallback->get<double>();
}

bool FamilyReader::boolean(const char* key, bool none) {
  const json* fallback = nullptr;
  if (is_given(key, fallback)) return config_.boolean(spelling(key), false);
  return fallback == nullptr ? none : fallback->get<bool>();
}

const json* FamilyReader::list(const char* key) {
  const json* fallback = nullptr;
  if (!is_given(key, fallback)) return nullptr;
  if (!config_.value(key).is_array()) {
    fail(ErrorKind::config, "{} must be a list but is of type {}", config_.name(key),
         config_.value(key).type_name());
  }
  return &config_.value(key);
}

std::string FamilyReader::name(const char* key) const { return config_.name(key); }

void FamilyReader::refuse_unknown() const {
  std::set<std::string> harmless(harmless_keys.begin(), harmless_keys.end());
  harmless.insert(family_.harmless.begin(), family_.harmless.end());
  config_.refuse_unknown(harmless);
}

}  // namespace tessera::model
