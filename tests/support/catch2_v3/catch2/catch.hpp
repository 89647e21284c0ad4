// SPDX-License-Identifier: Apache-2.0
// Catch2 3 under the names of Catch2 2, in which the tests are written. On the include path only
// where Catch2 is 3.
#pragma once

#include <catch2/catch_all.hpp>
#include <string>

namespace Catch {

using TestEventListenerBase = EventListenerBase;
using Matchers::EndsWith;

inline auto Contains(const std::string& text) { return Matchers::ContainsSubstring(text); }

}  // namespace Catch

using Catch::Approx;
