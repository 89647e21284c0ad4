// SPDX-License-Identifier: Apache-2.0
#include "strict_json.hpp"

#include <unordered_set>
#include <vector>

#include "base/error.hpp"

namespace tessera::checkpoint {
namespace {

using nlohmann::json;

constexpr int max_depth = 64;

/// Watches the parser's events: the keys seen in each object that is still open.
class KeyWatch {
 public:
  explicit KeyWatch(const std::string& origin) : origin_(origin) {}

  bool operator()(int depth, json::parse_event_t event, const json& parsed) {
    if (depth > max_depth)
      fail(ErrorKind::format, "{}: JSON is nested deeper than {} levels (no checkpoint needs that)",
           origin_, max_depth);
    if (event == json::parse_event_t::object_start) open_.emplace_back();
    if (event == json::parse_event_t::object_end) open_.pop_back();
    if (event == json::parse_event_t::key) note(parsed.get<std::string>());
    return true;
  }

 private:
  void note(const std::string& key) {
    if (!open_.back().insert(key).second)
      fail(ErrorKind::format,
           "{}: '{}' occurs twice (which one is meant is unknown) the file was written by a faulty "
           "program",
           origin_, key);
  }

  const std::string& origin_;
  std::vector<std::unordered_set<std::string>> open_;
};

}  // namespace

json parse_strict_json(std::string_view text, const std::string& origin) {
  KeyWatch watch(origin);
  json value;
  try {
    value = json::parse(text, std::ref(watch));
  } catch (const json::exception& error) {
    fail(ErrorKind::format, "{}: not valid JSON: {} (its tensors cannot be located)", origin,
         error.what());
  }
  if (!value.is_object())
    fail(ErrorKind::format, "{}: a JSON object is expected but it is of type {}", origin,
         value.type_name());
  return value;
}

}  // namespace tessera::checkpoint
