// SPDX-License-Identifier: Apache-2.0
// Calls that were made together, from their checks to their data.
#pragma once

#include "communicator.hpp"

namespace nccl_double {

/// One call of NCCL as it was made.
struct Call {
  CallKind kind = CallKind::broadcast;
  const void* send = nullptr;
  void* receive = nullptr;
  std::int64_t count = 0;
  std::int32_t type = ncclFloat32;
  std::int32_t op = ncclSum;
  int root = 0;  ///< or peer
  ncclComm_t comm = nullptr;
  cudaStream_t stream = nullptr;

  std::size_t bytes() const { return static_cast<std::size_t>(count) * type_bytes(type); }
  /// All that it reads and writes.
  std::vector<Range> ranges() const;
  /// All that only others fill: what is there now is lost.
  std::vector<Range> filled() const;
  Signature signature() const;
};

/// What is wrong with the call by itself, or empty.
std::string find_fault(const Call& call);
/// What is wrong between two calls of a group, or empty.
std::string find_conflict(const Call& call, const Call& other);
/// Why two ranks' signatures of one call do not fit, or empty.
std::string find_mismatch(const Call& mine, int my_rank, const Signature& theirs, int their_rank);

/// The data of one call under way.
class Transfer {
 public:
  explicit Transfer(Call call) : call_(call) {}
  const Call& call() const { return call_; }
  void start_signatures();
  bool signatures_are_here() { return exchange_.test(); }
  /// Empty, or what does not fit.
  std::string compare() const;
  /// Ranks that have not said that they make this call: before its start all that take part.
  std::vector<int> missing() const { return exchange_.started() ? exchange_.missing() : peers(); }
  void start_data();
  bool test_data();

 private:
  std::vector<int> peers() const;
  void receive(void* to, std::size_t bytes, int rank);
  void post(const void* from, std::size_t bytes, int rank);
  std::byte* buffer_of(int rank);
  void start_broadcast(const std::vector<int>& others);
  void reduce(const std::byte* own, std::byte* result);

  Call call_;
  SignatureExchange exchange_;
  std::vector<MPI_Request> requests_;
  std::vector<std::byte> parts_;  ///< of other ranks, where they are summed
  bool finished_ = false;
};

/// Calls of one communicator between ncclGroupStart and ncclGroupEnd, or one alone.
class Group final : public Work {
 public:
  Group(ncclComm& comm, const std::vector<Call>& calls);
  bool advance() override;
  /// "ncclAllGather of 3 x f32 waits for rank 1", or empty. local.
  std::string waits_for() const;

 private:
  bool is_next();
  void fail(const std::string& text);
  bool give_up();
  std::uint64_t sum_of_sent() const;

  ncclComm& comm_;
  std::deque<Transfer> transfers_;
  std::size_t num_with_data_ = 0;
  bool started_ = false;
  bool is_summed_ = false;  ///< nothing else touched what is sent when it was given to the stream
  std::uint64_t sum_ = 0;
};

}  // namespace nccl_double
