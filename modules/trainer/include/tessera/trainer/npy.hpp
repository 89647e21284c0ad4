// SPDX-License-Identifier: Apache-2.0
// Header of NumPy's .npy format, versions 1.0 to 3.0 (numpy/lib/format.py), for integer arrays.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "base/parameter.hpp"

namespace tessera::trainer {

/// An integer array in a .npy file, little endian, C order.
struct NpyHeader {
  Shape shape;
  int item_bytes = 0;  ///< 1, 2, 4 or 8
  bool is_signed = false;
  bool is_boolean = false;       ///< one byte, 0 or 1
  std::int64_t data_offset = 0;  ///< of the first element [bytes]
};

/// Parses the header at the start of `file`, the whole file's bytes. local.
/// Throws Error::format naming `origin`: no magic, unknown version, a header beyond the file or
/// above 64 KiB, an unknown dictionary, an element type that is no integer, big endian, Fortran
/// order, or a file size that differs from what the shape needs.
NpyHeader parse_npy_header(std::span<const std::byte> file, const std::string& origin);

}  // namespace tessera::trainer
