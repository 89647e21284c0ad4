// SPDX-License-Identifier: Apache-2.0
// Turns sequence numbers into this rank's micro-batches.
#pragma once

#include <exception>
#include <span>
#include <vector>

#include "comm/communicator.hpp"
#include "tessera/model/batch.hpp"
#include "tessera/trainer/token_data.hpp"

namespace tessera::trainer {

/// A step's micro-batches on this rank; the same number on all ranks, some perhaps empty.
struct StepBatches {
  std::vector<model::Batch> batches;
  std::exception_ptr
      error;  ///< reading failed: the batches are empty, the rank takes part all the same
};

class BatchReader {
 public:
  /// micro_batch: sequences of one rank in one micro-step; 0: all of its share at once.
  /// `data` must outlive the reader.
  BatchReader(const comm::Communicator& world, const TokenData& data, std::int64_t vocab_size,
              std::int64_t micro_batch);

  /// The rows of `sequences` (the same on all ranks) that this rank owns: consecutive ones. local.
  StepBatches read(std::span<const std::int64_t> sequences) const;

 private:
  model::Batch read_rows(std::span<const std::int64_t> sequences) const;

  int rank_;
  int num_ranks_;
  const TokenData& data_;
  std::int64_t vocab_size_;
  std::int64_t micro_batch_;
};

}  // namespace tessera::trainer
