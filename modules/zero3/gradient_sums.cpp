// SPDX-License-Identifier: Apache-2.0
#include "gradient_sums.hpp"

#include "base/contract.hpp"
#include "base/phase_timer.hpp"
#include "base/seconds_since.hpp"
#include "kernel/rows.hpp"
#include "kernel/sum_parts.hpp"

namespace tessera::zero3 {
namespace {

using kernel::Into;

using Clock = std::chrono::steady_clock;

template <class T>
kernel::Vector<T> vector_in(const BufferPool::Loan& loan, std::int64_t size) {
  return kernel::Vector<T>(loan.as<T>(), size);
}

template <class T>
std::span<T> span_of(const kernel::Vector<T>& vector) {
  return {vector.data(), vector.size()};
}

}  // namespace

GradientSums::GradientSums(const std::deque<Unit>& units,
                           const std::vector<const NodeGroup*>& groups, GradientTransport transport,
                           BufferPool& pool)
    : units_(units),
      groups_(groups),
      transport_(transport),
      pool_(pool),
      contributions_(units.size()),
      is_zero_(units.size(), false) {
  for (const NodeGroup* group : groups) {
    // One waits for the neighbours while the one before travels between nodes.
    if (group != nullptr && group->num_nodes() > 1) max_in_flight_ = 2;
  }
}

void GradientSums::zero() { is_zero_.assign(units_.size(), true); }

float* GradientSums::contribution(std::size_t unit_idx) {
  const Unit& unit = units_[unit_idx];
  const std::int64_t size = unit.layout().flat_size();
  if (unit.group().size() == 1) {
    if (is_zero_[unit_idx]) Kokkos::deep_copy(execution_, unit.gradient(), 0.0f);
    is_zero_[unit_idx] = false;
    return unit.gradient().data();
  }
  std::optional<Contribution>& mine = contributions_[unit_idx];
  if (!mine) {
    const TimedPhase timed(StepPhase::reduce_scatter);
    mine = borrow(unit_idx);
    Kokkos::deep_copy(execution_, kernel::Vector<float>(mine->data, size), 0.0f);
  }
  return mine->data;
}

float* GradientSums::overwritable(std::size_t unit_idx) {
  const Unit& unit = units_[unit_idx];
  float* whole = nullptr;
  if (unit.group().size() == 1) {
    if (!is_zero_[unit_idx]) return nullptr;
    is_zero_[unit_idx] = false;
    whole = unit.gradient().data();
  } else {
    if (contributions_[unit_idx]) return nullptr;
    const TimedPhase timed(StepPhase::reduce_scatter);
    contributions_[unit_idx] = borrow(unit_idx);
    whole = contributions_[unit_idx]->data;
  }
  zero_padding(unit, whole);
  return whole;
}

void GradientSums::zero_padding(const Unit& unit, float* whole) const {
  for (std::size_t i = 0; i < unit.parameters().size(); ++i) {
    const bool is_last = i + 1 == unit.parameters().size();
    const std::int64_t end = unit.layout().offset(i) + unit.layout().local_size(i);
    const std::int64_t next = is_last ? unit.layout().flat_size() : unit.layout().offset(i + 1);
    Kokkos::deep_copy(execution_, kernel::Vector<float>(whole + end, next - end), 0.0f);
  }
}

void GradientSums::progress() {
  for (Sum& sum : sums_) sum.request.test();
}

GradientSums::Contribution GradientSums::borrow(std::size_t unit_idx) {
  const std::int64_t bytes = units_[unit_idx].layout().flat_size() * std::int64_t{sizeof(float)};
  Contribution contribution;
  if (const NodeGroup* group = groups_[unit_idx]) {
    contribution.slot = slots_.borrow(*group, "gradients", bytes);
    if (contribution.slot != nullptr) {
      contribution.data =
          reinterpret_cast<float*>(contribution.slot->segment(group->node().rank()));
      return contribution;
    }
  }
  contribution.loan = pool_.borrow(bytes);
  contribution.data = contribution.loan.as<float>();
  return contribution;
}

void GradientSums::start(std::size_t unit_idx) {
  const Unit& unit = units_[unit_idx];
  if (unit.group().size() == 1) return;  // the contribution is the shard itself
  const TimedPhase timed(StepPhase::reduce_scatter);
  contribution(unit_idx);
  Sum sum;
  sum.unit_idx = unit_idx;
  sum.begin = Clock::now();
  sum.contribution = std::move(*contributions_[unit_idx]);
  contributions_[unit_idx].reset();
  if (sum.contribution.slot != nullptr) {
    execution_.fence();  // others read what the kernels wrote
    sum.shares_memory = true;
    sum.contribution.slot->set_filled();
    count(sum);
  }
  while (sums_.size() >= max_in_flight_) finish_oldest();
  if (!sums_.empty()) sum_node(sums_.back());
  if (sum.contribution.slot == nullptr) start_travelling(sum, unit.group());
  sums_.push_back(std::move(sum));
}

bool GradientSums::stays_on_node(const Sum& sum) const {
  return sum.contribution.slot != nullptr && groups_[sum.unit_idx]->num_nodes() == 1;
}

void GradientSums::wait_for_neighbours(Sum& sum) {
  const TimedPhase timed(StepPhase::reduce_scatter_wait);
  const auto begin = Clock::now();
  sum.contribution.slot->wait_filled(units_[sum.unit_idx].name());
  sum.waited_s += seconds_since(begin);
}

/// Each shard that this rank sums on its node takes the neighbours' parts; one sum of each other
/// node follows.
void GradientSums::count(const Sum& sum) const {
  const comm::Communicator& group = units_[sum.unit_idx].group();
  const NodeGroup& nodes = *groups_[sum.unit_idx];
  const std::int64_t shard_size = units_[sum.unit_idx].layout().shard_size();
  const std::int64_t element_bytes = transport_ == GradientTransport::bf16 ? 2 : 4;
  const std::int64_t num_read = (nodes.node().size() - 1) * nodes.num_nodes() * shard_size;
  group.count_volume(&comm::Traffic::reduce_scatter,
                     {(group.size() - 1) * shard_size * element_bytes,
                      num_read * std::int64_t{sizeof(float)} +
                          (nodes.num_nodes() - 1) * shard_size * element_bytes});
}

/// Sums what the ranks of this node contribute to the shards of this rank's peers, and sends it on
/// its way. Nothing to do where there is but one node, or where it has been done.
void GradientSums::sum_node(Sum& sum) {
  if (sum.contribution.slot == nullptr || stays_on_node(sum)) return;
  const NodeGroup& group = *groups_[sum.unit_idx];
  const std::int64_t shard_size = units_[sum.unit_idx].layout().shard_size();
  Contribution partial;
  partial.loan = pool_.borrow(group.num_nodes() * shard_size * std::int64_t{sizeof(float)});
  partial.data = partial.loan.as<float>();
  wait_for_neighbours(sum);
  for (int node = 0; node < group.num_nodes(); ++node) {
    add_neighbours(sum, node * group.node().size() + group.node().rank(), Into::overwrite,
                   kernel::Vector<float>(partial.data + node * shard_size, shard_size));
  }
  execution_.fence();
  sum.contribution.slot->leave();
  sum.contribution = std::move(partial);
  start_travelling(sum, group.peers());
}

/// The contribution is [group.size() x shard_size].
void GradientSums::start_travelling(Sum& sum, const comm::Communicator& group) {
  const std::string& name = units_[sum.unit_idx].name();
  const std::int64_t shard_size = units_[sum.unit_idx].layout().shard_size();
  const kernel::Vector<float> whole(sum.contribution.data, group.size() * shard_size);
  if (transport_ == GradientTransport::bf16) {
    sum.travelling = pool_.borrow(whole.extent(0) * std::int64_t{sizeof(bf16)});
    sum.received = pool_.borrow(shard_size * std::int64_t{sizeof(bf16)});
    const auto narrow = vector_in<bf16>(sum.travelling, whole.extent(0));
    kernel::convert<float, bf16>(execution_, whole, narrow);
    sum.contribution = Contribution();
    sum.request = group.start_reduce_scatter(comm::compute_stream(), name,
                                             std::span<const bf16>(span_of(narrow)),
                                             span_of(vector_in<bf16>(sum.received, shard_size)));
    return;
  }
  sum.received = pool_.borrow(shard_size * std::int64_t{sizeof(float)});
  sum.request = group.start_reduce_scatter(comm::compute_stream(), name,
                                           std::span<const float>(span_of(whole)),
                                           span_of(vector_in<float>(sum.received, shard_size)));
}

void GradientSums::finish_oldest() {
  const TimedPhase timed(StepPhase::reduce_scatter);
  Sum sum = std::move(sums_.front());
  sums_.pop_front();
  const Unit& unit = units_[sum.unit_idx];
  const Into into = is_zero_[sum.unit_idx] ? Into::overwrite : Into::accumulate;
  is_zero_[sum.unit_idx] = false;
  if (stays_on_node(sum)) {
    wait_for_neighbours(sum);
    unit.group().count_time(seconds_since(sum.begin), sum.waited_s);
    add_neighbours(sum, unit.group().rank(), into, unit.gradient());
    execution_.fence();
    sum.contribution.slot->leave();
    return;
  }
  sum_node(sum);
  {
    const TimedPhase timed_wait(StepPhase::reduce_scatter_wait);
    const auto begin = Clock::now();
    sum.request.wait();
    sum.waited_s += seconds_since(begin);
  }
  if (sum.shares_memory) {
    unit.group().count_time(seconds_since(sum.begin), sum.waited_s);
  }
  add_received(sum, into);
}

/// The node's contributions to one shard.
void GradientSums::add_neighbours(const Sum& sum, std::int64_t shard_idx, Into into,
                                  kernel::Vector<float> result) {
  const std::int64_t shard_size = units_[sum.unit_idx].layout().shard_size();
  std::vector<const float*> parts;
  for (int rank = 0; rank < groups_[sum.unit_idx]->node().size(); ++rank) {
    parts.push_back(reinterpret_cast<const float*>(sum.contribution.slot->segment(rank)) +
                    shard_idx * shard_size);
  }
  if (transport_ == GradientTransport::bf16) {
    kernel::sum_parts<bf16>(execution_, parts, into, result);
  } else {
    kernel::sum_parts<float>(execution_, parts, into, result);
  }
}

void GradientSums::add_received(const Sum& sum, Into into) {
  const Unit& unit = units_[sum.unit_idx];
  const std::int64_t size = unit.layout().shard_size();
  BufferPool::Loan widened;
  kernel::Vector<float> received = vector_in<float>(sum.received, size);
  if (transport_ == GradientTransport::bf16) {
    widened = pool_.borrow(size * std::int64_t{sizeof(float)});
    received = vector_in<float>(widened, size);
    kernel::convert<bf16, float>(execution_, vector_in<bf16>(sum.received, size), received);
  }
  if (into == Into::overwrite) {
    Kokkos::deep_copy(execution_, unit.gradient(), received);
  } else {
    kernel::add(execution_, received, unit.gradient());
  }
}

void GradientSums::finish_all() {
  while (!sums_.empty()) finish_oldest();
  for (std::size_t i = 0; i < units_.size(); ++i) {
    if (is_zero_[i]) Kokkos::deep_copy(execution_, units_[i].gradient(), 0.0f);
    is_zero_[i] = false;
  }
}

}  // namespace tessera::zero3
