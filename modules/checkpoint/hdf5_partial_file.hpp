// SPDX-License-Identifier: Apache-2.0
// The file-system side of an atomic save: room is checked and reserved before, and the finished
// file takes its name in one step after.
#pragma once

#include <cstdint>
#include <filesystem>

#include "comm/communicator.hpp"

namespace tessera::checkpoint {

/// `<path>.partial`: in the same directory, so that a rename can replace `path`. local.
std::filesystem::path partial_path(const std::filesystem::path& path);

/// Rank 0 removes a stale partial file, checks that `needed_bytes` are free (the file being
/// replaced still exists until the end), creates an empty partial file and reserves them, which
/// meets quotas and limits too; then each rank checks that it sees the file. All before HDF5, whose
/// collective calls hang when one rank fails in them. collective over world; throws Error::file,
/// agreed.
void prepare_partial(const comm::Communicator& world, const std::filesystem::path& path,
                     std::int64_t needed_bytes);

/// Rank 0 reserves the first `file_bytes` again, after HDF5 has emptied the file in creating it.
/// collective over world; errors are agreed.
void reserve_partial(const comm::Communicator& world, const std::filesystem::path& path,
                     std::int64_t file_bytes);

/// Each rank fsyncs the partial file, for what it wrote may still be in the memory of its node;
/// then rank 0 renames it over `path` and fsyncs the directory. collective over world; errors are
/// agreed.
void commit_partial(const comm::Communicator& world, const std::filesystem::path& path);

}  // namespace tessera::checkpoint
