// SPDX-License-Identifier: Apache-2.0
// Typed and bounded access to a configuration's keys.
#include "config_reader.hpp"

#include <limits>
#include <utility>
#include <vector>

#include "base/error.hpp"

namespace tessera::model {

using nlohmann::json;

namespace {

constexpr std::size_t max_config_bytes = 1 << 20;
constexpr int max_depth = 64;

[[noreturn]] void wrong_type(const std::string& name, const char* expected, const json& value) {
  fail(ErrorKind::config,
       "{} must be {} but is of type {}; correct it in the model's configuration", name, expected,
       value.type_name());
}

/// Bounds the nesting and remembers the keys of each open object; of two equal keys JSON would
/// silently keep the last.
class ParseCheck {
 public:
  explicit ParseCheck(const std::string& origin) : origin_(origin) {}

  bool operator()(int depth, json::parse_event_t event, json& parsed) {
    if (depth > max_depth) {
      fail(ErrorKind::config,
           "{}: JSON is nested deeper than {} levels (no configuration needs that)", origin_,
           max_depth);
    }
    if (event == json::parse_event_t::object_start) {
      open_.emplace_back();
    } else if (event == json::parse_event_t::object_end) {
      open_.pop_back();
    } else if (event == json::parse_event_t::key &&
               !open_.back().insert(parsed.get<std::string>()).second) {
      fail(ErrorKind::config,
           "{}: key '{}' occurs twice in one object (readers differ in which one they take); "
           "remove one",
           origin_, parsed.get<std::string>());
    }
    return true;
  }

 private:
  const std::string& origin_;
  std::vector<std::set<std::string>> open_;
};

}  // namespace

json parse_object(const std::string& json_text, const std::string& origin) {
  if (json_text.size() > max_config_bytes) {
    fail(ErrorKind::config, "{} has {} bytes, more than the limit of {} for a configuration",
         origin, json_text.size(), max_config_bytes);
  }
  ParseCheck check(origin);
  json parsed;
  try {
    parsed = json::parse(json_text, std::ref(check));
  } catch (const json::exception& error) {
    fail(ErrorKind::config, "{} is not valid JSON: {}", origin, error.what());
  }
  if (!parsed.is_object()) {
    fail(ErrorKind::config, "{} must hold one JSON object but holds a value of type {}", origin,
         parsed.type_name());
  }
  return parsed;
}

ConfigReader::ConfigReader(const json& object, std::string origin, std::string prefix)
    : object_(object), origin_(std::move(origin)), prefix_(std::move(prefix)) {}

bool ConfigReader::contains(const char* key) {
  known_.insert(key);
  return object_.contains(key);
}

bool ConfigReader::is_null(const char* key) { return contains(key) && object_[key].is_null(); }

const json& ConfigReader::value(const char* key) {
  if (!contains(key)) {
    fail(ErrorKind::config, "{} is missing (nothing sensible can stand in for it); add it",
         name(key));
  }
  return object_[key];
}

std::int64_t ConfigReader::integer(const char* key, std::int64_t fallback, std::int64_t lowest,
                                   std::int64_t highest) {
  if (!contains(key)) {
    return fallback;
  }
  const json& found = object_[key];
  if (!found.is_number_integer()) {
    wrong_type(name(key), "an integer", found);
  }
  const bool fits = !found.is_number_unsigned() ||
                    found.get<std::uint64_t>() <= std::numeric_limits<std::int64_t>::max();
  if (!fits || found.get<std::int64_t>() < lowest || found.get<std::int64_t>() > highest) {
    fail(ErrorKind::config, "{} is {} but must lie between {} and {}", name(key), found.dump(),
         lowest, highest);
  }
  return found.get<std::int64_t>();
}

double ConfigReader::number(const char* key, double fallback, double lowest, double highest) {
  if (!contains(key)) {
    return fallback;
  }
  const json& found = object_[key];
  if (!found.is_number()) {
    wrong_type(name(key), "a number", found);
  }
  const double result = found.get<double>();
  if (!(result >= lowest && result <= highest)) {
    fail(ErrorKind::config, "{} is {} but must lie between {} and {}", name(key), result, lowest,
         highest);
  }
  return result;
}

bool ConfigReader::boolean(const char* key, bool fallback) {
  if (!contains(key)) {
    return fallback;
  }
  if (!object_[key].is_boolean()) {
    wrong_type(name(key), "true or false", object_[key]);
  }
  return object_[key].get<bool>();
}

std::string ConfigReader::text(const char* key, const std::string& fallback) {
  if (!contains(key)) {
    return fallback;
  }
  if (!object_[key].is_string()) {
    wrong_type(name(key), "a string", object_[key]);
  }
  return object_[key].get<std::string>();
}

const json* ConfigReader::object(const char* key) {
  if (!has(key)) {
    return nullptr;
  }
  if (!object_[key].is_object()) {
    wrong_type(name(key), "an object", object_[key]);
  }
  return &object_[key];
}

void ConfigReader::refuse_unknown(const std::set<std::string>& harmless) const {
  for (const auto& [key, found] : object_.items()) {
    if (known_.count(key) == 0 && harmless.count(key) == 0) {
      fail(ErrorKind::config,
           "{} is not a key that Tessera knows (it may change the mathematics, so it is not "
           "ignored); remove it if the model does not depend on it",
           name(key.c_str()));
    }
  }
}

}  // namespace tessera::model
