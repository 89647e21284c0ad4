// SPDX-License-Identifier: Apache-2.0
// The memory through which the ranks of an expert axis pass rows to each other. On one node each
// rank has areas that all others read and write in place, so that a row is moved once, from where
// it was computed to where it is needed. Lives as long as the model: in a steady step nothing is
// allocated. Elsewhere (several nodes, no /dev/shm, a device) it hands out private memory and
// dispatch sends messages instead.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <utility>

#include "comm/communicator.hpp"
#include "comm/shared_counters.hpp"
#include "comm/shared_memory.hpp"
#include "kernel/view.hpp"

namespace tessera::moe {

struct DispatchHandle;

/// What a rank shares, one area each.
enum class Area {
  plan,      ///< how many rows it sends to each expert; written by its rank, read by all
  order,     ///< which token each of those rows is; written by its rank, read by the experts'
  tokens,    ///< its tokens [T, H]; written by its rank, read by the experts'
  results,   ///< outputs [N, H], later gradients of rows; written by its rank, read by the tokens'
  gradients  ///< gradients of outputs [N, H]; written by the tokens' ranks, read by its rank
};
inline constexpr std::size_t num_areas = static_cast<std::size_t>(Area::gradients) + 1;

class TokenExchange {
 public:
  /// The communicator must outlive the object. local.
  explicit TokenExchange(const comm::Communicator& expert_axis) : axis_(expert_axis) {}

  const comm::Communicator& axis() const { return axis_; }

  /// Memory for this rank's tokens [num_tokens, hidden]. What is written here before plan_dispatch
  /// needs no copy and no wait of its own in dispatch_forward. Valid until the next call.
  /// collective over the axis.
  template <class T>
  kernel::Matrix<T> tokens(std::int64_t num_tokens, std::int64_t hidden);

  /// Memory for what the local experts compute from the rows of `handle` [N, hidden]:
  /// start_combine_forward and start_dispatch_backward take their rows from here alone. Valid until
  /// the next call. collective over the axis.
  template <class T>
  kernel::Matrix<T> results(const DispatchHandle& handle, std::int64_t hidden);

  // What follows is for plan_dispatch and dispatch.

  /// Whether the ranks work in each other's memory; the same on all ranks. The first call decides
  /// it. collective over the axis.
  bool is_shared();
  /// Makes `area` hold `bytes`, the same number on all ranks, on every rank. What it held is lost.
  /// False, and is_shared() from now on, too, if the memory is not to be had. collective over the
  /// axis.
  bool reserve(Area area, std::int64_t bytes);
  std::int64_t capacity_bytes(Area area) const;
  /// First element of `rank`'s area.
  template <class T>
  T* memory(Area area, int rank) const {
    const auto& shared = areas_[static_cast<std::size_t>(area)];
    return shared ? reinterpret_cast<T*>(shared->segment(rank)) : nullptr;
  }

  /// To be called before `area` is written: waits for those who may still use what it holds. In a
  /// steady step nobody does, because a meeting lies between; so this costs nothing. collective
  /// over the axis.
  void claim(Area area);
  /// From now to the next meeting `area` is in use.
  void lend(Area area) { lent_[static_cast<std::size_t>(area)] = true; }
  /// A meeting of all ranks in two parts: what each has written before it arrives is seen by all
  /// that have met. Between the two a rank works on what no other touches. collective over the
  /// axis.
  void arrive();
  void await_others(const char* what);
  void meet(const char* what) {
    arrive();
    await_others(what);
  }

  /// Whether tokens() has given memory that others see since the last plan.
  bool take_written_tokens() { return std::exchange(tokens_are_written_, false); }
  std::int64_t next_plan() { return ++plan_number_; }
  /// Whether neither a plan nor tokens() came after that one.
  bool is_last_plan(std::int64_t number) const { return number == plan_number_; }

 private:
  const comm::Communicator& axis_;
  std::optional<bool> is_shared_;
  std::optional<comm::SharedCounters> arrivals_;
  std::int64_t num_meetings_ = 0;
  std::array<std::optional<comm::SharedMemory>, num_areas> areas_;
  std::array<bool, num_areas> lent_{};
  std::optional<comm::SharedMemory> outgrown_tokens_;  ///< somebody may still hold the last view
  bool tokens_are_written_ = false;
  std::int64_t plan_number_ = 0;
};

}  // namespace tessera::moe
