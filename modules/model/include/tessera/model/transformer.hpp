// SPDX-License-Identifier: Apache-2.0
// The whole model on one page: embedding, layers, head, and the same in reverse. Each unit is
// gathered just before use, with the next one already on its way, and released right after.
#pragma once

#include <string>
#include <vector>

#include "comm/process_grid.hpp"
#include "kernel/rope.hpp"
#include "kernel/view_pool.hpp"
#include "tessera/model/attention_block.hpp"
#include "tessera/model/batch.hpp"
#include "tessera/model/config.hpp"
#include "tessera/model/loss_head.hpp"
#include "tessera/model/mlp_block.hpp"
#include "tessera/model/moe_block.hpp"
#include "tessera/model/parameter_units.hpp"
#include "tessera/zero3/parameter_store.hpp"

namespace tessera::model {

/// What backward computes again instead of keeping it since forward; results are the same bit for
/// bit. In Megatron-LM "selective" and "full" (arXiv:2205.05198).
enum class Recompute {
  none,       ///< all that backward needs is kept
  attention,  ///< of a layer's attention its input alone is kept
  layer,      ///< of a layer its input alone is kept; its rows are dispatched again, too
};
const char* to_string(Recompute recompute);
/// Throws Error::usage for any other name. local.
Recompute parse_recompute(const std::string& name);

struct PassOptions {
  bool with_gradient = true;
  double loss_scale = 1.0;       ///< 1 / number of targets over all ranks and micro-steps
  double aux_coefficient = 0.0;  ///< of the load-balancing loss
  /// Of the load-balancing loss, or null. If it is not finished, the pass adds its routing:
  /// with_gradient finishes it after the forward part (a step of one micro-step), without it that
  /// is all the pass does.
  moe::LoadBalance* balance = nullptr;
  float* logits = nullptr;  ///< host [T, V] f32 of this rank's tokens, or null
};

struct PassResult {
  double loss_sum = 0.0;                  ///< cross-entropy over this rank's targets
  std::vector<std::int64_t> expert_load;  ///< [layers with experts, E] choices of this
                                          ///< rank's tokens
};

template <class T>
class Transformer {
 public:
  /// The grid and the store must outlive the model. The store is loaded before the first pass,
  /// which gathers what is not trained (router biases) once and for all.
  Transformer(const comm::ProcessGrid& grid, ModelConfig config, zero3::ParameterStore<T>& store,
              Recompute recompute = Recompute::none);

  const ModelConfig& config() const { return config_; }
  /// Where a pass takes all that it keeps and all its temporaries from; of the store's arena.
  kernel::ViewPool& pool() { return pool_; }

  /// Loss of one micro-step; with_gradient: adds this step's gradient to the store's gradient
  /// shards. collective over grid.world(), also for a rank without tokens. All ranks pass the same
  /// length.
  PassResult pass(const Batch& batch, const PassOptions& options);

 private:
  struct Saved {
    AttentionSaved<T> attention;
    MoeSaved<T> moe;       ///< of a layer with experts
    MlpBlockSaved<T> mlp;  ///< of one without
  };

  kernel::Matrix<float> embed(const Batch& batch);
  kernel::Matrix<float> forward_layers(const Batch& batch, kernel::Matrix<float> x,
                                       const PassOptions& options, std::vector<Saved>& saved,
                                       PassResult& result);
  kernel::Matrix<float> forward_mlp(std::int64_t layer, const UnitView<const T>& dense,
                                    kernel::Matrix<float> x, moe::LoadBalance* balance, Saved& kept,
                                    PassResult& result);
  double head(const Batch& batch, kernel::Matrix<const float> x, const PassOptions& options,
              kernel::Matrix<float> dx);
  double head_in_chunks(const Batch& batch, kernel::Matrix<const float> x,
                        const PassOptions& options, kernel::Matrix<float> dx);
  std::int64_t first_row(std::int64_t chunk) const;
  template <class E>
  kernel::Matrix<E> rows_of(const UnitView<E>& unit, const char* name, std::int64_t chunk) const;
  const char* output_name() const;
  std::size_t first_of_head() const;
  void backward_layers(const Batch& batch, std::vector<Saved>& saved,
                       kernel::Vector<const float> aux_gradient, kernel::Matrix<float> dx);
  void forget_attention(AttentionSaved<T>& saved) const;
  void forward_again(std::int64_t layer, const UnitView<const T>& dense,
                     const AttentionBlock<T>& attention, Saved& kept);
  void backward_mlp(std::int64_t layer, const UnitView<const T>& dense, const Saved& kept,
                    kernel::Vector<const float> aux_gradient, const UnitView<float>& gradients,
                    kernel::Matrix<float> dx);
  void prefetch_layer(std::int64_t layer);
  void embed_backward(const Batch& batch, kernel::Matrix<const float> dx);
  void prepare_rope(std::int64_t length);
  void prepare_correction_biases();
  kernel::Vector<const float> correction_bias(std::int64_t layer) const;
  bool has_experts(std::int64_t layer) const {
    return config_.layer_has_experts[static_cast<std::size_t>(layer)];
  }
  UnitView<const T> gathered(std::size_t unit_idx);
  UnitView<float> gradient(std::size_t unit_idx);

  kernel::Execution execution_;
  const comm::ProcessGrid& grid_;
  moe::TokenExchange exchange_;
  ModelConfig config_;
  zero3::ParameterStore<T>& store_;
  UnitIndex units_;
  Recompute recompute_;
  kernel::ViewPool pool_;
  kernel::RopeTable rope_;
  /// [num_layers] vectors [E] f32 (empty for layers without experts): buffers that nothing trains,
  /// so they are gathered once, in full precision.
  std::vector<kernel::Vector<const float>> correction_biases_;
};

}  // namespace tessera::model
