// SPDX-License-Identifier: Apache-2.0
#include <tessera/model/batch.hpp>

#include "base/contract.hpp"
#include "base/error.hpp"
#include "kernel/cross_entropy.hpp"

namespace tessera::model {
namespace {

void check_range(const char* what, std::int64_t value, std::int64_t vocab_size,
                 std::int64_t position, std::int64_t length) {
  if (value >= 0 && value < vocab_size) return;
  fail(ErrorKind::format,
       "{} {} in row {} at position {} is outside the vocabulary of {} (0 to {})", what, value,
       position / length, position % length, vocab_size, vocab_size - 1);
}

}  // namespace

Batch make_batch(std::int64_t sequences, std::int64_t length, std::span<const std::int64_t> tokens,
                 std::span<const std::int64_t> labels, std::int64_t vocab_size) {
  const std::int64_t num_tokens = sequences * length;
  TESSERA_EXPECT(static_cast<std::int64_t>(tokens.size()) == num_tokens);
  TESSERA_EXPECT(static_cast<std::int64_t>(labels.size()) == num_tokens);
  Batch batch{sequences, length, kernel::new_vector<std::int32_t>("tokens", num_tokens),
              kernel::new_vector<std::int64_t>("targets", num_tokens), 0};
  const auto host_tokens = kernel::host_mirror(batch.tokens);
  const auto host_targets = kernel::host_mirror(batch.targets);
  for (std::int64_t i = 0; i < num_tokens; ++i) {
    check_range("token", tokens[i], vocab_size, i, length);
    host_tokens(i) = static_cast<std::int32_t>(tokens[i]);
    const bool last = i % length == length - 1;
    host_targets(i) = last ? kernel::ignored_label : labels[i + 1];
    if (host_targets(i) == kernel::ignored_label) continue;
    check_range("label", host_targets(i), vocab_size, i + 1, length);
    ++batch.num_targets;
  }
  Kokkos::deep_copy(batch.tokens, host_tokens);
  Kokkos::deep_copy(batch.targets, host_targets);
  return batch;
}

}  // namespace tessera::model
