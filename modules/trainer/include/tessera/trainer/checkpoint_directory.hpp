// SPDX-License-Identifier: Apache-2.0
// The checkpoints of one run: DIR/step-00000100.h5 ... and DIR/latest, a text file that names the
// newest complete one.
#pragma once

#include <cstdint>
#include <ctime>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "comm/communicator.hpp"
#include "tessera/checkpoint/hdf5_store.hpp"

namespace tessera::trainer {

/// Creates the directory unless it is there. collective over world; errors are agreed.
void make_directory(const comm::Communicator& world, const std::filesystem::path& directory);

/// `DIR/step-00000100.h5`. local.
std::filesystem::path checkpoint_path(const std::filesystem::path& directory, std::int64_t step);

/// Lets DIR/latest name `checkpoint`, in one atomic step, after it is complete.
/// collective over world; errors are agreed.
void set_latest(const comm::Communicator& world, const std::filesystem::path& checkpoint);

/// Removes DIR/latest of an earlier run, if there is one. collective over world; errors are agreed.
void forget_latest(const comm::Communicator& world, const std::filesystem::path& directory);

/// Keeps the `num_kept` checkpoints DIR/step-*.h5 of the highest steps and removes the others, but
/// never the one that DIR/latest names; removes what interrupted saves left, too. Called after
/// set_latest(). What cannot be removed is warned of. @pre num_kept >= 1. collective over world;
/// errors are agreed.
void keep_newest(const comm::Communicator& world, const std::filesystem::path& directory,
                 std::int64_t num_kept);

/// One file of a run's directory.
struct CheckpointEntry {
  std::filesystem::path path;
  std::int64_t file_bytes = 0;
  std::time_t written = 0;
  bool is_latest = false;
  bool is_partial = false;  ///< of a save that was interrupted, or that is going on
  std::optional<checkpoint::FileSummary> summary = {};  ///< of a complete checkpoint
  std::string problem = {};                             ///< of one that cannot be read: why
};

/// A file as an entry, however broken it is. local.
CheckpointEntry look_at_checkpoint(const std::filesystem::path& path);

/// What DIR/latest names, there or not; empty if there is no such file. local.
std::filesystem::path latest_checkpoint(const std::filesystem::path& directory);

/// All *.h5 and *.h5.partial of a directory, sorted by name. Throws Error::file if it cannot be
/// read. local.
std::vector<CheckpointEntry> list_checkpoints(const std::filesystem::path& directory);

/// Whether DIR/latest is there. collective over world.
bool has_latest(const comm::Communicator& world, const std::filesystem::path& directory);

/// The file to resume from: `path` itself if it is a file, else what DIR/latest names. Throws
/// Error::file with a list of what there is if `latest` is missing or names no complete checkpoint.
/// collective over world; errors are agreed.
std::filesystem::path resume_path(const comm::Communicator& world,
                                  const std::filesystem::path& path);

/// What a MODEL argument stands for: the directory of a run (one with `latest` and no config.json)
/// for its latest checkpoint, anything else for itself. As resume_path().
std::filesystem::path model_path(const comm::Communicator& world,
                                 const std::filesystem::path& path);

}  // namespace tessera::trainer
