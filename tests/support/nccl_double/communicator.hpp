// SPDX-License-Identifier: Apache-2.0
// Communicators of the double, and how their ranks tell each other what they are about to do.
#pragma once

#include <mpi.h>

#include <optional>

#include "state.hpp"

namespace nccl_double {

enum class CallKind : std::int32_t {
  broadcast,
  all_reduce,
  reduce_scatter,
  all_gather,
  send,
  receive,
  split
};

/// What the other side of a call is told.
struct Signature {
  CallKind kind = CallKind::split;
  std::int32_t type = 0;
  std::int32_t op = 0;
  std::int32_t root = 0;
  std::int64_t count = 0;
  std::int64_t key = 0;      ///< of a split; its colour is `root`
  std::int64_t context = 0;  ///< of a split: proposed
};
/// "all_gather of 12 x f32". local.
std::string describe(const Signature& signature);
std::string type_name(std::int32_t type);
std::size_t type_bytes(std::int32_t type);

/// Messages of one communicator between two ranks do not overtake each other; these are apart.
enum class Channel { collective, collective_data, sender, receiver, peer_data, num_channels };
int tag_of(std::int64_t context, Channel channel);

/// Tells `peers` a signature and hears theirs.
class SignatureExchange {
 public:
  /// `peers`: ranks of `comm`, which hear it on channel `out`; theirs comes on `in`.
  void start(const ncclComm& comm, const std::vector<int>& peers, Channel out, Channel in,
             const Signature& mine);
  bool started() const { return !receives_.empty(); }
  bool test();
  const std::vector<int>& peers() const { return peers_; }
  const Signature& of(std::size_t peer_idx) const { return theirs_[peer_idx]; }
  /// Peers that have not said anything.
  std::vector<int> missing() const;

 private:
  std::vector<int> peers_;
  Signature mine_;
  std::vector<Signature> theirs_;
  std::vector<MPI_Request> receives_, sends_;
};

/// A communicator in the making by ncclCommSplit.
struct Split {
  ncclComm* made = nullptr;  ///< null without a colour
  int colour = 0;
  SignatureExchange exchange;
};

class Group;

}  // namespace nccl_double

struct ncclComm {
  enum class Stage { joining, ready, finalized, destroyed, aborted };
  Stage stage = Stage::joining;
  int rank = 0;
  int size = 1;
  std::vector<int> job_ranks;  ///< of its ranks
  std::int64_t context = -1;
  bool blocking = true;
  std::int64_t nonce = 0;  ///< of the identity that it is made from
  ncclResult_t error = ncclSuccess;
  std::string text;           ///< of the error, or of what it was last seen to wait for
  int polls_in_progress = 0;  ///< ncclCommGetAsyncError answers so often that a call goes on
  std::optional<nccl_double::Split> split;
  std::deque<std::weak_ptr<nccl_double::Group>> groups;  ///< given to a stream and not done

  std::string describe() const;
  /// All ranks but this one.
  std::vector<int> others() const;
  void set_error(ncclResult_t code, const std::string& what) {
    error = code;
    text = what;
  }
};

namespace nccl_double {

/// Whether calls may be made; misuse if not.
ncclResult_t check_usable(ncclComm_t comm, const char* call);

}  // namespace nccl_double
