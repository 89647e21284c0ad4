// SPDX-License-Identifier: Apache-2.0
// Both ends of the model: the embedding and the head, the vocabulary matrices whole or in chunks.
#include <tessera/model/chunked_loss_head.hpp>
#include <tessera/model/transformer.hpp>

#include "base/phase_timer.hpp"
#include "kernel/rows.hpp"

namespace tessera::model {
namespace {

constexpr const char* embedding_name = "embed_tokens.weight";

}  // namespace

template <class T>
kernel::Matrix<float> Transformer<T>::embed(const Batch& batch) {
  const TimedPhase timed(StepPhase::embed);
  const auto x = kernel::new_matrix<float>("embedded", batch.num_tokens(), config_.hidden_size);
  const std::int64_t num_chunks = units_.num_vocabulary_chunks();
  for (std::int64_t chunk = 0; chunk < num_chunks; ++chunk) {
    const std::size_t unit = units_.embedding_chunk(chunk);
    const UnitView<const T> embedding = gathered(unit);
    store_.prefetch(chunk + 1 < num_chunks ? units_.embedding_chunk(chunk + 1) : units_.dense(0));
    kernel::gather_rows_within<T>(execution_, rows_of(embedding, embedding_name, chunk),
                                  first_row(chunk), batch.tokens, x);
    store_.release(unit);
  }
  return x;
}

/// A chunk's first row of the vocabulary.
template <class T>
std::int64_t Transformer<T>::first_row(std::int64_t chunk) const {
  return chunk * config_.vocabulary_chunk;
}

/// [rows of the chunk, H]
template <class T>
template <class E>
kernel::Matrix<E> Transformer<T>::rows_of(const UnitView<E>& unit, const char* name,
                                          std::int64_t chunk) const {
  const std::int64_t left = config_.vocab_size - first_row(chunk);
  const bool is_last = chunk + 1 == units_.num_vocabulary_chunks();
  return unit.matrix(name, is_last ? left : config_.vocabulary_chunk, config_.hidden_size);
}

template <class T>
const char* Transformer<T>::output_name() const {
  return config_.tied_embeddings ? embedding_name : "lm_head.weight";
}

/// What the head gathers first.
template <class T>
std::size_t Transformer<T>::first_of_head() const {
  return units_.num_vocabulary_chunks() > 1 ? units_.head_chunk(0) : units_.head();
}

template <class T>
double Transformer<T>::head(const Batch& batch, kernel::Matrix<const float> x,
                            const PassOptions& options, kernel::Matrix<float> dx) {
  const TimedPhase timed(StepPhase::head);
  if (units_.num_vocabulary_chunks() > 1) return head_in_chunks(batch, x, options, dx);
  const std::size_t head = units_.head();
  const std::size_t vocabulary = config_.tied_embeddings ? UnitIndex::embedding : head;
  const UnitView<const T> weights = gathered(head), matrix = gathered(vocabulary);
  if (options.with_gradient) {
    prefetch_layer(config_.num_layers - 1);
  }
  const HeadWeights<T> head_weights{weights.vector("norm.weight", config_.hidden_size),
                                    rows_of(matrix, output_name(), 0)};
  HeadGradients gradients;
  if (options.with_gradient) {
    gradients = {gradient(head).vector("norm.weight", config_.hidden_size),
                 rows_of(gradient(vocabulary), output_name(), 0)};
  }
  const double loss =
      loss_head<T>(execution_, config_, head_weights, batch, x, options.loss_scale,
                   options.with_gradient ? &gradients : nullptr, dx, options.logits);
  store_.release(head);
  if (config_.tied_embeddings) store_.release(vocabulary);
  // A tied matrix keeps its gradient buffer: the embedding adds to it and reduces once.
  if (options.with_gradient) store_.reduce(head);
  return loss;
}

/// All chunks once for the loss, then, the last first, for the gradient. A tied matrix is reduced
/// here and once more by the embedding: to keep its chunks would be to hold it whole.
template <class T>
double Transformer<T>::head_in_chunks(const Batch& batch, kernel::Matrix<const float> x,
                                      const PassOptions& options, kernel::Matrix<float> dx) {
  const std::int64_t num_chunks = units_.num_vocabulary_chunks();
  const std::size_t head = units_.head();
  ChunkedLossHead<T> loss_head(execution_, config_, batch, x, options.loss_scale);
  for (std::int64_t chunk = 0; chunk < num_chunks; ++chunk) {
    const UnitView<const T> matrix = gathered(units_.head_chunk(chunk));
    const UnitView<const T> weights = gathered(head);
    if (chunk + 1 < num_chunks) store_.prefetch(units_.head_chunk(chunk + 1));
    if (chunk == 0) loss_head.normalize(weights.vector("norm.weight", config_.hidden_size));
    loss_head.add_logits(rows_of(matrix, output_name(), chunk), first_row(chunk), options.logits);
    const bool is_wanted_again = options.with_gradient && chunk + 1 == num_chunks;
    if (!is_wanted_again) store_.release(units_.head_chunk(chunk));
  }
  const double loss = loss_head.loss();
  for (std::int64_t chunk = num_chunks - 1; chunk >= 0 && options.with_gradient; --chunk) {
    const std::size_t unit = units_.head_chunk(chunk);
    const UnitView<const T> matrix = gathered(unit);
    if (chunk > 0) store_.prefetch(units_.head_chunk(chunk - 1));
    if (chunk == 0) prefetch_layer(config_.num_layers - 1);
    loss_head.add_gradient(rows_of(matrix, output_name(), chunk), first_row(chunk),
                           rows_of(gradient(unit), output_name(), chunk));
    store_.release(unit);
    store_.reduce(unit);
  }
  if (options.with_gradient) {
    loss_head.finish(gathered(head).vector("norm.weight", config_.hidden_size),
                     gradient(head).vector("norm.weight", config_.hidden_size), dx);
  }
  store_.release(head);
  if (options.with_gradient) store_.reduce(head);
  return loss;
}

template <class T>
void Transformer<T>::embed_backward(const Batch& batch, kernel::Matrix<const float> dx) {
  const TimedPhase timed(StepPhase::embed);
  for (std::int64_t chunk = 0; chunk < units_.num_vocabulary_chunks(); ++chunk) {
    const std::size_t unit = units_.embedding_chunk(chunk);
    kernel::scatter_add_rows(execution_, dx, batch.tokens,
                             static_cast<std::int32_t>(config_.padding_id), first_row(chunk),
                             rows_of(gradient(unit), embedding_name, chunk));
    store_.reduce(unit);
  }
}

#define TESSERA_INSTANTIATE(T)                                                     \
  template kernel::Matrix<float> Transformer<T>::embed(const Batch&);              \
  template std::size_t Transformer<T>::first_of_head() const;                      \
  template double Transformer<T>::head(const Batch&, kernel::Matrix<const float>,  \
                                       const PassOptions&, kernel::Matrix<float>); \
  template void Transformer<T>::embed_backward(const Batch&, kernel::Matrix<const float>);
TESSERA_INSTANTIATE(float)
TESSERA_INSTANTIATE(bf16)
#undef TESSERA_INSTANTIATE

}  // namespace tessera::model
