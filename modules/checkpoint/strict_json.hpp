// SPDX-License-Identifier: Apache-2.0
// JSON from files that are not to be trusted: a key that occurs twice and bottomless nesting are
// errors.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace tessera::checkpoint {

/// Throws Error::format naming `origin`: not JSON, not an object at top level, a duplicate key (a
/// plain parser would silently keep the last one), or nested deeper than 64. local.
nlohmann::json parse_strict_json(std::string_view text, const std::string& origin);

}  // namespace tessera::checkpoint
