// SPDX-License-Identifier: Apache-2.0
// Opening and creating Tessera files, and the names that FORMAT.md fixes.
#pragma once

#include <cstdint>
#include <filesystem>

#include "base/hdf5_handle.hpp"
#include "comm/communicator.hpp"

namespace tessera::checkpoint {

inline constexpr const char* format_name = "tessera";
inline constexpr std::int64_t format_version = 2;
inline constexpr const char* optimizer_group = "optimizer";
inline constexpr const char* scales_group = "mxfp4_scales";
inline constexpr const char* files_group = "files";

/// Datasets of this size and more begin at a multiple of it [bytes]: a stripe of a parallel file
/// system.
inline constexpr std::int64_t alignment_bytes = 1 << 20;

/// Creates (over an existing file) with MPI-IO. collective over world; errors are not agreed.
Hdf5File create_parallel(const comm::Communicator& world, const std::filesystem::path& path);
/// Opens for reading with MPI-IO. collective over world; errors are not agreed.
Hdf5File open_parallel(const comm::Communicator& world, const std::filesystem::path& path);
/// Opens for reading on this rank alone. local.
Hdf5File open_serial(const std::filesystem::path& path);

}  // namespace tessera::checkpoint
