// SPDX-License-Identifier: Apache-2.0
// Element types of Tessera's files, and conversion between them and the f32 of a shard. HDF5's own
// conversion of floats is slow and turns collective transfers into independent ones, so elements
// travel in the file's type and are converted by Tessera: narrow() here, widen() in widen.hpp.
#pragma once

#include <cstddef>
#include <optional>
#include <span>

#include "base/dtype.hpp"
#include "hdf5_handle.hpp"

namespace tessera::checkpoint {

/// The file type of f16, bf16, f32, f64 or u8, little-endian. local.
Hdf5Type hdf5_type(Dtype dtype);

/// The dtype whose file type equals `type`; none for any other. local.
std::optional<Dtype> dtype_of_hdf5(hid_t type);

/// values[i] rounded to nearest even into `raw` (values.size() elements of f16, bf16, f32 or f64).
/// local.
void narrow(std::span<const float> values, Dtype dtype, std::byte* raw);

}  // namespace tessera::checkpoint
