// SPDX-License-Identifier: Apache-2.0
// Fields in an open Tessera file.
#pragma once

#include "base/hdf5_handle.hpp"
#include "tessera/checkpoint/fields.hpp"

namespace tessera::checkpoint {

/// Creates /fields/<name> and writes all boxes. collective over the ranks that opened the file;
/// errors are not agreed. @pre require_fields().
void write_field(hid_t file, const Field& field);

}  // namespace tessera::checkpoint
