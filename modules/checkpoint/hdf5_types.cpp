// SPDX-License-Identifier: Apache-2.0
// Custom HDF5 float types (1.10 predefines neither half type).
#include "hdf5_types.hpp"

#include <bit>

namespace tessera::checkpoint {
namespace {

static_assert(std::endian::native == std::endian::little,
              "elements travel as little-endian memory");

// A 16-bit float with its sign in bit 15, then the exponent, then the mantissa:
// H5T_FLOAT_BFLOAT16LE and H5T_IEEE_F16LE of newer HDF5 have the same fields.
Hdf5Type make_float16(std::size_t exponent_bits, std::size_t bias) {
  const std::size_t mantissa_bits = 15 - exponent_bits;
  Hdf5Type type(hdf5_id(H5Tcopy(H5T_IEEE_F32LE), "copying an HDF5 type"));
  const hid_t id = type.get();
  hdf5_check(H5Tset_fields(id, 15, mantissa_bits, exponent_bits, 0, mantissa_bits), "float fields");
  hdf5_check(H5Tset_size(id, 2), "float size");
  hdf5_check(H5Tset_ebias(id, bias), "float bias");
  return type;
}

}  // namespace

Hdf5Type hdf5_type(Dtype dtype) {
  switch (dtype) {
    case Dtype::bf16: return make_float16(8, 127);
    case Dtype::f16: return make_float16(5, 15);
    case Dtype::f32: return Hdf5Type(hdf5_id(H5Tcopy(H5T_IEEE_F32LE), "copying an HDF5 type"));
    case Dtype::f64: return Hdf5Type(hdf5_id(H5Tcopy(H5T_IEEE_F64LE), "copying an HDF5 type"));
    case Dtype::u8: return Hdf5Type(hdf5_id(H5Tcopy(H5T_STD_U8LE), "copying an HDF5 type"));
    default: fail(ErrorKind::internal, "no file type for dtype {}", to_string(dtype));
  }
}

std::optional<Dtype> dtype_of_hdf5(hid_t type) {
  for (const Dtype dtype : {Dtype::bf16, Dtype::f16, Dtype::f32, Dtype::f64, Dtype::u8}) {
    if (H5Tequal(type, hdf5_type(dtype).get()) > 0) return dtype;
  }
  return std::nullopt;
}

}  // namespace tessera::checkpoint
