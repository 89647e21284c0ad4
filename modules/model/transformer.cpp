// SPDX-License-Identifier: Apache-2.0
#include <tessera/model/transformer.hpp>

#include "base/error.hpp"
#include "base/phase_timer.hpp"
#include "tessera/zero3/gather_buffer.hpp"

namespace tessera::model {
namespace {

kernel::RopeFrequencies frequencies(const ModelConfig& config) {
  const RopeConfig& rope = config.rope;
  const std::int64_t size = config.is_latent() ? config.latent.rope_size : config.head_size;
  switch (rope.variant) {
    case RopeVariant::plain: return kernel::default_frequencies(rope.theta, size);
    case RopeVariant::linear: return kernel::linear_frequencies(rope.theta, size, rope.factor);
    case RopeVariant::llama3:
      return kernel::llama3_frequencies({rope.theta, size, rope.factor, rope.low_frequency_factor,
                                         rope.high_frequency_factor, rope.original_max_position});
    case RopeVariant::yarn: break;
  }
  kernel::YarnOptions yarn;
  yarn.theta = rope.theta;
  yarn.head_size = size;
  yarn.factor = rope.factor;
  yarn.beta_fast = rope.beta_fast;
  yarn.beta_slow = rope.beta_slow;
  yarn.original_max_position = rope.original_max_position;
  yarn.truncate = rope.truncate;
  yarn.attention_factor = rope.attention_factor;
  yarn.mscale = rope.mscale;
  yarn.mscale_all_dim = rope.mscale_all_dim;
  return kernel::yarn_frequencies(yarn);
}

}  // namespace

const char* to_string(Recompute recompute) {
  switch (recompute) {
    case Recompute::attention: return "attention";
    case Recompute::layer: return "layer";
    case Recompute::none: break;
  }
  return "none";
}

Recompute parse_recompute(const std::string& name) {
  for (const Recompute each : {Recompute::none, Recompute::attention, Recompute::layer}) {
    if (name == to_string(each)) return each;
  }
  fail(ErrorKind::usage, "--recompute {} is unknown; use none, attention or layer", name);
}

template <class T>
Transformer<T>::Transformer(const comm::ProcessGrid& grid, ModelConfig config,
                            zero3::ParameterStore<T>& store, Recompute recompute)
    : grid_(grid),
      exchange_(grid.expert()),
      config_(std::move(config)),
      store_(store),
      units_(config_),
      recompute_(recompute),
      pool_(store.pool().arena()) {}

template <class T>
PassResult Transformer<T>::pass(const Batch& batch, const PassOptions& options) {
  prepare_rope(batch.length);
  prepare_correction_biases();
  const kernel::PoolScope scope(pool_);
  PassResult result;
  std::vector<Saved> saved;
  const bool collects = options.balance != nullptr && !options.balance->finished();
  kernel::Matrix<float> x = embed(batch);
  x = forward_layers(batch, x, options, saved, result);
  if (collects && !options.with_gradient) return result;
  if (collects) options.balance->finish(grid_.world());

  const auto dx =
      kernel::new_matrix<float>("dx", options.with_gradient ? x.extent(0) : 0, x.extent(1));
  result.loss_sum = head(batch, x, options, dx);
  if (!options.with_gradient) return result;

  kernel::Vector<const float> aux_gradient;
  if (options.balance != nullptr) aux_gradient = options.balance->gradient(options.aux_coefficient);
  backward_layers(batch, saved, aux_gradient, dx);
  embed_backward(batch, dx);
  store_.finish_reductions();
  return result;
}

template <class T>
kernel::Matrix<float> Transformer<T>::forward_layers(const Batch& batch, kernel::Matrix<float> x,
                                                     const PassOptions& options,
                                                     std::vector<Saved>& saved,
                                                     PassResult& result) {
  const bool collects = options.balance != nullptr && !options.balance->finished();
  moe::LoadBalance* balance = collects ? options.balance : nullptr;
  const bool routing_only = collects && !options.with_gradient;
  for (std::int64_t layer = 0; layer < config_.num_layers; ++layer) {
    const bool is_last = layer + 1 == config_.num_layers;
    Saved kept;
    const UnitView<const T> dense = gathered(units_.dense(layer));
    if (has_experts(layer)) store_.prefetch(units_.expert(layer));
    const AttentionBlock<T> attention(config_, rope_, layer, batch.sequences, batch.length);
    {
      const TimedPhase timed(StepPhase::attention_forward);
      x = attention.forward(dense, x, kept.attention);
    }
    if (recompute_ != Recompute::none) forget_attention(kept.attention);
    store_.progress();
    // Gathered before the next unit's gather begins: all ranks wait for requests in one order.
    if (has_experts(layer)) gathered(units_.expert(layer));
    if (!is_last) store_.prefetch(units_.dense(layer + 1));
    if (is_last && !routing_only) store_.prefetch(first_of_head());
    x = forward_mlp(layer, dense, x, balance, kept, result);
    store_.release(units_.dense(layer));
    if (has_experts(layer)) store_.release(units_.expert(layer));
    if (!options.with_gradient) continue;
    if (recompute_ == Recompute::layer) {
      kept.moe = {};
      kept.mlp = {};
    }
    saved.push_back(std::move(kept));
  }
  return x;
}

/// Of all that attention's backward needs, the layer's input stays.
template <class T>
void Transformer<T>::forget_attention(AttentionSaved<T>& saved) const {
  const kernel::Matrix<float> x = saved.x;
  saved = AttentionSaved<T>();
  saved.x = x;
}

/// Fills `kept` again from the layer's input. collective over grid.expert() where the layer has
/// experts.
template <class T>
void Transformer<T>::forward_again(std::int64_t layer, const UnitView<const T>& dense,
                                   const AttentionBlock<T>& attention, Saved& kept) {
  const kernel::Matrix<float> input = kept.attention.x;
  kernel::Matrix<float> x;
  {
    const TimedPhase timed(StepPhase::attention_forward);
    x = attention.forward(dense, input, kept.attention);
  }
  PassResult counted_before;
  forward_mlp(layer, dense, x, nullptr, kept, counted_before);
}

/// The layer's second half.
template <class T>
kernel::Matrix<float> Transformer<T>::forward_mlp(std::int64_t layer,
                                                  const UnitView<const T>& dense,
                                                  kernel::Matrix<float> x,
                                                  moe::LoadBalance* balance, Saved& kept,
                                                  PassResult& result) {
  if (!has_experts(layer)) {
    const TimedPhase timed(StepPhase::dense_mlp_forward);
    return MlpBlock<T>(config_).forward(dense, x, kept.mlp);
  }
  const auto y = MoeBlock<T>(exchange_, config_)
                     .forward(dense, gathered(units_.expert(layer)), correction_bias(layer), x,
                              balance, kept.moe);
  const std::vector<std::int64_t>& load = kept.moe.handle.local_load;
  result.expert_load.insert(result.expert_load.end(), load.begin(), load.end());
  return y;
}

template <class T>
void Transformer<T>::backward_layers(const Batch& batch, std::vector<Saved>& saved,
                                     kernel::Vector<const float> aux_gradient,
                                     kernel::Matrix<float> dx) {
  for (std::int64_t layer = config_.num_layers - 1; layer >= 0; --layer) {
    Saved& kept = saved[static_cast<std::size_t>(layer)];
    if (has_experts(layer)) gathered(units_.expert(layer));
    const UnitView<const T> dense = gathered(units_.dense(layer));
    if (layer > 0) prefetch_layer(layer - 1);
    const UnitView<float> gradients = gradient(units_.dense(layer));
    const AttentionBlock<T> attention(config_, rope_, layer, batch.sequences, batch.length);
    if (recompute_ == Recompute::layer) forward_again(layer, dense, attention, kept);
    backward_mlp(layer, dense, kept, aux_gradient, gradients, dx);
    store_.progress();
    kept.moe = {};
    kept.mlp = {};
    if (recompute_ == Recompute::attention) {
      const TimedPhase timed(StepPhase::attention_forward);
      attention.attend(dense, kernel::Matrix<float>(kept.attention.x), kept.attention);
    }
    {
      const TimedPhase timed(StepPhase::attention_backward);
      attention.backward(dense, kept.attention, gradients, dx);
    }
    store_.release(units_.dense(layer));
    store_.reduce(units_.dense(layer));
    kept = Saved();
  }
}

/// The layer's second half; its experts' gradient sets off.
template <class T>
void Transformer<T>::backward_mlp(std::int64_t layer, const UnitView<const T>& dense,
                                  const Saved& kept, kernel::Vector<const float> aux_gradient,
                                  const UnitView<float>& gradients, kernel::Matrix<float> dx) {
  if (!has_experts(layer)) {
    const TimedPhase timed(StepPhase::dense_mlp_backward);
    return MlpBlock<T>(config_).backward(dense, kept.mlp, gradients, dx);
  }
  const std::size_t expert = units_.expert(layer);
  // All of it is written at once: a new buffer needs no zeros.
  float* const fresh = store_.overwritable_gradient(expert);
  const UnitView<float> expert_gradients =
      fresh != nullptr ? UnitView<float>(store_.unit(expert), fresh) : gradient(expert);
  const kernel::Into into =
      fresh != nullptr ? kernel::Into::overwrite_far : kernel::Into::accumulate;
  MoeBlock<T>(exchange_, config_)
      .backward(dense, gathered(expert), correction_bias(layer), kept.moe, aux_gradient, gradients,
                expert_gradients, into, dx);
  store_.release(expert);
  store_.reduce(expert);
}

/// In the order in which backward waits for them.
template <class T>
void Transformer<T>::prefetch_layer(std::int64_t layer) {
  if (has_experts(layer)) store_.prefetch(units_.expert(layer));
  store_.prefetch(units_.dense(layer));
}

template <class T>
void Transformer<T>::prepare_rope(std::int64_t length) {
  if (static_cast<std::int64_t>(rope_.cosine.extent(0)) == length) return;
  rope_ = kernel::make_rope_table(frequencies(config_), length);
}

template <class T>
void Transformer<T>::prepare_correction_biases() {
  if (!config_.router.has_correction_bias || !correction_biases_.empty()) return;
  correction_biases_.resize(static_cast<std::size_t>(config_.num_layers));
  for (std::int64_t layer = 0; layer < config_.num_layers; ++layer) {
    if (!has_experts(layer)) continue;
    correction_biases_[static_cast<std::size_t>(layer)] =
        zero3::gather_buffer(store_.unit(units_.dense(layer)), "e_score_correction_bias");
  }
}

template <class T>
kernel::Vector<const float> Transformer<T>::correction_bias(std::int64_t layer) const {
  if (correction_biases_.empty()) return {};
  return correction_biases_[static_cast<std::size_t>(layer)];
}

template <class T>
UnitView<const T> Transformer<T>::gathered(std::size_t unit_idx) {
  return {store_.unit(unit_idx), store_.gather(unit_idx)};
}

template <class T>
UnitView<float> Transformer<T>::gradient(std::size_t unit_idx) {
  return {store_.unit(unit_idx), store_.gradient(unit_idx)};
}

template class Transformer<float>;
template class Transformer<bf16>;

}  // namespace tessera::model
