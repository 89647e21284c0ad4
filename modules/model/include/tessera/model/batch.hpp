// SPDX-License-Identifier: Apache-2.0
// The tokens of one micro-step on this rank.
#pragma once

#include <cstdint>
#include <span>

#include "kernel/view.hpp"

namespace tessera::model {

/// B sequences of S positions; T = B * S. B may be 0 (fewer rows than ranks).
struct Batch {
  std::int64_t sequences = 0;
  std::int64_t length = 0;
  kernel::Vector<std::int32_t> tokens;  ///< [T]
  kernel::Vector<std::int64_t>
      targets;  ///< [T] the next position's label; ignored_label at the end of a row
  std::int64_t num_targets = 0;  ///< targets that take part in the loss

  std::int64_t num_tokens() const { return sequences * length; }
};

/// tokens, labels [B, S] row-major on the host. Shifts labels by one as transformers does. local.
/// Throws Error::format naming row and position of a token or label outside the vocabulary.
Batch make_batch(std::int64_t sequences, std::int64_t length, std::span<const std::int64_t> tokens,
                 std::span<const std::int64_t> labels, std::int64_t vocab_size);

}  // namespace tessera::model
