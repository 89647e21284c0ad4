// SPDX-License-Identifier: Apache-2.0
// Rotary embedding parameters of a configuration, in the spellings of transformers 4 and 5.
#pragma once

#include "family_reader.hpp"
#include "tessera/model/config.hpp"

namespace tessera::model {

/// Reads rope_parameters (transformers 5) and rope_theta + rope_scaling (transformers 4) from the
/// top-level object; where both occur they must agree, where neither does the family's defaults
/// hold. `max_position` is the original length where the file names none. Throws Error::config.
/// local.
RopeConfig parse_rope(FamilyReader& reader, std::int64_t max_position);

}  // namespace tessera::model
