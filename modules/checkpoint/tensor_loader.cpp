// SPDX-License-Identifier: Apache-2.0
#include "tensor_loader.hpp"

#include <algorithm>
#include <cstring>
#include <vector>

#include "base/contract.hpp"
#include "comm/agree.hpp"
#include "widen.hpp"

namespace tessera::checkpoint {

TensorLoader::TensorLoader(const comm::ProcessGrid& grid, const std::filesystem::path& directory,
                           const ReadPlan& plan, std::span<float> shard)
    : grid_(grid), directory_(directory), plan_(plan), shard_(shard) {
  report_.planned_bytes = plan.planned_bytes;
  report_.peak_buffer_bytes = plan.staging_bytes;
}

LoadReport TensorLoader::run() {
  try {
    for (const ContiguousRead& read : plan_.contiguous) read_contiguous(read);
  } catch (...) {
    error_ = std::current_exception();
  }
  for (const ExchangedRead& read : plan_.exchanged) read_exchanged(read);
  comm::agree(grid_.world(), "read tensors", error_);
  return report_;
}

void TensorLoader::read_file(const std::string& file, std::int64_t offset,
                             std::span<std::byte> destination) {
  auto found = files_.find(file);
  if (found == files_.end())
    found = files_.emplace(file, InputFile(directory_ / file, grid_.world().rank())).first;
  report_.read_bytes += found->second.read_at(offset, destination);
}

void TensorLoader::read_contiguous(const ContiguousRead& read) {
  const std::string& file = read.tensor->info.file;
  const auto destination =
      shard_.subspan(std::size_t(read.shard_offset), std::size_t(read.num_elements));
  if (read.tensor->info.dtype == Dtype::f32)
    return read_file(file, read.offset_bytes, std::as_writable_bytes(destination));
  const std::int64_t per_step = plan_.staging_bytes / read.element_bytes();
  for (std::int64_t done = 0; done < read.num_elements; done += per_step) {
    const std::int64_t count = std::min(per_step, read.num_elements - done);
    read_file(file, read.offset_bytes + done * read.element_bytes(),
              {plan_.staging.get(), std::size_t(count * read.element_bytes())});
    widen(read.tensor->info.dtype, plan_.staging.get(), count, destination.data() + done);
  }
}

void TensorLoader::read_exchanged(const ExchangedRead& read) {
  for (std::int64_t round = 0; round < read.read.num_rounds(); ++round) {
    if (const auto mine = read.read.chunk(grid_.replica().rank(), round))
      read_and_turn(read.read, *mine);
    exchange(read, round);
  }
}

void TensorLoader::read_and_turn(const TransposedRead& read, const Chunk& chunk) {
  const std::span<std::byte> bytes(landing(read), std::size_t(chunk.size() * read.element_bytes()));
  try {
    if (error_ == nullptr) read_file(read.tensor().info.file, read.offset_bytes(chunk), bytes);
  } catch (...) {
    error_ = std::current_exception();
  }
  if (error_ != nullptr) std::fill(bytes.begin(), bytes.end(), std::byte{0});
  transpose(bytes.data(), chunk.rows.size(), chunk.columns.size(), read.element_bytes(),
            plan_.staging.get());
}

void TensorLoader::exchange(const ExchangedRead& exchanged, std::int64_t round) {
  const TransposedRead& read = exchanged.read;
  const comm::Communicator& replica = grid_.replica();
  const auto num_ranks = std::size_t(read.num_ranks());
  std::vector<std::int64_t> send_counts(num_ranks), receive_counts(num_ranks);
  const auto mine = read.chunk(replica.rank(), round);
  std::int64_t received = 0;
  for (int rank = 0; rank < read.num_ranks(); ++rank) {
    const auto theirs = read.chunk(rank, round);
    const auto idx = std::size_t(rank);
    if (mine) send_counts[idx] = read.owned_part(*mine, rank).size() * read.element_bytes();
    if (theirs)
      receive_counts[idx] = read.owned_part(*theirs, replica.rank()).size() * read.element_bytes();
    received += receive_counts[idx];
  }
  const std::int64_t sent = mine ? mine->size() * read.element_bytes() : 0;
  replica.all_to_all_v(
      "transposed tensor", std::span<const std::byte>(plan_.staging.get(), std::size_t(sent)),
      send_counts, std::span(landing(read), std::size_t(received)), receive_counts);
  report_.exchanged_bytes += received - receive_counts[std::size_t(replica.rank())];
  const std::byte* elements = landing(read);
  for (int rank = 0; rank < read.num_ranks(); ++rank) {
    if (const auto theirs = read.chunk(rank, round)) scatter(exchanged, *theirs, elements);
    elements += receive_counts[std::size_t(rank)];
  }
}

void TensorLoader::scatter(const ExchangedRead& exchanged, const Chunk& chunk,
                           const std::byte* elements) {
  const TransposedRead& read = exchanged.read;
  const Range part = read.owned_part(chunk, grid_.replica().rank());
  const std::int64_t num_rows = chunk.rows.size();
  // The turned chunk is contiguous in the shard as far as its rows go, then one global row on.
  for (std::int64_t k = part.begin; k < part.end;) {
    const std::int64_t count = std::min(num_rows - k % num_rows, part.end - k);
    const std::int64_t in_shard =
        exchanged.slice.shard_offset + read.global_index(chunk, k) - exchanged.slice.begin;
    TESSERA_EXPECT(in_shard >= 0 && in_shard + count <= std::int64_t(shard_.size()));
    widen(read.tensor().info.dtype, elements, count, shard_.data() + in_shard);
    elements += count * read.element_bytes();
    k += count;
  }
}

}  // namespace tessera::checkpoint
