// SPDX-License-Identifier: Apache-2.0
// A configuration as one family reads it: a key that the family does not read stays unread, and so
// is refused as unknown; an absent one has the family's default.
#pragma once

#include "config_reader.hpp"
#include "family.hpp"

namespace tessera::model {

class FamilyReader {
 public:
  /// Both outlive the reader. Checks the keys that may only repeat another or have one value.
  FamilyReader(ConfigReader& config, const Family& family);

  /// Each gives the value of the file, else the family's default. `none` is the value where the
  /// family does not read the key, where it is null and may be, and where it is absent and has no
  /// default. Throws Error::config naming the key as ConfigReader does. local.
  std::int64_t integer(const char* key, std::int64_t none, std::int64_t lowest,
                       std::int64_t highest);
  double number(const char* key, double none, double lowest, double highest);
  bool boolean(const char* key, bool none);
  /// A list, or null where there is none.
  const nlohmann::json* list(const char* key);

  /// Throws Error::config for the first key that neither this family reads nor any model minds.
  void refuse_unknown() const;

  std::string name(const char* key) const;
  ConfigReader& config() { return config_; }
  const Family& family() const { return family_; }

 private:
  /// The spelling under which the file has the key, or the key itself; agreement is checked.
  const char* spelling(const char* key);
  /// Whether the file decides; else `fallback` is the default, or null where there is none.
  bool is_given(const char* key, const nlohmann::json*& fallback);
  void check_repeats();
  void check_required();

  ConfigReader& config_;
  const Family& family_;
};

}  // namespace tessera::model
