// SPDX-License-Identifier: Apache-2.0
#include "symbolic_step.hpp"

#include <tessera/model/loss_head.hpp>

namespace tessera::study {
namespace {

using enum MemoryKind;
using model::Recompute;
using model::UnitIndex;

}  // namespace

void SymbolicStep::pass() {
  std::vector<Saved> saved;
  const Block x = forward_layers(embed(), saved);
  const Block dx = rows(activations, f32_bytes);
  head();
  backward_layers(saved);
  embed_backward();
  store_.finish_reductions();
}

SymbolicStep::Block SymbolicStep::embed() {
  Block x = rows(activations, f32_bytes);
  const std::int64_t num_chunks = units_.num_vocabulary_chunks();
  for (std::int64_t chunk = 0; chunk < num_chunks; ++chunk) {
    store_.gather(units_.embedding_chunk(chunk));
    store_.gather(chunk + 1 < num_chunks ? units_.embedding_chunk(chunk + 1) : units_.dense(0));
    store_.release(units_.embedding_chunk(chunk));
  }
  return x;
}

SymbolicStep::Block SymbolicStep::forward_layers(Block x, std::vector<Saved>& saved) {
  for (std::int64_t layer = 0; layer < config_.num_layers; ++layer) {
    Saved kept{x, {}, {}};
    store_.gather(units_.dense(layer));
    if (has_experts(layer)) store_.gather(units_.expert(layer));
    const Block y = SymbolicAttention(memory_, config_, sizes_, layer).forward(kept.attention);
    if (recompute_ != Recompute::none) kept.attention.clear();
    const bool is_last = layer + 1 == config_.num_layers;
    store_.gather(is_last ? first_of_head() : units_.dense(layer + 1));
    x = SymbolicSecondHalf(memory_, config_, sizes_, layer).forward(kept.second_half);
    kept.second_half.push_back(y);
    store_.release(units_.dense(layer));
    if (has_experts(layer)) store_.release(units_.expert(layer));
    if (recompute_ == Recompute::layer) kept.second_half.clear();
    saved.push_back(std::move(kept));
  }
  return x;
}

std::size_t SymbolicStep::first_of_head() const {
  return units_.num_vocabulary_chunks() > 1 ? units_.head_chunk(0) : units_.head();
}

void SymbolicStep::head() {
  if (units_.num_vocabulary_chunks() > 1) return head_in_chunks();
  const std::size_t vocabulary =
      config_.tied_embeddings ? std::size_t{UnitIndex::embedding} : units_.head();
  store_.gather(units_.head());
  store_.gather(vocabulary);
  prefetch_layer(config_.num_layers - 1);
  store_.gradient(units_.head());
  store_.gradient(vocabulary);
  {
    const Block normed = rows(temporaries, sizes_.element_bytes);
    const Block dnormed = rows(temporaries, f32_bytes);
    const std::int64_t chunk = model::logits_chunk_tokens(sizes_.num_tokens, config_.vocab_size);
    memory_.touch(temporaries, chunk * config_.vocab_size * f32_bytes);
  }
  store_.release(units_.head());
  store_.release(vocabulary);
  store_.reduce(units_.head());
}

void SymbolicStep::head_in_chunks() {
  constexpr std::int64_t sums_bytes = 4 + 8 + 4;
  const std::int64_t num_chunks = units_.num_vocabulary_chunks();
  const std::int64_t chunk_tokens =
      model::logits_chunk_tokens(sizes_.num_tokens, config_.vocabulary_chunk);
  const Block normed = rows(temporaries, sizes_.element_bytes);
  const Block sums = memory_.take(temporaries, sizes_.num_tokens * sums_bytes);
  const Block logits =
      memory_.take(temporaries, chunk_tokens * config_.vocabulary_chunk * f32_bytes);
  for (std::int64_t chunk = 0; chunk < num_chunks; ++chunk) {
    store_.gather(units_.head_chunk(chunk));
    store_.gather(units_.head());
    if (chunk + 1 == num_chunks) break;
    store_.gather(units_.head_chunk(chunk + 1));
    store_.release(units_.head_chunk(chunk));
  }
  Block dnormed;
  for (std::int64_t chunk = num_chunks - 1; chunk >= 0; --chunk) {
    const std::size_t unit = units_.head_chunk(chunk);
    store_.gather(unit);
    if (chunk > 0) store_.gather(units_.head_chunk(chunk - 1));
    if (chunk == 0) prefetch_layer(config_.num_layers - 1);
    store_.gradient(unit);
    if (!dnormed) dnormed = rows(temporaries, f32_bytes);
    store_.release(unit);
    store_.reduce(unit);
  }
  store_.gradient(units_.head());
  store_.release(units_.head());
  store_.reduce(units_.head());
}

void SymbolicStep::backward_layers(std::vector<Saved>& saved) {
  for (std::int64_t layer = config_.num_layers - 1; layer >= 0; --layer) {
    Saved& kept = saved[static_cast<std::size_t>(layer)];
    const SymbolicAttention attention(memory_, config_, sizes_, layer);
    const SymbolicSecondHalf second_half(memory_, config_, sizes_, layer);
    if (has_experts(layer)) store_.gather(units_.expert(layer));
    store_.gather(units_.dense(layer));
    if (layer > 0) prefetch_layer(layer - 1);
    store_.gradient(units_.dense(layer));
    if (recompute_ == Recompute::layer) {
      const Block y = attention.forward(kept.attention);
      const Block unused = second_half.forward(kept.second_half);
      kept.second_half.push_back(y);
    }
    if (has_experts(layer)) store_.gradient(units_.expert(layer));
    second_half.backward();
    if (has_experts(layer)) {
      store_.release(units_.expert(layer));
      store_.reduce(units_.expert(layer));
    }
    kept.second_half.clear();
    if (recompute_ == Recompute::attention) attention.attend(kept.attention);
    attention.backward();
    store_.release(units_.dense(layer));
    store_.reduce(units_.dense(layer));
    kept = {};
  }
}

void SymbolicStep::prefetch_layer(std::int64_t layer) {
  if (has_experts(layer)) store_.gather(units_.expert(layer));
  store_.gather(units_.dense(layer));
}

void SymbolicStep::embed_backward() {
  for (std::int64_t chunk = 0; chunk < units_.num_vocabulary_chunks(); ++chunk) {
    store_.gradient(units_.embedding_chunk(chunk));
    store_.reduce(units_.embedding_chunk(chunk));
  }
}

}  // namespace tessera::study
