// SPDX-License-Identifier: Apache-2.0
// The checkpoints of one run: DIR/step-00000100.h5 ... and DIR/latest, a text file that names the
// newest complete one.
#pragma once

#include <cstdint>
#include <filesystem>

#include "comm/communicator.hpp"

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

/// The file to resume from: `path` itself if it is a file, else what DIR/latest names.
/// collective over world; errors are agreed.
std::filesystem::path resume_path(const comm::Communicator& world,
                                  const std::filesystem::path& path);

}  // namespace tessera::trainer
