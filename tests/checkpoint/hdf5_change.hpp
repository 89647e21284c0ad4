// SPDX-License-Identifier: Apache-2.0
// Checkpoints on disk, changed with plain HDF5 calls.
#pragma once

#include <hdf5.h>

#include <functional>

#include "hdf5_fixture.hpp"

namespace tessera::test {

inline Checkpoint with_mxfp4() {
  Checkpoint checkpoint;
  checkpoint.mxfp4 = test::mxfp4_unit();
  return checkpoint;
}

/// Lets rank 0 change the file with plain HDF5 calls. collective.
inline void change(const comm::ProcessGrid& grid, const std::filesystem::path& path,
                   const std::function<void(hid_t)>& body) {
  if (grid.world().rank() == 0) {
    const hid_t file = H5Fopen(path.c_str(), H5F_ACC_RDWR, H5P_DEFAULT);
    body(file);
    H5Fclose(file);
  }
  grid.world().barrier("changed");
}

/// Lets rank 0 change a dataset's bytes, as one run for each expert. collective.
inline void change_experts(const comm::ProcessGrid& grid, const std::filesystem::path& path,
                           const std::string& name, std::int64_t num_experts,
                           const std::function<void(std::vector<std::string>&)>& body) {
  change(grid, path, [&](hid_t file) {
    const hid_t dataset = H5Dopen2(file, name.c_str(), H5P_DEFAULT);
    const hid_t type = H5Dget_type(dataset);
    std::string bytes(H5Dget_storage_size(dataset), '\0');
    H5Dread(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, bytes.data());
    const std::size_t size = bytes.size() / std::size_t(num_experts);
    std::vector<std::string> experts;
    for (std::size_t e = 0; e < std::size_t(num_experts); ++e)
      experts.push_back(bytes.substr(e * size, size));
    body(experts);
    bytes.clear();
    for (const std::string& expert : experts) bytes += expert;
    H5Dwrite(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, bytes.data());
    H5Tclose(type);
    H5Dclose(dataset);
  });
}

}  // namespace tessera::test
