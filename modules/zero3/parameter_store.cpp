// SPDX-License-Identifier: Apache-2.0
#include <tessera/zero3/parameter_store.hpp>
#include <type_traits>

#include "base/contract.hpp"
#include "base/phase_timer.hpp"
#include "kernel/rows.hpp"

namespace tessera::zero3 {
namespace {

// Two whole-unit gradients in flight: one travels while the next is being computed.
constexpr std::size_t max_reductions_in_flight = 1;

template <class T>
std::span<T> as_span(T* data, std::int64_t size) {
  return {data, static_cast<std::size_t>(size)};
}

}  // namespace

template <class T>
ParameterStore<T>::ParameterStore(std::vector<UnitSpec> specs, GradientTransport transport)
    : transport_(transport) {
  for (UnitSpec& spec : specs) units_.emplace_back(std::move(spec));
  gathered_.resize(units_.size());
  gradients_.resize(units_.size());
}

template <class T>
void ParameterStore<T>::prefetch(std::size_t unit_idx) {
  if (gathered_[unit_idx]) return;
  const TimedPhase timed(StepPhase::gather);
  const Unit& unit = units_[unit_idx];
  const FlatLayout& layout = unit.layout();
  Gathered& gathered = gathered_[unit_idx].emplace();
  if constexpr (std::is_same_v<T, float>) {
    if (unit.group().size() == 1) {  // the shard is the whole unit
      gathered.data = unit.master().data();
      return;
    }
  }
  gathered.loan = pool_.borrow(layout.flat_size() * std::int64_t{sizeof(T)});
  T* flat = gathered.loan.template as<T>();
  gathered.data = flat;
  T* mine = flat + unit.group().rank() * layout.shard_size();
  kernel::convert<float, T>(execution_, unit.master(),
                            kernel::Vector<T>(mine, layout.shard_size()));
  execution_.fence();  // the collective reads what the kernel wrote
  gathered.request = unit.group().start_all_gather(
      unit.name(), std::span<const T>(as_span(mine, layout.shard_size())),
      as_span(flat, layout.flat_size()));
}

template <class T>
const T* ParameterStore<T>::gather(std::size_t unit_idx) {
  prefetch(unit_idx);
  const TimedPhase timed(StepPhase::gather_wait);
  gathered_[unit_idx]->request.wait();
  return gathered_[unit_idx]->data;
}

template <class T>
void ParameterStore<T>::release(std::size_t unit_idx) {
  TESSERA_EXPECT(gathered_[unit_idx].has_value() && !gathered_[unit_idx]->request.pending());
  execution_.fence();  // kernels may still read it
  gathered_[unit_idx].reset();
}

template <class T>
float* ParameterStore<T>::gradient(std::size_t unit_idx) {
  const Unit& unit = units_[unit_idx];
  if (unit.group().size() == 1) return unit.gradient().data();
  if (!gradients_[unit_idx]) {
    const TimedPhase timed(StepPhase::reduce_scatter);
    const std::int64_t size = unit.layout().flat_size();
    gradients_[unit_idx] = pool_.borrow(size * std::int64_t{sizeof(float)});
    Kokkos::deep_copy(
        execution_, kernel::Vector<float>(gradients_[unit_idx]->template as<float>(), size), 0.0f);
  }
  return gradients_[unit_idx]->template as<float>();
}

template <class T>
void ParameterStore<T>::reduce(std::size_t unit_idx) {
  const Unit& unit = units_[unit_idx];
  if (unit.group().size() == 1) return;  // gradient() handed out the shard itself
  const TimedPhase timed(StepPhase::reduce_scatter);
  const std::int64_t flat_size = unit.layout().flat_size(), shard_size = unit.layout().shard_size();
  float* whole = gradient(unit_idx);
  while (reductions_.size() >= max_reductions_in_flight) finish_oldest_reduction();

  Reduction& reduction = reductions_.emplace_back();
  reduction.unit_idx = unit_idx;
  if (transport_ == GradientTransport::bf16) {
    reduction.contribution = pool_.borrow(flat_size * std::int64_t{sizeof(bf16)});
    reduction.sum = pool_.borrow(shard_size * std::int64_t{sizeof(bf16)});
    bf16* narrow = reduction.contribution.template as<bf16>();
    kernel::convert<float, bf16>(execution_, kernel::Vector<float>(whole, flat_size),
                                 kernel::Vector<bf16>(narrow, flat_size));
    execution_.fence();
    reduction.request = unit.group().start_reduce_scatter(
        unit.name(), std::span<const bf16>(as_span(narrow, flat_size)),
        as_span(reduction.sum.template as<bf16>(), shard_size));
    gradients_[unit_idx].reset();
    return;
  }
  reduction.contribution = std::move(*gradients_[unit_idx]);
  gradients_[unit_idx].reset();
  reduction.sum = pool_.borrow(shard_size * std::int64_t{sizeof(float)});
  execution_.fence();
  reduction.request = unit.group().start_reduce_scatter(
      unit.name(), std::span<const float>(as_span(whole, flat_size)),
      as_span(reduction.sum.template as<float>(), shard_size));
}

template <class T>
void ParameterStore<T>::finish_oldest_reduction() {
  TimedPhase timed(StepPhase::reduce_scatter_wait);
  Reduction reduction = std::move(reductions_.front());
  reductions_.pop_front();
  reduction.request.wait();
  timed.next(StepPhase::reduce_scatter);
  const Unit& unit = units_[reduction.unit_idx];
  const std::int64_t size = unit.layout().shard_size();
  if (transport_ == GradientTransport::bf16) {
    const kernel::Vector<bf16> sum(reduction.sum.template as<bf16>(), size);
    const BufferPool::Loan wide = pool_.borrow(size * std::int64_t{sizeof(float)});
    const kernel::Vector<float> sum_f32(wide.as<float>(), size);
    kernel::convert<bf16, float>(execution_, sum, sum_f32);
    kernel::add(execution_, sum_f32, unit.gradient());
    execution_.fence();
    return;
  }
  kernel::add(execution_, kernel::Vector<float>(reduction.sum.template as<float>(), size),
              unit.gradient());
  execution_.fence();
}

template <class T>
void ParameterStore<T>::finish_reductions() {
  while (!reductions_.empty()) finish_oldest_reduction();
}

template <class T>
void ParameterStore<T>::zero_gradients() {
  for (Unit& unit : units_) Kokkos::deep_copy(execution_, unit.gradient(), 0.0f);
}

template class ParameterStore<float>;
template class ParameterStore<bf16>;

}  // namespace tessera::zero3
