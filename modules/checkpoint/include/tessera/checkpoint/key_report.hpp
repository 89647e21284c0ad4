// SPDX-License-Identifier: Apache-2.0
// Compares what a model expects with what a checkpoint has, from headers alone.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "tessera/checkpoint/source.hpp"

namespace tessera::checkpoint {

/// What the user permits, by name; `*` matches any text.
struct KeyOptions {
  std::vector<std::string> allow_missing;
  std::vector<std::string> allow_unexpected;
};

struct KeyReport {
  std::vector<std::string> missing;     ///< names, sorted
  std::vector<std::string> unexpected;  ///< names, sorted
  std::vector<std::string>
      mismatched;  ///< "name: checkpoint has bf16 [8, 4], the model needs [8, 5]"
  std::vector<std::string> allowed_missing;
  std::vector<std::string> allowed_unexpected;

  bool ok() const { return missing.empty() && unexpected.empty() && mismatched.empty(); }
  /// All lists, one entry a line, long lists cut with their count.
  std::string describe() const;
};

/// local; the same on every rank because headers are.
KeyReport compare_keys(const Source& source, std::span<const Parameter> parameters,
                       const KeyOptions& options);
/// Throws Error::keys with the whole report unless it is ok; warns of what was allowed. Before any
/// tensor byte is read. local, identical on all ranks.
void require_keys(const Source& source, std::span<const Parameter> parameters,
                  const KeyOptions& options);

}  // namespace tessera::checkpoint
