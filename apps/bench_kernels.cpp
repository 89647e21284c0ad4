// SPDX-License-Identifier: Apache-2.0
// Each kernel of a step alone, on the shapes that one rank has in it.
#include <algorithm>
#include <set>

#include "base/block_distribution.hpp"
#include "bench.hpp"
#include "kernel/optimizer.hpp"
#include "kernel/rms_norm.hpp"
#include "kernel/swiglu.hpp"
#include "tessera/model/loss_head.hpp"
#include "tessera/model/parameter_units.hpp"
#include "tessera/trainer/model_state.hpp"

namespace tessera::apps {
namespace {

using kernel::new_matrix;
using kernel::new_vector;

/// Everything but what a kernel itself needs.
template <class T>
class KernelBench {
 public:
  KernelBench(const comm::ProcessGrid& grid, const BenchShape& shape, const Roofs& roofs)
      : grid_(grid), shape_(shape), config_(shape.config), roofs_(roofs) {
    sequences_ = BlockDistribution{shape.batch, grid.world().size()}.count(grid.world().rank());
    tokens_ = sequences_ * shape.length;
  }

  std::vector<KernelRow> run() {
    if (config_.num_experts > 0) experts();
    attention();
    norm();
    activation();
    head();
    optimizer();
    return std::move(rows_);
  }

  void communication(std::vector<KernelRow>& rows) {
    auto store = trainer::make_store<T>(grid_, config_);
    const model::UnitIndex units(config_);
    traffic(store, units.dense(0), "dense layer");
    if (config_.layer_has_experts.front()) traffic(store, units.expert(0), "experts of a layer");
    std::move(rows_.begin(), rows_.end(), std::back_inserter(rows));
  }

 private:
  void time(const std::string& name, const Work& work, const std::function<void()>& body) {
    const double seconds = study::median_seconds(grid_.world(), shape_.num_repeats, body);
    rows_.push_back(make_row(grid_.world(), name, seconds, work, roofs_, shape_.dtype));
  }
  static double bytes(std::int64_t elements, double per_element) {
    return static_cast<double>(elements) * per_element;
  }

  void experts();
  void attention();
  void attention(std::int64_t window);
  void norm();
  void activation();
  void head();
  void optimizer();
  void traffic(zero3::ParameterStore<T>& store, std::size_t unit, const std::string& name);

  static constexpr double element = sizeof(T);
  kernel::Execution execution_;
  const comm::ProcessGrid& grid_;
  const BenchShape& shape_;
  const model::ModelConfig& config_;
  const Roofs& roofs_;
  std::int64_t sequences_ = 0;
  std::int64_t tokens_ = 0;  ///< of this rank
  std::vector<KernelRow> rows_;
};

/// As many rows as this rank's tokens choose, dealt to the local experts alike.
template <class T>
void KernelBench<T>::experts() {
  const int num_ranks = grid_.expert().size();
  const BlockDistribution blocks{config_.num_experts, num_ranks};
  const std::int64_t local = blocks.count(grid_.expert().rank());
  if (blocks.count(num_ranks - 1) == 0) return;  // a rank without experts has nothing to time
  const std::int64_t num_rows = tokens_ * config_.router.options.top_k;
  const study::KernelTimes times = study::time_experts(grid_.world(), config_, shape_.dtype, local,
                                                       num_rows, shape_.num_repeats);
  const auto add = [&](const char* name, double value, bool backward) {
    const Work work = study::expert_work(config_, static_cast<double>(num_rows),
                                         static_cast<double>(local), sizeof(T), backward);
    rows_.push_back(make_row(grid_.world(), name, value, work, roofs_, shape_.dtype));
  };
  add("expert forward", study::median(times.forward), false);
  add("expert backward", study::median(times.backward), true);
}

template <class T>
void KernelBench<T>::attention() {
  for (const std::int64_t window :
       std::set<std::int64_t>(config_.layer_window.begin(), config_.layer_window.end())) {
    attention(window);
  }
}

template <class T>
void KernelBench<T>::attention(std::int64_t window) {
  const study::KernelTimes times = study::time_attention(
      grid_.world(), config_, shape_.dtype, sequences_, shape_.length, window, shape_.num_repeats);
  const std::string ending = window > 0 ? fmt::format(", window {}", window) : "";
  const auto add = [&](const std::string& name, const std::vector<double>& seconds, bool backward) {
    const Work work =
        study::attention_work(config_, sequences_, shape_.length, window, sizeof(T), backward);
    rows_.push_back(
        make_row(grid_.world(), name + ending, study::median(seconds), work, roofs_, shape_.dtype));
  };
  add("attention forward", times.forward, false);
  add("attention backward", times.backward, true);
}

template <class T>
void KernelBench<T>::norm() {
  const std::int64_t h = config_.hidden_size, size = tokens_ * h;
  const kernel::Matrix<float> x("x", tokens_, h), dy("dy", tokens_, h), dx("dx", tokens_, h);
  const kernel::Matrix<T> y("y", tokens_, h);
  const kernel::Vector<T> weight("weight", h);
  const kernel::Vector<float> rstd("rstd", tokens_), dweight("dweight", h);
  time("rms_norm forward", {0.0, bytes(size, 4.0 + element), 0.0},
       [&] { kernel::rms_norm_forward<T, T>(execution_, x, weight, 1e-5f, y, rstd); });
  time("rms_norm backward", {0.0, bytes(size, 16.0), 0.0},
       [&] { kernel::rms_norm_backward<T>(execution_, dy, x, weight, rstd, dx, dweight); });
}

template <class T>
void KernelBench<T>::activation() {
  const bool has_experts = config_.num_experts > 0;
  const std::int64_t i = has_experts ? config_.intermediate_size : config_.dense_intermediate_size;
  const std::int64_t n = has_experts ? tokens_ * config_.router.options.top_k : tokens_;
  const kernel::Matrix<float> hidden("hidden", n, 2 * i), dactivated("dactivated", n, i);
  const kernel::Matrix<T> activated("activated", n, i), dhidden("dhidden", n, 2 * i);
  const kernel::Swiglu options{config_.activation, static_cast<float>(config_.swiglu_alpha),
                               static_cast<float>(config_.swiglu_limit)};
  time("swiglu forward", {0.0, bytes(n * i, 8.0 + element), 0.0}, [&] {
    kernel::swiglu_forward<T>(execution_, options, kernel::Vector<std::int32_t>(),
                              kernel::Matrix<const T>(), hidden, activated);
  });
  time("swiglu backward", {0.0, bytes(n * i, 12.0 + 2.0 * element), 0.0},
       [&] { kernel::swiglu_backward<T>(execution_, options, hidden, dactivated, dhidden); });
}

template <class T>
void KernelBench<T>::head() {
  const std::int64_t h = config_.hidden_size, v = config_.vocab_size;
  const kernel::Matrix<float> x("x", tokens_, h), dx("dx", tokens_, h), dvocabulary("dv", v, h);
  const kernel::Matrix<T> vocabulary("vocabulary", v, h);
  const kernel::Vector<T> weight("norm", h);
  const kernel::Vector<float> dweight("dnorm", h);
  const std::vector<std::int64_t> zeros(static_cast<std::size_t>(tokens_), 0);
  const model::Batch batch = model::make_batch(sequences_, shape_.length, zeros, zeros, v);
  const model::HeadGradients gradients{dweight, dvocabulary};
  time("head: vocabulary product, loss, gradient", study::head_work(config_, tokens_, sizeof(T)),
       [&] {
         model::loss_head<T>(execution_, config_, {weight, vocabulary}, batch, x, 1.0, &gradients,
                             dx, nullptr);
       });
}

/// On as many parameters as this rank owns, 64 Mi at most.
template <class T>
void KernelBench<T>::optimizer() {
  const std::int64_t n = std::min<std::int64_t>(
      std::max<std::int64_t>(num_parameters(config_) / grid_.world().size(), 1), 1 << 26);
  const kernel::Vector<float> gradient("g", n), parameter("p", n), m("m", n), v("v", n);
  const kernel::Vector<T> copy("copy", std::is_same_v<T, float> ? 0 : n);
  time("adamw", study::adamw_work(n, copy.size()),
       [&] { kernel::adamw<T>(execution_, kernel::AdamwStep(), gradient, parameter, m, v, copy); });
}

/// Shards to whole unit and back, with nothing to hide behind.
template <class T>
void KernelBench<T>::traffic(zero3::ParameterStore<T>& store, std::size_t unit,
                             const std::string& name) {
  const zero3::FlatLayout& layout = store.unit(unit).layout();
  const auto whole = static_cast<double>(layout.flat_size());
  const int num_ranks = store.unit(unit).group().size();
  const bool shares_memory = grid_.node().size() == grid_.world().size();
  if (num_ranks == 1) return;  // nothing travels
  time("gather, " + name, study::gather_work(whole, num_ranks, sizeof(T), shares_memory), [&] {
    store.gather(unit);
    store.release(unit);
  });
  time("reduce-scatter, " + name, study::reduce_work(whole, num_ranks, shares_memory), [&] {
    store.gradient(unit);
    store.reduce(unit);
    store.finish_reductions();
  });
}

template <class T>
std::vector<KernelRow> run(const comm::ProcessGrid& grid, const BenchShape& shape,
                           const Roofs& roofs) {
  KernelBench<T> bench(grid, shape, roofs);
  std::vector<KernelRow> rows = bench.run();
  bench.communication(rows);
  return rows;
}

}  // namespace

std::vector<KernelRow> measure_kernels(const comm::ProcessGrid& grid, const BenchShape& shape,
                                       const Roofs& roofs) {
  return shape.dtype == Dtype::bf16 ? run<bf16>(grid, shape, roofs)
                                    : run<float>(grid, shape, roofs);
}

}  // namespace tessera::apps
