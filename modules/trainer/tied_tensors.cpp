// SPDX-License-Identifier: Apache-2.0
#include <tessera/trainer/model_state.hpp>

#include "base/block_distribution.hpp"
#include "base/error.hpp"
#include "comm/agree.hpp"

namespace tessera::trainer {
namespace {

/// This rank's one of equal parts.
std::vector<float> read_part(const comm::ProcessGrid& grid, const ModelSource& model,
                             const Parameter& parameter) {
  const BlockDistribution parts{parameter.size(), grid.world().size()};
  const std::int64_t rank = grid.world().rank();
  std::vector<float> values(static_cast<std::size_t>(parts.count(rank)));
  std::vector<Slice> slices;
  if (!values.empty()) slices.push_back({&parameter, parts.begin(rank), parts.end(rank), 0});
  model.source->load(grid, std::span(&parameter, 1), slices, values, {});
  return values;
}

}  // namespace

void require_tied(const comm::ProcessGrid& grid, const ModelSource& model) {
  const Parameter& repeated = model.units[model::UnitIndex::embedding].parameters.front();
  for (const std::string& name : model.keys.tied) {
    if (model.source->find(name) == nullptr || !model.has(repeated)) continue;
    Parameter tied = repeated;
    tied.name = name;
    const bool fits = model.source->has(tied);
    const bool is_same = fits && read_part(grid, model, tied) == read_part(grid, model, repeated);
    comm::agreed(grid.world(), "compare tied tensors", [&] {
      if (is_same) return;
      fail(ErrorKind::keys,
           "{}: config.json ties the embeddings, but '{}' has another {} than '{}' (one of them "
           "would be lost); set tie_word_embeddings to false, or remove '{}' from the checkpoint",
           model.source->path().string(), name, fits ? "content" : "shape", repeated.name, name);
    });
  }
}

}  // namespace tessera::trainer
