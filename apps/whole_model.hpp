// SPDX-License-Identifier: Apache-2.0
// What import and export share: a checkpoint opened as a whole model, carried on in portions, and
// told of beforehand.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "comm/process_grid.hpp"
#include "tessera/checkpoint/copy.hpp"
#include "tessera/trainer/whole_model.hpp"

namespace tessera::apps {

using trainer::WholeModel;

/// Throws Error::keys unless the checkpoint has what the model needs; reads headers only.
/// collective over world; errors are the same on all ranks.
WholeModel open_whole_model(const comm::Communicator& world, const std::string& path,
                            const checkpoint::KeyOptions& keys);

/// checkpoint::copy_parameters() with a bar that says `what` is done. collective.
checkpoint::CopyReport copy_model(const comm::ProcessGrid& grid, const WholeModel& whole,
                                  const checkpoint::PortionConsumer& consumer, bool verify,
                                  const char* what);

/// The summary line on rank 0: bytes read, exchanged and written by all ranks, seconds and rate.
/// collective over world.
void print_copied(const comm::Communicator& world, const std::string& output,
                  const checkpoint::LoadReport& report, std::int64_t written_bytes, double seconds);

/// For --dry-run, from headers alone: prints on rank 0 how the checkpoint's keys fit the model,
/// what each rank of this job would read and need, and what would be written
/// (`written`, in words). The exit code: that of Error::keys unless the keys fit. collective over
/// world.
int print_dry_run(const comm::Communicator& world, const std::string& path,
                  const checkpoint::KeyOptions& keys,
                  const std::function<std::string(const WholeModel&)>& written);

}  // namespace tessera::apps
