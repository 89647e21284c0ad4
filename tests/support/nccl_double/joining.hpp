// SPDX-License-Identifier: Apache-2.0
// How processes that hold the same identity find each other.
#pragma once

#include "communicator.hpp"

namespace nccl_double {

constexpr int max_ranks = 64;

/// What an identity holds.
struct Identity {
  std::int32_t root;  ///< rank in the job
  std::int64_t nonce;
};

struct Join {
  std::int64_t nonce;
  std::int32_t rank, size, job_rank;
};

/// Of a communicator that this process names. local.
std::int64_t new_context();
void send_join(const Join& join, int root);
/// Answers those who join where this process is the root; joins answer alike once all are here.
void serve_joins();
/// Communicators whose root has answered are ready, or refused.
void take_welcomes();

}  // namespace nccl_double
