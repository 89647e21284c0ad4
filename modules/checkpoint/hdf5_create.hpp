// SPDX-License-Identifier: Apache-2.0
// The objects of a new Tessera file: groups, datasets and attributes as FORMAT.md fixes them.
#pragma once

#include <string>

#include "base/dtype.hpp"
#include "base/parameter.hpp"
#include "hdf5_handle.hpp"
#include "tessera/checkpoint/hdf5_store.hpp"

namespace tessera::checkpoint {

// All are collective over the ranks that created the file, with equal arguments; errors are not
// agreed.

/// Contiguous, allocated at once, never filled. `path` has no leading slash; its group must exist.
Hdf5Dataset create_dataset(hid_t file, const std::string& path, Dtype dtype, const Shape& shape);

/// `path` ("optimizer/exp_avg") and its parents where they are missing.
void create_group(hid_t file, const std::string& path);

/// Root attributes: format, version and where the run stands.
void write_state(hid_t file, const TrainingState& state);

/// Attributes of a parameter's dataset: placement and orientation.
void describe_parameter(hid_t dataset, const Parameter& parameter);

}  // namespace tessera::checkpoint
