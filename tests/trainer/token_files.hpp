// SPDX-License-Identifier: Apache-2.0
// Token files for tests: the same numbers as HDF5, .npy and flat files.
#pragma once

#include <hdf5.h>

#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "npy_bytes.hpp"

namespace tessera::test {

inline void write_text(const std::filesystem::path& path, const std::string& content) {
  std::ofstream(path, std::ios::binary) << content;
}

/// A .npy file of one element type; descr "<i8", shape "(4, 8)".
template <class T>
void write_npy(const std::filesystem::path& path, const std::string& descr,
               const std::string& shape, const std::vector<T>& values) {
  write_text(path, npy_bytes("{'descr': '" + descr +
                                 "', 'fortran_order': False, 'shape': " + shape + ", }",
                             raw_bytes(values)));
}

/// Adds a dataset to an HDF5 file, which is made where there is none. `chunk` 0: contiguous.
inline void add_dataset(const std::filesystem::path& path, const std::string& name,
                        hid_t stored_type, const std::vector<hsize_t>& shape,
                        const std::vector<std::int64_t>& values, hsize_t chunk = 0) {
  const bool exists = std::filesystem::exists(path);
  const hid_t file = exists ? H5Fopen(path.c_str(), H5F_ACC_RDWR, H5P_DEFAULT)
                            : H5Fcreate(path.c_str(), H5F_ACC_EXCL, H5P_DEFAULT, H5P_DEFAULT);
  const hid_t space = H5Screate_simple(static_cast<int>(shape.size()), shape.data(), nullptr);
  const hid_t creation = H5Pcreate(H5P_DATASET_CREATE), links = H5Pcreate(H5P_LINK_CREATE);
  H5Pset_create_intermediate_group(links, 1);
  if (chunk > 0) {
    const std::vector<hsize_t> chunks(shape.size(), chunk);
    H5Pset_chunk(creation, static_cast<int>(chunks.size()), chunks.data());
    H5Pset_deflate(creation, 4);
  }
  const hid_t dataset =
      H5Dcreate2(file, name.c_str(), stored_type, space, links, creation, H5P_DEFAULT);
  // HDF5 does not convert integers to enumerations, so booleans are written as they are stored.
  const bool is_boolean = H5Tget_class(stored_type) == H5T_ENUM;
  const std::vector<std::int8_t> bytes(values.begin(), values.end());
  const herr_t status =
      is_boolean
          ? H5Dwrite(dataset, stored_type, H5S_ALL, H5S_ALL, H5P_DEFAULT, bytes.data())
          : H5Dwrite(dataset, H5T_NATIVE_INT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data());
  CHECK(status >= 0);
  H5Dclose(dataset);
  H5Pclose(links);
  H5Pclose(creation);
  H5Sclose(space);
  H5Fclose(file);
}

/// h5py's boolean type: an enumeration over int8. To be closed by the caller.
inline hid_t boolean_type() {
  const hid_t type = H5Tenum_create(H5T_NATIVE_INT8);
  std::int8_t value = 0;
  H5Tenum_insert(type, "FALSE", &value);
  value = 1;
  H5Tenum_insert(type, "TRUE", &value);
  return type;
}

}  // namespace tessera::test
