// SPDX-License-Identifier: Apache-2.0
#include "tensor_loader.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include "base/contract.hpp"
#include "comm/agree.hpp"
#include "place_values.hpp"
#include "widen.hpp"

namespace tessera::checkpoint {

namespace {

/// Of one read: what follows, conversion and hash, finds its bytes in the second cache.
constexpr std::int64_t step_bytes = 512 << 10;

/// Enough for the shards that hold a unit; beyond it all are closed.
constexpr std::size_t max_open_files = 64;

/// Elements of one step where `capacity` fit into the buffer: all, or whole blocks of 32, so that
/// steps end where blocks of MXFP4 and of the fingerprint do.
std::int64_t elements_per_step(std::int64_t num_elements, std::int64_t capacity) {
  constexpr std::int64_t block = 32;
  const std::int64_t step = num_elements <= capacity ? num_elements : capacity / block * block;
  TESSERA_EXPECT(step > 0);
  return step;
}

/// Whole blocks of the fingerprint, which a chunk's rows are.
std::int64_t rows_per_step(const TransposedRead& read, const Chunk& chunk) {
  constexpr std::int64_t block = 32;
  const std::int64_t row_bytes = chunk.columns.size() * read.element_bytes();
  return std::max<std::int64_t>(step_bytes / row_bytes / block, 1) * block;
}

}  // namespace

void expect(const LoadOptions& options, std::span<const Parameter> parameters) {
  for (FingerprintTable* table : {options.fingerprints, options.placed})
    for (const Parameter& parameter : parameters)
      if (table != nullptr)
        table->expect(parameter.name, parameter.is_expert ? parameter.shape[0] : 1);
}

TensorLoader::TensorLoader(const comm::ProcessGrid& grid, const std::filesystem::path& directory,
                           const ReadPlan& plan, std::span<float> shard, const LoadOptions& options)
    : grid_(grid), directory_(directory), plan_(plan), shard_(shard), options_(options) {
  report_.planned_bytes = plan.planned_bytes;
  report_.peak_buffer_bytes = plan.staging_bytes;
}

LoadReport TensorLoader::run() {
  try {
    for (const PartRead& read : plan_.parts) read_part(read);
  } catch (...) {
    error_ = std::current_exception();
  }
  for (const ExchangedRead& read : plan_.exchanged) {
    if (read.read.num_ranks() > 1)
      read_exchanged(read);
    else
      read_turned(read);
  }
  finish_placing();
  comm::agree(grid_.world(), "read tensors", error_);
  return report_;
}

void TensorLoader::read_file(const std::string& file, std::int64_t offset,
                             std::span<std::byte> destination) {
  auto found = files_.find(file);
  if (found == files_.end()) {
    if (files_.size() == max_open_files) files_.clear();
    found = files_.emplace(file, InputFile(directory_ / file, grid_.world().rank())).first;
  }
  report_.read_bytes += found->second.read_at(offset, destination);
}

void TensorLoader::read_part(const PartRead& read) {
  switch (read.encoding) {
    case Encoding::plain: return read_plain(read);
    case Encoding::mxfp4: return read_mxfp4(read);
    case Encoding::fp8: return read_fp8(read);
  }
}

void TensorLoader::read_plain(const PartRead& read) {
  const Dtype dtype = read.values->dtype;
  const auto element_bytes = std::int64_t(size_of(dtype));
  const std::int64_t offset = read.values->offset_bytes + read.tensor_begin * element_bytes;
  const bool is_direct = dtype == Dtype::f32;
  const std::int64_t capacity_bytes =
      is_direct ? step_bytes : std::min(step_bytes, plan_.staging_bytes);
  const std::int64_t per_step =
      elements_per_step(read.num_elements, capacity_bytes / element_bytes);
  TensorHash hash = hash_of(read);
  for (std::int64_t done = 0; done < read.num_elements; done += per_step) {
    const std::int64_t count = std::min(per_step, read.num_elements - done);
    const std::span<float> values =
        destination(read).subspan(std::size_t(done), std::size_t(count));
    if (is_direct) {
      read_file(read.values->file, offset + done * element_bytes, std::as_writable_bytes(values));
      hash.add(read.parameter_begin + done, values);
    } else {
      read_file(read.values->file, offset + done * element_bytes,
                {plan_.staging.get(), std::size_t(count * element_bytes)});
      place_values(dtype, plan_.staging.get(), count, values.data(), read.parameter_begin + done,
                   hash);
    }
  }
}

void TensorLoader::read_mxfp4(const PartRead& read) {
  const std::int64_t num_blocks = read.num_elements / mxfp4_block_elements;
  const std::int64_t first_block = read.tensor_begin / mxfp4_block_elements;
  constexpr std::int64_t most_blocks = step_bytes / (mxfp4_block_elements * sizeof(float));
  const std::int64_t per_step =
      std::min({num_blocks, plan_.staging_bytes / (mxfp4_block_bytes + 1), most_blocks});
  std::vector<std::uint8_t>* kept_scales = nullptr;
  if (options_.scales != nullptr) {
    kept_scales = &(*options_.scales)[read.parameter->name];
    kept_scales->resize(std::size_t(num_blocks));
  }
  TensorHash hash = hash_of(read);
  for (std::int64_t done = 0; done < num_blocks; done += per_step) {
    const std::int64_t count = std::min(per_step, num_blocks - done);
    const std::span<std::byte> blocks(plan_.staging.get(), std::size_t(count * mxfp4_block_bytes));
    const std::span<std::byte> scales(blocks.data() + blocks.size(), std::size_t(count));
    read_file(read.values->file,
              read.values->offset_bytes + (first_block + done) * mxfp4_block_bytes, blocks);
    read_file(read.scales->file, read.scales->offset_bytes + first_block + done, scales);
    decode_mxfp4(read, done, blocks, scales);
    if (kept_scales != nullptr)
      std::memcpy(kept_scales->data() + done, scales.data(), scales.size());
    hash.add(read.parameter_begin + done * mxfp4_block_elements,
             destination(read).subspan(std::size_t(done * mxfp4_block_elements),
                                       std::size_t(count * mxfp4_block_elements)));
  }
}

void TensorLoader::decode_mxfp4(const PartRead& read, std::int64_t first_block,
                                std::span<const std::byte> blocks,
                                std::span<const std::byte> scales) {
  const auto as_u8 = [](std::span<const std::byte> bytes) {
    return std::span(reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size());
  };
  if (const std::int64_t refused = first_refused_scale(as_u8(scales)); refused >= 0) {
    const Shape& shape = read.parameter->shape;
    const std::int64_t element =
        read.parameter_begin + (first_block + refused) * mxfp4_block_elements;
    const int scale = std::to_integer<int>(scales[std::size_t(refused)]);
    fail(ErrorKind::numeric,
         "{}: expert {}: the scale of row {}, block {} is {} ({}) the checkpoint is damaged or not "
         "MXFP4 as gpt-oss is released",
         read.scales->name, element / (shape[1] * shape[2]), element / shape[2] % shape[1],
         element % shape[2] / mxfp4_block_elements, scale,
         scale == 255 ? "which means NaN" : "6 times this power of two overflows bf16");
  }
  mxfp4_decode(as_u8(blocks), as_u8(scales),
               destination(read).subspan(std::size_t(first_block * mxfp4_block_elements),
                                         scales.size() * mxfp4_block_elements));
}

void TensorLoader::read_fp8(const PartRead& read) {
  const Range rows = read.scale_rows();
  const std::int64_t num_columns = read.values->shape[1], scale_columns = read.scales->shape[1];
  const std::int64_t num_factors = rows.size() * scale_columns;
  auto* factors = reinterpret_cast<float*>(plan_.staging.get());
  const std::int64_t factor_bytes = num_factors * std::int64_t(sizeof(float));
  std::byte* raw = plan_.staging.get() + factor_bytes;
  const auto scale_bytes = std::int64_t(size_of(read.scales->dtype));
  read_file(read.scales->file, read.scales->offset_bytes + rows.begin * scale_columns * scale_bytes,
            {raw, std::size_t(num_factors * scale_bytes)});
  widen(read.scales->dtype, raw, num_factors, factors);
  const std::int64_t per_step = elements_per_step(
      read.num_elements,
      std::min(plan_.staging_bytes - factor_bytes, step_bytes / std::int64_t(sizeof(float))));
  TensorHash hash = hash_of(read);
  for (std::int64_t done = 0; done < read.num_elements; done += per_step) {
    const std::int64_t count = std::min(per_step, read.num_elements - done);
    const std::int64_t begin = read.tensor_begin + done;
    read_file(read.values->file, read.values->offset_bytes + begin, {raw, std::size_t(count)});
    widen_fp8(raw, begin, count, num_columns, factors, rows.begin, destination(read).data() + done);
    hash.add(read.parameter_begin + done,
             destination(read).subspan(std::size_t(done), std::size_t(count)));
  }
}

TensorHash TensorLoader::hash_of(const PartRead& read) const {
  return {*read.parameter, options_.fingerprints, options_.placed};
}

// A rank that owns what it reads needs nobody: some rows at a time come into the cache and go
// turned to the shard.
void TensorLoader::read_turned(const ExchangedRead& exchanged) {
  const TransposedRead& read = exchanged.read;
  try {
    if (error_ != nullptr) return;
    TensorHash hash(*exchanged.slice.parameter, options_.placed, options_.fingerprints);
    for (std::int64_t round = 0; round < read.num_rounds(); ++round) {
      const Chunk chunk = *read.chunk(0, round);
      const std::int64_t step = rows_per_step(read, chunk);
      for (std::int64_t row = 0; row < chunk.rows.size(); row += step) {
        const Range rows{row, std::min(row + step, chunk.rows.size())};
        read_rows(read, chunk, rows);
        place_turned(exchanged, chunk, rows, hash);
      }
    }
  } catch (...) {
    error_ = std::current_exception();
  }
}

// Some columns at a time, which stay in the first cache.
void TensorLoader::place_turned(const ExchangedRead& exchanged, const Chunk& chunk, Range rows,
                                TensorHash& hash) {
  constexpr std::int64_t columns_per_step = 32;
  const TransposedRead& read = exchanged.read;
  const std::int64_t num_columns = chunk.columns.size(), width = read.element_bytes();
  std::byte* const turned = plan_.staging.get();
  for (std::int64_t column = 0; column < num_columns; column += columns_per_step) {
    const std::int64_t count = std::min(columns_per_step, num_columns - column);
    transpose(landing(read) + column * width, rows.size(), count, num_columns, width, turned,
              rows.size());
    for (std::int64_t k = 0; k < count; ++k) {
      const std::int64_t index =
          read.global_index(chunk, (column + k) * chunk.rows.size() + rows.begin);
      const std::int64_t in_shard = exchanged.slice.shard_offset + index - exchanged.slice.begin;
      TESSERA_EXPECT(in_shard >= 0 && in_shard + rows.size() <= std::ssize(shard_));
      place_values(read.tensor().dtype, turned + k * rows.size() * width, rows.size(),
                   shard_.data() + in_shard, index, hash);
    }
  }
}

void TensorLoader::read_exchanged(const ExchangedRead& exchanged) {
  const TransposedRead& read = exchanged.read;
  TensorHash placed(*exchanged.slice.parameter, options_.placed);
  for (std::int64_t round = 0; round < read.num_rounds(); ++round) {
    if (const auto mine = read.chunk(grid_.replica().rank(), round))
      read_and_turn(exchanged, *mine);
    exchange(exchanged, round, placed);
  }
}

void TensorLoader::read_and_turn(const ExchangedRead& exchanged, const Chunk& chunk) {
  const TransposedRead& read = exchanged.read;
  try {
    if (error_ == nullptr) turn(read, chunk);
  } catch (...) {
    error_ = std::current_exception();
  }
  if (error_ != nullptr)
    std::fill_n(plan_.staging.get(), chunk.size() * read.element_bytes(), std::byte{0});
  if (options_.fingerprints != nullptr) hash_turned(exchanged, chunk);
}

// Some rows at a time, which are turned while they are in the cache.
void TensorLoader::turn(const TransposedRead& read, const Chunk& chunk) {
  const std::int64_t num_rows = chunk.rows.size(), num_columns = chunk.columns.size();
  const std::int64_t step = rows_per_step(read, chunk);
  for (std::int64_t row = 0; row < num_rows; row += step) {
    const Range rows{row, std::min(row + step, num_rows)};
    read_rows(read, chunk, rows);
    transpose(landing(read), rows.size(), num_columns, num_columns, read.element_bytes(),
              plan_.staging.get() + row * read.element_bytes(), num_rows);
  }
}

// `rows`: of the chunk.
void TensorLoader::read_rows(const TransposedRead& read, const Chunk& chunk, Range rows) {
  const std::int64_t num_reads = read.is_contiguous(chunk) ? 1 : rows.size();
  const std::int64_t bytes_each =
      rows.size() / num_reads * chunk.columns.size() * read.element_bytes();
  for (std::int64_t k = 0; k < num_reads; ++k)
    read_file(read.tensor().file, read.offset_bytes(chunk, rows.begin + k),
              {landing(read) + k * bytes_each, std::size_t(bytes_each)});
}

void TensorLoader::hash_turned(const ExchangedRead& exchanged, const Chunk& chunk) {
  const TransposedRead& read = exchanged.read;
  TensorHash hash(*exchanged.slice.parameter, options_.fingerprints);
  std::array<float, 1024> values;
  const std::int64_t num_rows = chunk.rows.size();
  for (std::int64_t column = 0; column < chunk.columns.size(); ++column)
    for (std::int64_t row = 0; row < num_rows; row += std::ssize(values)) {
      const std::int64_t k = column * num_rows + row;
      const std::int64_t count = std::min(std::ssize(values), num_rows - row);
      widen(read.tensor().dtype, plan_.staging.get() + k * read.element_bytes(), count,
            values.data());
      hash.add(read.global_index(chunk, k), std::span(values).first(std::size_t(count)));
    }
}

void TensorLoader::exchange(const ExchangedRead& exchanged, std::int64_t round,
                            TensorHash& placed) {
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
    if (const auto theirs = read.chunk(rank, round)) place(exchanged, *theirs, elements, placed);
    elements += receive_counts[std::size_t(rank)];
  }
}

void TensorLoader::place(const ExchangedRead& exchanged, const Chunk& chunk,
                         const std::byte* elements, TensorHash& placed) {
  const TransposedRead& read = exchanged.read;
  const Range part = read.owned_part(chunk, grid_.replica().rank());
  const std::int64_t num_rows = chunk.rows.size();
  // The turned chunk is contiguous in the shard as far as its rows go, then one global row on.
  for (std::int64_t k = part.begin; k < part.end;) {
    const std::int64_t count = std::min(num_rows - k % num_rows, part.end - k);
    const std::int64_t index = read.global_index(chunk, k);
    const std::int64_t in_shard = exchanged.slice.shard_offset + index - exchanged.slice.begin;
    TESSERA_EXPECT(in_shard >= 0 && in_shard + count <= std::int64_t(shard_.size()));
    place_values(read.tensor().dtype, elements, count, shard_.data() + in_shard, index, placed);
    elements += count * read.element_bytes();
    k += count;
  }
}

}  // namespace tessera::checkpoint
