// SPDX-License-Identifier: Apache-2.0
// Checked mode: before a collective starts, the ranks tell rank 0 what they are about to do over a
// communicator of their own, and go on only if all are about to do the same.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "comm/wait.hpp"

namespace tessera::comm {

/// The part of a call that must be the same on all ranks, beside its name.
struct CallFingerprint {
  OperationKind operation;
  Dtype dtype;
  std::int64_t count;   ///< -1: may differ between ranks
  std::int32_t detail;  ///< root, reduction
};

class CallChecker {
 public:
  /// Takes over `own`, a duplicate that nothing else uses. local.
  explicit CallChecker(MPI_Comm own);
  ~CallChecker();
  CallChecker(const CallChecker&) = delete;
  CallChecker& operator=(const CallChecker&) = delete;

  /// Throws Error::communication on all ranks alike if the calls differ (both are named) or if a
  /// rank has not come by the deadline (it is named). collective over the communicator.
  void check(const CallSite& site, const CallFingerprint& call);

  /// A rank was missing: who is where is not known any more, and no further check can work. local.
  bool broken() const { return broken_; }

 private:
  struct Record;
  void judge(const CallSite& site, const Record& own);
  void report(const CallSite& site, const Record& own);
  std::vector<int> missing_ranks(const CallSite& site, std::vector<Record>& records);
  void send_verdict(char kind, const std::string& text);

  MPI_Comm comm_;
  std::int64_t sequence_ = 0;
  bool broken_ = false;
};

}  // namespace tessera::comm
