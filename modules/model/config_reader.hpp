// SPDX-License-Identifier: Apache-2.0
// Reads typed, bounded values from one JSON object of a configuration and knows which keys it was
// asked for, so that a key nobody understands is refused instead of ignored.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <set>
#include <string>

namespace tessera::model {

/// Parses a configuration. Throws Error::config when it is not JSON, is no object or repeats a key,
/// is larger than 1 MiB or nested deeper than 64. local.
nlohmann::json parse_object(const std::string& json_text, const std::string& origin);

class ConfigReader {
 public:
  /// `object` outlives the reader. `prefix` ("rope_scaling.") goes before keys in messages.
  ConfigReader(const nlohmann::json& object, std::string origin, std::string prefix = "");

  /// Present, null included. Counts as read.
  bool contains(const char* key);
  /// Present and null.
  bool is_null(const char* key);
  /// Present and not null.
  bool has(const char* key) { return contains(key) && !is_null(key); }

  /// The value, or `fallback` where the key is absent. Each throws Error::config naming the key
  /// when the type is another or the value lies outside [lowest, highest].
  std::int64_t integer(const char* key, std::int64_t fallback, std::int64_t lowest,
                       std::int64_t highest);
  double number(const char* key, double fallback, double lowest, double highest);
  bool boolean(const char* key, bool fallback);
  std::string text(const char* key, const std::string& fallback);
  /// An object under this key, or null where it is absent or null.
  const nlohmann::json* object(const char* key);
  /// The raw value; throws where it is absent.
  const nlohmann::json& value(const char* key);

  /// Throws Error::config naming the first key that was never asked for and is not in `harmless`.
  void refuse_unknown(const std::set<std::string>& harmless) const;

  /// "config.json: rope_scaling.factor", for messages.
  std::string name(const char* key) const { return origin_ + ": " + prefix_ + key; }
  const std::string& origin() const { return origin_; }

 private:
  const nlohmann::json& object_;
  std::string origin_;
  std::string prefix_;
  std::set<std::string> known_;
};

}  // namespace tessera::model
