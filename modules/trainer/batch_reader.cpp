// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <tessera/trainer/batch_reader.hpp>

#include "base/block_distribution.hpp"

namespace tessera::trainer {

BatchReader::BatchReader(const comm::Communicator& world, const TokenData& data,
                         std::int64_t vocab_size, std::int64_t micro_batch)
    : rank_(world.rank()),
      num_ranks_(world.size()),
      data_(data),
      vocab_size_(vocab_size),
      micro_batch_(micro_batch) {}

model::Batch BatchReader::read_rows(std::span<const std::int64_t> sequences) const {
  const std::int64_t length = data_.sequence_length();
  const auto count = static_cast<std::int64_t>(sequences.size());
  std::vector<std::int64_t> tokens(count * length), labels(count * length);
  for (std::int64_t row = 0; row < count; ++row) {
    data_.read(sequences[row], std::span(tokens).subspan(row * length, length),
               std::span(labels).subspan(row * length, length));
  }
  return model::make_batch(count, length, tokens, labels, vocab_size_);
}

StepBatches BatchReader::read(std::span<const std::int64_t> sequences) const {
  const BlockDistribution rows{static_cast<std::int64_t>(sequences.size()), num_ranks_};
  const auto mine = sequences.subspan(rows.begin(rank_), rows.count(rank_));
  const auto num_mine = static_cast<std::int64_t>(mine.size());
  const std::int64_t most = rows.count(0);  // rank 0 has the most rows
  const std::int64_t size = micro_batch_ > 0 ? micro_batch_ : std::max<std::int64_t>(most, 1);
  StepBatches step;
  for (std::int64_t begin = 0; begin < most; begin += size) {
    const std::int64_t first = std::min(begin, num_mine);
    const std::int64_t count = std::min(size, num_mine - first);
    try {
      step.batches.push_back(read_rows(step.error ? mine.first(0) : mine.subspan(first, count)));
    } catch (...) {
      step.error = std::current_exception();
      step.batches.assign(step.batches.size() + 1, read_rows(mine.first(0)));
    }
  }
  return step;
}

}  // namespace tessera::trainer
