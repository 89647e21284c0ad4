// SPDX-License-Identifier: Apache-2.0
// The objects of a new Tessera file: groups, datasets and attributes as FORMAT.md fixes them.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "base/dtype.hpp"
#include "base/hdf5_handle.hpp"
#include "base/parameter.hpp"
#include "hdf5_describe.hpp"
#include "tessera/checkpoint/hdf5_store.hpp"

namespace tessera::checkpoint {

/// Entries of its attribute: one per expert, or a single one. local.
std::int64_t num_fingerprints(const Parameter& parameter);

/// Throws Error::usage for a name that no dataset can have, Error::internal for a group or an
/// origin that the format does not know. local.
void require_specs(std::span<const DatasetSpec> datasets, const EmbeddedFiles& files);

/// Throws Error::usage if they are more than a reader accepts. local.
void require_sizes(const FileList& files);

/// Size of a file of these datasets, at most. local.
std::int64_t needed_bytes(std::span<const DatasetSpec> datasets, const FileList& files);

// All below are collective over the ranks that created the file, with equal arguments; errors are
// not agreed.

/// Contiguous, allocated at once, never filled. `path` has no leading slash; its group must exist.
Hdf5Dataset create_dataset(hid_t file, const std::string& path, Dtype dtype, const Shape& shape);

/// `path` ("optimizer/exp_avg") and its parents where they are missing.
void create_group(hid_t file, const std::string& path);

/// Attributes of a parameter's or optimizer state's dataset: placement, orientation, and where it
/// is in "parameters" what it was in the Hugging Face checkpoint.
void describe_parameter(hid_t dataset, const DatasetSpec& spec);
/// Attributes of a dataset of scales.
void describe_scales(hid_t dataset);

}  // namespace tessera::checkpoint
