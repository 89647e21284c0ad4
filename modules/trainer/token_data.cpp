// SPDX-License-Identifier: Apache-2.0
#include "tessera/trainer/token_data.hpp"

#include <algorithm>
#include <array>
#include <vector>

#include "base/block_distribution.hpp"
#include "base/contract.hpp"
#include "comm/agree.hpp"
#include "token_data_column.hpp"

namespace tessera::trainer {
namespace {

constexpr std::int64_t ignored_label = -100;        // torch's ignore_index
constexpr std::int64_t validation_block = 1 << 16;  // tokens read at a time

std::unique_ptr<TokenColumn> open_tokens(const std::filesystem::path& path,
                                         const TokenDataOptions& options) {
  auto tokens = open_token_column(path, options.dataset, options.flat_dtype, ColumnRole::tokens);
  if (tokens->shape().empty() || tokens->shape().size() > 2) {
    fail(ErrorKind::format,
         "{}: has shape {}, a stream has one dimension and rows of sequences have two",
         tokens->origin(), to_string(tokens->shape()));
  }
  return tokens;
}

std::unique_ptr<TokenColumn> open_beside(const std::filesystem::path& token_path,
                                         const Shape& shape, const TokenColumnOptions& where,
                                         FlatDtype flat_dtype, ColumnRole role) {
  if (!where.given()) return nullptr;
  const auto& path = where.path.empty() ? token_path : where.path;
  auto column = open_token_column(path, where.dataset, flat_dtype, role);
  if (column->shape() != shape) {
    fail(ErrorKind::format, "{}: has shape {}, the tokens have {} ({} go with tokens one by one)",
         column->origin(), to_string(column->shape()), to_string(shape), role_name(role));
  }
  return column;
}

std::int64_t length_of_rows(const TokenColumn& tokens, const TokenDataOptions& options) {
  std::int64_t wanted = options.sequence_length;
  const Shape& shape = tokens.shape();
  if (wanted < 0) fail(ErrorKind::usage, "sequence length {} is negative", wanted);
  if (shape.size() == 2) {
    if (wanted != 0 && wanted != shape[1]) {
      fail(ErrorKind::usage,
           "{}: rows are {} tokens wide, the sequence length is {}; leave it out or save a stream",
           tokens.origin(), shape[1], wanted);
    }
    wanted = shape[1];
  } else if (wanted == 0 && options.stream_is_one_row) {
    wanted = shape[0];
  } else if (wanted == 0) {
    fail(ErrorKind::usage, "{}: is a stream of tokens; say its sequence length", tokens.origin());
  }
  if (wanted < 2) {
    fail(ErrorKind::usage,
         "{}: sequences of {} tokens have no target (a token is predicted from those "
         "before it); use 2 or more",
         tokens.origin(), wanted);
  }
  return wanted;
}

}  // namespace

TokenData::TokenData() = default;
TokenData::TokenData(TokenData&&) noexcept = default;
TokenData& TokenData::operator=(TokenData&&) noexcept = default;
TokenData::~TokenData() = default;

TokenData TokenData::open(const comm::Communicator& world, const std::filesystem::path& path,
                          const TokenDataOptions& options) {
  TokenData data;
  comm::agreed(world, "open token data", [&] { data.open_columns(path, options); });
  // Equal on all ranks, or each would deal the sequences differently: a node's stale copy of the
  // file.
  std::array<std::int64_t, 2> extent{data.num_sequences_, -data.num_sequences_};
  world.all_reduce("token_data.extent", std::span<std::int64_t>(extent), comm::ReduceOp::max);
  if (extent[0] != -extent[1]) {
    fail(ErrorKind::file,
         "{}: some ranks see {} sequences, others {} (all must draw the same); is it one shared "
         "file?",
         path.string(), -extent[1], extent[0]);
  }
  return data;
}

void TokenData::open_columns(const std::filesystem::path& path, const TokenDataOptions& options) {
  tokens_ = open_tokens(path, options);
  labels_ =
      open_beside(path, tokens_->shape(), options.labels, options.flat_dtype, ColumnRole::labels);
  mask_ = open_beside(path, tokens_->shape(), options.mask, options.flat_dtype, ColumnRole::mask);
  vocab_size_ = options.vocab_size;
  sequence_length_ = length_of_rows(*tokens_, options);
  const std::int64_t num_tokens = num_elements(tokens_->shape());
  num_sequences_ = num_tokens / sequence_length_;
  if (num_sequences_ == 0) {
    fail(ErrorKind::usage, "{}: has {} tokens, too few for one sequence of {}", tokens_->origin(),
         num_tokens, sequence_length_);
  }
  description_ =
      fmt::format("{}: {} sequences of {} tokens ({} {})", tokens_->origin(), num_sequences_,
                  sequence_length_, tokens_->element_name(),
                  tokens_->shape().size() == 2 ? std::string("rows")
                                               : fmt::format("stream of {} tokens", num_tokens));
}

void TokenData::read(std::int64_t sequence_idx, std::span<std::int64_t> tokens,
                     std::span<std::int64_t> labels) const {
  TESSERA_EXPECT(static_cast<std::int64_t>(tokens.size()) == sequence_length_);
  read_rows(sequence_idx, tokens, labels);
}

void TokenData::read_rows(std::int64_t sequence_idx, std::span<std::int64_t> tokens,
                          std::span<std::int64_t> labels) const {
  const auto count = static_cast<std::int64_t>(tokens.size());
  const std::int64_t begin = sequence_idx * sequence_length_;
  TESSERA_EXPECT(labels.size() == tokens.size());
  TESSERA_EXPECT(sequence_idx >= 0 && begin + count <= num_sequences_ * sequence_length_);
  std::vector<bool> masked;
  if (mask_) {
    mask_->read(begin, labels);
    masked.resize(labels.size());
    std::transform(labels.begin(), labels.end(), masked.begin(),
                   [](std::int64_t m) { return m == 0; });
  }
  tokens_->read(begin, tokens);
  check_ids(*tokens_, sequence_idx, tokens, false);
  if (labels_) {
    labels_->read(begin, labels);
  } else {
    std::copy(tokens.begin(), tokens.end(), labels.begin());
  }
  for (std::size_t i = 0; i < masked.size(); ++i) {
    if (masked[i]) labels[i] = ignored_label;  // before the check: its label may be anything
  }
  if (labels_) check_ids(*labels_, sequence_idx, labels, true);
}

void TokenData::check_ids(const TokenColumn& column, std::int64_t sequence_idx,
                          std::span<const std::int64_t> ids, bool may_be_ignored) const {
  if (vocab_size_ == 0) return;
  const auto bad = std::find_if(ids.begin(), ids.end(), [&](std::int64_t id) {
    return (id < 0 || id >= vocab_size_) && !(may_be_ignored && id == ignored_label);
  });
  if (bad == ids.end()) return;
  const std::int64_t offset = bad - ids.begin();
  fail(ErrorKind::format,
       "{}: id {} at sequence {}, offset {} is outside the vocabulary of {}; is the file's dtype "
       "right, and "
       "was it made with this model's tokenizer?",
       column.origin(), *bad, sequence_idx + offset / sequence_length_, offset % sequence_length_,
       vocab_size_);
}

void TokenData::validate(const comm::Communicator& world) const {
  comm::agreed(world, "check token ids", [&] {
    const BlockDistribution share{num_sequences_, world.size()};
    const std::int64_t block = std::max<std::int64_t>(1, validation_block / sequence_length_);
    std::vector<std::int64_t> tokens(static_cast<std::size_t>(block * sequence_length_)),
        labels(tokens);
    for (std::int64_t row = share.begin(world.rank()); row < share.end(world.rank());
         row += block) {
      const std::int64_t num_rows = std::min(block, share.end(world.rank()) - row);
      const auto count = static_cast<std::size_t>(num_rows * sequence_length_);
      read_rows(row, std::span(tokens).first(count), std::span(labels).first(count));
    }
  });
}

}  // namespace tessera::trainer
