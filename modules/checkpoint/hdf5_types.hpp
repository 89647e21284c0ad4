// SPDX-License-Identifier: Apache-2.0
// Element types of Tessera's files. Elements travel in the file's type and are converted by
// Tessera, narrow() and widen().
#pragma once

#include <optional>

#include "base/dtype.hpp"
#include "base/hdf5_handle.hpp"

namespace tessera::checkpoint {

/// The file type of f16, bf16, f32, f64 or u8, little-endian. local.
Hdf5Type hdf5_type(Dtype dtype);

/// The dtype whose file type equals `type`; none for any other. local.
std::optional<Dtype> dtype_of_hdf5(hid_t type);

}  // namespace tessera::checkpoint
