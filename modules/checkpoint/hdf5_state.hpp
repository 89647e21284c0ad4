// SPDX-License-Identifier: Apache-2.0
// The root attributes of a Tessera file: format, version and where the run stands.
#pragma once

#include "base/hdf5_handle.hpp"
#include "tessera/checkpoint/hdf5_store.hpp"

namespace tessera::checkpoint {

/// Collective over the ranks that created the file, with equal arguments; errors are not agreed.
void write_state(hid_t file, const TrainingState& state);

/// The version of the format. Throws Error::format if the file is another program's, or newer than
/// this one. local.
std::int64_t read_version(hid_t file);

/// Throws Error::format if an attribute is missing or impossible. local.
TrainingState read_state(hid_t file);

}  // namespace tessera::checkpoint
