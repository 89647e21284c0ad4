// SPDX-License-Identifier: Apache-2.0
// Attributes of a dataset that are more than one number or text: its fingerprints, and what its
// tensor was in the Hugging Face checkpoint.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "base/hdf5_handle.hpp"
#include "tessera/checkpoint/source.hpp"

namespace tessera::checkpoint {

/// Whether a tensor of this shape, [E, out, in], can be MXFP4. local.
bool may_have_scales(const Shape& shape);
/// Shape of its scales: [E, out, in / 32]. local.
Shape scales_shape(const Shape& shape);

/// The tensor of bytes that a parameter's scales are. local.
Parameter scales_of(const Parameter& parameter);

/// The scales of some parameters as tensors of bytes that share one shard.
struct ScalePlan {
  std::vector<Parameter> parameters;  ///< of the scales; `slices` point into it
  std::vector<Slice> slices;          ///< this rank's, one after the other in the shard
  std::int64_t num_scales = 0;        ///< of this rank
};
/// For those parameters that `has_scales` is true for; the slices are of the parameters. Throws
/// Error::internal for a slice that cuts a block. local.
ScalePlan plan_scales(std::span<const Parameter> parameters, std::span<const Slice> slices,
                      const std::function<bool(const Parameter&)>& has_scales);
/// What the plan's slices have of `scales`, as one shard. Throws Error::internal if something is
/// missing. local.
std::vector<std::uint8_t> gather_scales(const ScalePlan& plan, const ScaleShards& scales);

/// Creates the attribute for `num_experts` fingerprints without values: its place in the file is
/// taken before the data's. Collective over the ranks that created the file; errors are not agreed.
void create_fingerprints(hid_t dataset, std::int64_t num_experts);
/// Fills it. Collective likewise, with the same values on all ranks.
void write_fingerprints(hid_t dataset, std::span<const Fingerprint> fingerprints);
/// Throws Error::format unless there are `num_experts` of them. local.
std::vector<Fingerprint> read_fingerprints(hid_t dataset, std::int64_t num_experts);

/// Collective over the ranks that created the file, with the same values; errors are not agreed.
void write_origin(hid_t dataset, const Origin& origin);
/// Throws Error::format if it is missing or has an element type that no checkpoint has. local.
Origin read_origin(hid_t dataset);

}  // namespace tessera::checkpoint
