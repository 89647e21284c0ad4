// SPDX-License-Identifier: Apache-2.0
#include "group.hpp"

#include <fmt/ranges.h>

#include <algorithm>

#include "base/device_access.hpp"

namespace nccl_double {
namespace {

/// FNV-1a.
std::uint64_t hash(std::uint64_t seed, const std::byte* data, std::size_t bytes) {
  for (std::size_t i = 0; i < bytes; ++i) {
    seed = (seed ^ static_cast<std::uint64_t>(data[i])) * 0x100000001b3ull;
  }
  return seed;
}

/// Whoever reads a result before it is there finds this: as floats, NaN.
void poison(const Range& range) {
  auto* data = const_cast<std::byte*>(range.begin);
  const tessera::DeviceAccess writes("collective", data, static_cast<std::int64_t>(range.bytes));
  std::fill_n(data, range.bytes, std::byte{0xff});
}

}  // namespace

Group::Group(ncclComm& comm, const std::vector<Call>& calls) : comm_(comm) {
  is_collective = true;
  is_summed_ = true;
  for (const Call& call : calls) {
    transfers_.emplace_back(call);
    if (!name.empty()) name += " + ";
    name += describe(call.signature());
    for (const Range& range : call.ranges()) {
      ranges.push_back(range);
      is_summed_ = is_summed_ && !in_use(range);
    }
  }
  constexpr std::size_t longest_name = 160;
  if (name.size() > longest_name) name.replace(longest_name, std::string::npos, " ...");
  for (const Call& call : calls) {
    for (const Range& range : call.filled()) {
      if (!in_use(range)) poison(range);
    }
  }
  if (is_summed_) sum_ = sum_of_sent();
}

std::uint64_t Group::sum_of_sent() const {
  std::uint64_t sum = 0xcbf29ce484222325ull;
  for (const Transfer& transfer : transfers_) {
    for (const Range& range : transfer.call().ranges()) {
      if (range.written || range.begin == nullptr) continue;
      const tessera::DeviceAccess reads("collective", range.begin,
                                        static_cast<std::int64_t>(range.bytes));
      sum = hash(sum, range.begin, range.bytes);
    }
  }
  return sum;
}

/// A communicator does its groups in the order in which they were given, whatever the streams.
bool Group::is_next() {
  while (!comm_.groups.empty()) {
    const std::shared_ptr<Group> first = comm_.groups.front().lock();
    if (first.get() == this) return true;
    if (first && !advance_until(*first)) return false;
    if (!comm_.groups.empty() && comm_.groups.front().lock() == first) comm_.groups.pop_front();
  }
  return true;
}

/// MPI may still write into what this object holds.
bool Group::give_up() {
  new std::deque<Transfer>(std::move(transfers_));
  transfers_.clear();
  comm_.groups.clear();
  return true;
}

void Group::fail(const std::string& text) { comm_.set_error(misuse(text), text); }

bool Group::advance() {
  if (comm_.stage == ncclComm::Stage::aborted || comm_.error != ncclSuccess) return give_up();
  if (!is_next()) return false;
  std::vector<tessera::DeviceAccess> uses;
  for (const Range& range : ranges) {
    uses.emplace_back("collective", range.begin, static_cast<std::int64_t>(range.bytes));
  }
  if (!started_) {
    started_ = true;
    if (is_summed_ && sum_of_sent() != sum_) {
      fail(fmt::format(
          "what '{}' sends was changed after the call, by work that does not wait for it", name));
      return give_up();
    }
    for (Transfer& transfer : transfers_) transfer.start_signatures();
  }
  for (; num_with_data_ < transfers_.size(); ++num_with_data_) {
    Transfer& next = transfers_[num_with_data_];
    if (!next.signatures_are_here()) return false;
    if (const std::string trouble = next.compare(); !trouble.empty()) {
      fail(trouble);
      return give_up();
    }
    next.start_data();
  }
  if (!std::all_of(transfers_.begin(), transfers_.end(),
                   [](Transfer& each) { return each.test_data(); })) {
    return false;
  }
  comm_.groups.pop_front();
  return true;
}

std::string Group::waits_for() const {
  for (std::size_t i = num_with_data_; i < transfers_.size(); ++i) {
    const std::vector<int> missing = transfers_[i].missing();
    if (missing.empty()) continue;
    std::vector<int> in_job;
    for (const int rank : missing)
      in_job.push_back(comm_.job_ranks[static_cast<std::size_t>(rank)]);
    return fmt::format("{} waits for rank {} ({} of the job)",
                       describe(transfers_[i].call().signature()), fmt::join(missing, ", "),
                       fmt::join(in_job, ", "));
  }
  return {};
}

}  // namespace nccl_double
