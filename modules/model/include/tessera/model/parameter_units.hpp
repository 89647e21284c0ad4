// SPDX-License-Identifier: Apache-2.0
// The parameters of a model as ZeRO-3 units: one dense and one expert unit per layer, one for the
// embedding, one for the final norm with the output matrix. Names, shapes and where a checkpoint
// has them come from the family's map in share/families.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/parameter.hpp"
#include "comm/process_grid.hpp"
#include "tessera/model/config.hpp"
#include "tessera/zero3/unit.hpp"

namespace tessera::model {

struct ParameterUnit {
  std::string name;  ///< "embedding", "layers.3", "layers.3.expert", "head"
  bool is_expert = false;
  std::vector<Parameter> parameters;
  zero3::RowRange rows = {};  ///< of its one parameter: a chunk of the vocabulary
};

/// Whose tensor names a checkpoint has.
enum class Naming {
  hugging_face,  ///< as transformers writes them
  original,      ///< of the first release, where the family's map knows it (gpt-oss)
};

/// In the order of the forward pass. A layer without experts has no expert unit. local.
std::vector<ParameterUnit> parameter_units(const ModelConfig& config,
                                           Naming naming = Naming::hugging_face);

/// The naming that more of `tensor_names` follow. local.
Naming detect_naming(const ModelConfig& config, const std::vector<std::string>& tensor_names);

/// The units as they are gathered: the embedding and the output matrix in chunks of
/// config.vocabulary_chunk rows, each a unit of its own, where that is not 0. So no rank ever holds
/// such a matrix or its gradient whole. local.
std::vector<ParameterUnit> in_vocabulary_chunks(const ModelConfig& config,
                                                std::vector<ParameterUnit> units);

/// All parameters, in the order of the units. local.
std::vector<Parameter> all_parameters(const std::vector<ParameterUnit>& units);

/// Patterns of tensors that a checkpoint of this model may have and that are never read
/// (prediction layers, inv_freq), and of those that repeat another where embeddings are tied.
std::vector<std::string> ignored_tensors(const ModelConfig& config);
std::vector<std::string> tied_tensors(const ModelConfig& config);

/// The units with their placement: dense over all ranks, experts over the ranks that hold the same.
/// local.
std::vector<zero3::UnitSpec> place_units(const comm::ProcessGrid& grid, const ModelConfig& config,
                                         std::vector<ParameterUnit> units);

/// Where the units of a model lie in parameter_units().
class UnitIndex {
 public:
  static constexpr std::size_t embedding = 0;  ///< or its first chunk

  explicit UnitIndex(const ModelConfig& config);
  std::int64_t num_vocabulary_chunks() const { return num_chunks_; }
  std::size_t embedding_chunk(std::int64_t chunk) const {
    return embedding + static_cast<std::size_t>(chunk);
  }
  /// Of the matrix that gives the logits. @pre there are several chunks.
  std::size_t head_chunk(std::int64_t chunk) const {
    return first_head_chunk_ + static_cast<std::size_t>(chunk);
  }
  std::size_t dense(std::int64_t layer) const { return dense_[static_cast<std::size_t>(layer)]; }
  /// @pre the layer has experts.
  std::size_t expert(std::int64_t layer) const { return dense(layer) + 1; }
  std::size_t head() const { return head_; }

 private:
  std::vector<std::size_t> dense_;
  std::int64_t num_chunks_ = 1;
  std::size_t first_head_chunk_ = embedding;  // of the embedding, where that is tied
  std::size_t head_ = 0;
};

}  // namespace tessera::model
