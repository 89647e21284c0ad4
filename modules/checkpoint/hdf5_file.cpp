// SPDX-License-Identifier: Apache-2.0
#include "hdf5_file.hpp"

#include <fmt/format.h>

namespace tessera::checkpoint {
namespace {

constexpr hsize_t metadata_block_bytes = 256 << 10;

Hdf5Properties file_access() {
  return Hdf5Properties(hdf5_id(H5Pcreate(H5P_FILE_ACCESS), "file access properties"));
}

Hdf5Properties parallel_access(const comm::Communicator& world) {
  Hdf5Properties access = file_access();
  const hid_t id = access.get();
  hdf5_check(H5Pset_fapl_mpio(id, world.mpi(), MPI_INFO_NULL), "MPI-IO driver");
  hdf5_check(H5Pset_all_coll_metadata_ops(id, true), "collective metadata");
  hdf5_check(H5Pset_coll_metadata_write(id, true), "collective metadata");
  return access;
}

}  // namespace

Hdf5File create_parallel(const comm::Communicator& world, const std::filesystem::path& path) {
  const Hdf5Properties access = parallel_access(world);
  const hid_t id = access.get();
  // Of the 1.10 format: its metadata carries checksums and every HDF5 since 1.10 reads it.
  hdf5_check(H5Pset_libver_bounds(id, H5F_LIBVER_V110, H5F_LIBVER_V110), "file format bounds");
  hdf5_check(H5Pset_alignment(id, alignment_bytes, alignment_bytes), "alignment");
  hdf5_check(H5Pset_meta_block_size(id, metadata_block_bytes), "metadata blocks");
  const Hdf5Properties creation(hdf5_id(H5Pcreate(H5P_FILE_CREATE), "file creation properties"));
  hdf5_check(H5Pset_obj_track_times(creation.get(), false), "file creation properties");
  return Hdf5File(hdf5_id(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, creation.get(), id),
                          fmt::format("cannot create {}", path.string())));
}

Hdf5File open_parallel(const comm::Communicator& world, const std::filesystem::path& path) {
  return Hdf5File(hdf5_id(H5Fopen(path.c_str(), H5F_ACC_RDONLY, parallel_access(world).get()),
                          fmt::format("cannot open {}", path.string())));
}

Hdf5File open_serial(const std::filesystem::path& path) {
  const Hdf5Properties access = file_access();
#if H5_VERSION_GE(1, 10, 7)
  // Parallel file systems often have no locks, and a finished file is never written again.
  hdf5_check(H5Pset_file_locking(access.get(), false, true), "file locking");
#endif
  return Hdf5File(hdf5_id(H5Fopen(path.c_str(), H5F_ACC_RDONLY, access.get()),
                          fmt::format("cannot open {}", path.string()), ErrorKind::format));
}

}  // namespace tessera::checkpoint
