// SPDX-License-Identifier: Apache-2.0
#include <map>
#include <tessera/zero3/parameter_store.hpp>

#include "gathered_units.hpp"
#include "gradient_sums.hpp"
#include "node_group.hpp"

namespace tessera::zero3 {

template <class T>
ParameterStore<T>::ParameterStore(std::vector<UnitSpec> specs, GradientTransport transport) {
  for (UnitSpec& spec : specs) units_.emplace_back(std::move(spec));
  std::map<const comm::Communicator*, NodeGroup*> group_of;
  std::vector<const NodeGroup*> groups;
  for (const Unit& unit : units_) {
    const auto [found, is_new] = group_of.try_emplace(&unit.group(), nullptr);
    if (is_new) {
      groups_.push_back(NodeGroup::make(unit.group(), units_.size()));
      found->second = groups_.back().get();
    }
    groups.push_back(found->second);
  }
  gathered_ = std::make_unique<GatheredUnits<T>>(units_, groups, pool_);
  gradients_ = std::make_unique<GradientSums>(units_, groups, transport, pool_);
}

template <class T>
ParameterStore<T>::~ParameterStore() = default;

template <class T>
void ParameterStore<T>::open_masters() {
  gathered_->open_masters();
}
template <class T>
kernel::Vector<T> ParameterStore<T>::working_shard(std::size_t unit_idx) const {
  return gathered_->working_shard(unit_idx);
}
template <class T>
void ParameterStore<T>::set_written(std::size_t unit_idx) {
  gathered_->set_written(unit_idx);
}
template <class T>
void ParameterStore<T>::prefetch(std::size_t unit_idx) {
  gathered_->prefetch(unit_idx);
}
template <class T>
const T* ParameterStore<T>::gather(std::size_t unit_idx) {
  return gathered_->gather(unit_idx);
}
template <class T>
void ParameterStore<T>::release(std::size_t unit_idx) {
  gathered_->release(unit_idx);
}
template <class T>
float* ParameterStore<T>::gradient(std::size_t unit_idx) {
  return gradients_->contribution(unit_idx);
}
template <class T>
float* ParameterStore<T>::overwritable_gradient(std::size_t unit_idx) {
  return gradients_->overwritable(unit_idx);
}
template <class T>
void ParameterStore<T>::progress() {
  gathered_->progress();
  gradients_->progress();
}
template <class T>
void ParameterStore<T>::reduce(std::size_t unit_idx) {
  gradients_->start(unit_idx);
}
template <class T>
void ParameterStore<T>::finish_reductions() {
  gradients_->finish_all();
}
template <class T>
void ParameterStore<T>::zero_gradients() {
  gradients_->zero();
}

template class ParameterStore<float>;
template class ParameterStore<bf16>;

}  // namespace tessera::zero3
