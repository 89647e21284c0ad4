// SPDX-License-Identifier: Apache-2.0
// Compares what a model expects with what a checkpoint has, from headers alone.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "tessera/checkpoint/source.hpp"

namespace tessera::checkpoint {

/// What may differ, by name; `*` matches any text.
struct KeyOptions {
  /// The user's: "PATTERN", or "PATTERN=zeros|ones|normal" to say how it is then initialised.
  std::vector<std::string> allow_missing;
  std::vector<std::string> allow_unexpected;  ///< the user's
  /// The family's: tensors that this model never reads (DeepSeek's prediction layer, inv_freq).
  std::vector<std::string> ignored;
  /// The model's: tensors that repeat another (lm_head.weight where embeddings are tied).
  std::vector<std::string> tied;
};

struct KeyReport {
  std::int64_t num_fitting = 0;         ///< stored parts that are there as they should be
  std::vector<std::string> missing;     ///< names, sorted
  std::vector<std::string> unexpected;  ///< names, sorted
  std::vector<std::string>
      mismatched;  ///< "name: checkpoint has bf16 [8, 4], the model needs [8, 5]"
  std::vector<std::string> allowed_missing;
  std::vector<std::string> allowed_unexpected;
  std::vector<std::string> ignored;  ///< present and never read, as the family says
  std::vector<std::string> tied;     ///< present and a repetition of another tensor

  bool ok() const { return missing.empty() && unexpected.empty() && mismatched.empty(); }
  /// All lists, one entry a line, long lists cut with their count.
  std::string describe() const;
};

/// How a parameter that the checkpoint lacks gets its values.
enum class Initialisation { as_model, zeros, ones, normal };

/// What the first entry of `allow_missing` that covers all of the parameter says: its pattern
/// matches the parameter's name or the names of all of its stored parts. as_model where the entry
/// says nothing or no entry covers it. Throws Error::usage for an entry that ends in another word
/// after its `=`. local.
Initialisation initialisation_of(const std::vector<std::string>& allow_missing,
                                 const Parameter& parameter, std::span<const StoredPart> parts);

/// Names are those of the checkpoint: each stored part of a parameter is expected by itself, as
/// plain tensor, as `_blocks` and `_scales` (MXFP4) or with `_scale_inv` (FP8); a weight that is
/// there in two encodings is a mismatch. A parameter may be missing as a whole only: parts of it
/// that are missing beside others are a mismatch where the user allows them to be missing. local;
/// the same on every rank because headers are. Throws Error::usage for a faulty entry of
/// `allow_missing`.
KeyReport compare_keys(const Source& source, std::span<const Parameter> parameters,
                       const KeyOptions& options);
/// Throws Error::keys with the whole report unless it is ok; warns of what was allowed. Before any
/// tensor byte is read. local, identical on all ranks.
void require_keys(const Source& source, std::span<const Parameter> parameters,
                  const KeyOptions& options);

}  // namespace tessera::checkpoint
