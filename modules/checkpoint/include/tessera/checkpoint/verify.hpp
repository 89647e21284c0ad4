// SPDX-License-Identifier: Apache-2.0
// Whether a Tessera file still holds what was written, and whether two checkpoints hold the same
// values: what `tessera verify` does.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "tessera/checkpoint/hdf5_store.hpp"

namespace tessera::checkpoint {

/// Called on all ranks after each portion.
using Progress = std::function<void(std::int64_t done_bytes, std::int64_t total_bytes)>;

struct VerifyReport {
  std::vector<std::string> differences;  ///< one line each: tensor, expert, what is wrong
  bool has_stored_fingerprints = true;   ///< false for a file of format version 1
  Fingerprint parameters;                ///< fingerprint_of() the parameters read (of the first)
  std::int64_t num_tensors = 0;
  std::int64_t num_fingerprints = 0;
  std::int64_t read_bytes = 0;  ///< from files, by all ranks
};

/// Hashes all that the file holds (parameters, optimizer states, scales, embedded files) again and
/// compares with what it states. Experts that changed places and experts of zeros are called so.
/// Memory: 32 MiB per rank, or its share of the largest expert. collective over grid.world(); the
/// report is the same on all ranks; errors are agreed.
VerifyReport verify_file(const comm::ProcessGrid& grid, Hdf5Source& source,
                         const Progress& progress = {});

/// Hashes the parameters of any source: nothing to compare with. As verify_file().
VerifyReport hash_source(const comm::ProcessGrid& grid, Source& source,
                         std::span<const Parameter> parameters, const Progress& progress = {});

enum class Compare {
  exactly,
  rounded,  ///< the first one's values after rounding to the element types of the second
};

/// Compares the values of two checkpoints as f32, bit for bit: MXFP4 and FP8 as the values that
/// they stand for. `of_a` and `of_b` are the parameters of one model with the tensor names of
/// either checkpoint. Each difference names tensor, expert, the first element that differs and
/// where it lies in the tensors of both. As verify_file(), with twice the memory.
VerifyReport compare_sources(const comm::ProcessGrid& grid, Source& a, Source& b,
                             std::span<const Parameter> of_a, std::span<const Parameter> of_b,
                             Compare how = Compare::exactly, const Progress& progress = {});

}  // namespace tessera::checkpoint
