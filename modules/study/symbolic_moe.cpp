// SPDX-License-Identifier: Apache-2.0
#include "symbolic_layers.hpp"

namespace tessera::study {
namespace {

using enum MemoryKind;
using Block = SymbolicMemory::Block;

constexpr std::int64_t index_bytes = 4, address_bytes = 8;

}  // namespace

void SymbolicMlp::forward(SymbolicMemory::Blocks& saved) const {
  saved.push_back(memory.take(activations, num_tokens * 2 * intermediate_size * f32_bytes));
  saved.push_back(memory.take(activations, num_tokens * intermediate_size * element_bytes));
}

void SymbolicMlp::backward() const {
  const Block dactivated = memory.take(temporaries, num_tokens * intermediate_size * f32_bytes);
  memory.touch(temporaries, num_tokens * 2 * intermediate_size * element_bytes);
}

Block SymbolicSecondHalf::forward(Blocks& saved) const {
  return has_experts_ ? moe_forward(saved) : dense_forward(saved);
}

void SymbolicSecondHalf::backward() const { has_experts_ ? moe_backward() : dense_backward(); }

Block SymbolicSecondHalf::dense_forward(Blocks& saved) const {
  const std::int64_t hidden = config_.hidden_size;
  saved.push_back(take(activations, sizes_.num_tokens, 1, f32_bytes));
  saved.push_back(take(activations, sizes_.num_tokens, hidden, sizes_.element_bytes));
  Block y = take(activations, sizes_.num_tokens, hidden, f32_bytes);
  SymbolicMlp{memory_, sizes_.num_tokens, config_.dense_intermediate_size, sizes_.element_bytes}
      .forward(saved);
  return y;
}

void SymbolicSecondHalf::dense_backward() const {
  const std::int64_t hidden = config_.hidden_size, bytes = sizes_.element_bytes;
  const Block dnormed = take(temporaries, sizes_.num_tokens, hidden, f32_bytes);
  const Block dy = take(temporaries, sizes_.num_tokens, bytes == f32_bytes ? 0 : hidden, bytes);
  SymbolicMlp{memory_, sizes_.num_tokens, config_.dense_intermediate_size, bytes}.backward();
}

void SymbolicSecondHalf::route(Blocks& saved) const {
  const std::int64_t experts = config_.num_experts, top_k = config_.router.options.top_k;
  const Block weight = take(temporaries, experts, config_.hidden_size, f32_bytes);
  saved.push_back(take(activations, sizes_.num_tokens, experts, f32_bytes));
  saved.push_back(take(activations, sizes_.num_tokens, top_k, index_bytes));
  saved.push_back(take(activations, sizes_.num_tokens, top_k, f32_bytes));
  if (config_.router.options.score == moe::RouterScore::sigmoid) {
    take(temporaries, sizes_.num_tokens, experts, f32_bytes);
  }
}

/// Rows grouped by expert.
Block SymbolicSecondHalf::dispatch_forward() const {
  const std::int64_t hidden = config_.hidden_size, bytes = sizes_.element_bytes;
  if (sizes_.axis_shares_memory) {
    Block rows = take(activations, sizes_.num_received, hidden, bytes);
    take(dispatch, sizes_.num_received, 1, address_bytes);
    return rows;
  }
  if (!travels()) return take(activations, sizes_.num_sent, hidden, bytes);
  const Block sent = take(dispatch, sizes_.num_sent, hidden, bytes);
  const Block arrived = take(dispatch, sizes_.num_received, hidden, bytes);
  return take(activations, sizes_.num_received, hidden, bytes);
}

Block SymbolicSecondHalf::moe_forward(Blocks& saved) const {
  const std::int64_t hidden = config_.hidden_size, inner = config_.intermediate_size;
  const std::int64_t tokens = sizes_.num_tokens, bytes = sizes_.element_bytes;
  const std::int64_t sent = sizes_.num_sent, received = sizes_.num_received;
  saved.push_back(take(activations, tokens, 1, f32_bytes));
  const Block rounded = take(temporaries, sizes_.axis_shares_memory ? 0 : tokens, hidden, bytes);
  const Block normed = take(temporaries, tokens, hidden, f32_bytes);
  route(saved);
  for (const std::int64_t rows : {sent, sent, sizes_.axis_size > 1 ? received : 0}) {
    saved.push_back(take(dispatch, rows, 1, index_bytes));
  }
  saved.push_back(dispatch_forward());
  const Block outputs = take(activations, sizes_.axis_shares_memory ? 0 : received, hidden, bytes);
  saved.push_back(take(activations, received, 2 * inner, f32_bytes));
  take(temporaries, sizes_.most_rows, inner, bytes);  // activated
  Block leaving, returned;
  if (travels()) {
    leaving = take(dispatch, received, hidden, bytes);
    returned = take(activations, sent, hidden, bytes);
  }
  Block y = take(activations, tokens, hidden, f32_bytes);
  if (config_.shared_intermediate_size > 0) shared_experts().forward(saved);
  const Block addresses = take(dispatch, sent, 1, address_bytes);
  if (sizes_.axis_shares_memory) returned = take(activations, sent, hidden, bytes);
  saved.push_back(returned ? returned : outputs);
  return y;
}

/// Router and shared experts; returns the gradient of norm(x).
Block SymbolicSecondHalf::dense_part_backward() const {
  const std::int64_t hidden = config_.hidden_size, tokens = sizes_.num_tokens;
  const bool has_shared = config_.shared_intermediate_size > 0;
  const Block rounded = take(temporaries, has_shared ? tokens : 0, hidden, sizes_.element_bytes);
  const Block normed = take(temporaries, tokens, hidden, f32_bytes);
  Block dnormed = take(temporaries, tokens, hidden, f32_bytes);
  {
    const Block weight = take(temporaries, config_.num_experts, hidden, f32_bytes);
    take(temporaries, tokens, config_.num_experts, f32_bytes);
  }
  if (has_shared) {
    const bool narrows = sizes_.element_bytes != f32_bytes;
    const Block dy = take(temporaries, narrows ? tokens : 0, hidden, sizes_.element_bytes);
    shared_experts().backward();
  }
  return dnormed;
}

void SymbolicSecondHalf::moe_backward() const {
  const std::int64_t hidden = config_.hidden_size, inner = config_.intermediate_size;
  const std::int64_t bytes = sizes_.element_bytes;
  const std::int64_t sent = sizes_.num_sent, received = sizes_.num_received;
  const bool shares = sizes_.axis_shares_memory;
  const Block dweight =
      take(temporaries, sizes_.num_tokens, config_.router.options.top_k, f32_bytes);
  const Block doutputs = take(travels() ? dispatch : temporaries, shares ? 0 : sent, hidden, bytes);
  take(dispatch, sent, 1, address_bytes);
  const Block arrived = take(dispatch, travels() ? received : 0, hidden, bytes);
  const Block dnormed = dense_part_backward();
  // What travelled stays until the end: with Kokkos 3 a view that was moved from still refers to
  // it.
  const Block grouped = take(temporaries, travels() ? received : 0, hidden, bytes);
  const Block drows = take(temporaries, shares ? 0 : received, hidden, bytes);
  Block dhidden;
  {
    const Block dactivated = take(temporaries, sizes_.most_rows, inner, f32_bytes);
    const Block activated = take(temporaries, sizes_.most_rows, inner, bytes);
    dhidden = take(temporaries, received, 2 * inner, bytes);
  }
  const Block leaving = take(dispatch, travels() ? received : 0, hidden, bytes);
  const Block returned = take(dispatch, travels() ? sent : 0, hidden, bytes);
  take(dispatch, sent, 1, address_bytes);
}

std::int64_t SymbolicSecondHalf::area_bytes(const model::ModelConfig& config,
                                            const LayerSizes& sizes) {
  if (!sizes.axis_shares_memory) return 0;
  const std::int64_t row_bytes = config.hidden_size * sizes.element_bytes;
  return sizes.num_tokens * row_bytes + 2 * sizes.num_received * row_bytes +
         sizes.num_sent * index_bytes;
}

}  // namespace tessera::study
