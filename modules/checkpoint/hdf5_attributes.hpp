// SPDX-License-Identifier: Apache-2.0
// Scalar attributes: integers (64 bits) and fixed-length UTF-8 strings. Variable-length strings
// live in a heap that cannot be written in parallel.
#pragma once

#include <cstdint>
#include <string>

#include "base/hdf5_handle.hpp"

namespace tessera::checkpoint {

/// Writing is collective over the ranks that have `object` open through MPI-IO, all with the same
/// value.
void write_attribute(hid_t object, const char* name, std::int64_t value);
void write_attribute(hid_t object, const char* name, std::uint64_t value);
void write_attribute(hid_t object, const char* name, const std::string& value);

/// Throws Error::format if the object's header cannot be read. local.
bool has_attribute(hid_t object, const char* name);

/// Throw Error::format if the attribute is missing or of another kind. local.
std::int64_t read_int64_attribute(hid_t object, const char* name);
std::uint64_t read_uint64_attribute(hid_t object, const char* name);
std::string read_string_attribute(hid_t object, const char* name);

}  // namespace tessera::checkpoint
