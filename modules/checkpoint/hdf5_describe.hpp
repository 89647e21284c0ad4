// SPDX-License-Identifier: Apache-2.0
// Everything that a Tessera file says about itself, read and checked by one rank and passed to the
// others: no rank meets a broken file inside a collective call.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "comm/communicator.hpp"
#include "tessera/checkpoint/hdf5_store.hpp"

namespace tessera::checkpoint {

struct FileDescription {
  std::int64_t version = 0;  ///< of the format
  TrainingState state;
  std::vector<StoredDataset> datasets;  ///< of all groups, sorted by group and name
  EmbeddedFiles files;
  std::int64_t file_bytes = 0;
  std::int64_t num_fingerprints = 0;
};

/// The dataset of that name among those of a description, or null. local.
const StoredDataset* find_dataset(const std::vector<StoredDataset>& datasets,
                                  const std::string& group, const std::string& name);

/// Checks the file's signature, format and version, and of each dataset that its type is one of
/// FORMAT.md, that its attributes say how it is oriented and give its fingerprints, that it is
/// stored plainly (contiguous, unfiltered, in this file) and that its bytes lie within the file.
/// Throws Error::file or Error::format naming the file and the object. local.
FileDescription describe_file(const std::filesystem::path& path, int world_rank);

/// `description` of rank 0 on all ranks. collective over world; errors are agreed.
FileDescription broadcast_description(const comm::Communicator& world,
                                      const FileDescription& description);

/// `state` of rank 0 on all ranks. collective over world; errors are agreed.
TrainingState broadcast_state(const comm::Communicator& world, const TrainingState& state);

/// Of all embedded files together; no file has more, whoever writes or reads it.
inline constexpr std::int64_t embedded_limit_bytes = 1 << 30;

/// Name and length of each embedded file [bytes].
using FileList = std::vector<std::pair<std::string, std::int64_t>>;

/// Of the files that rank 0 has. collective over world; errors are agreed.
FileList broadcast_file_list(const comm::Communicator& world, const EmbeddedFiles& files);

}  // namespace tessera::checkpoint
