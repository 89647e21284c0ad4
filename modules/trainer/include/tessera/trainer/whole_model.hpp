// SPDX-License-Identifier: Apache-2.0
// A checkpoint opened as a whole model, to be carried on into another file.
#pragma once

#include <filesystem>
#include <vector>

#include "tessera/trainer/model_state.hpp"

namespace tessera::trainer {

/// A model and those of its parameters that the checkpoint has; allowed ones may be missing.
struct WholeModel {
  ModelSource model;
  std::vector<Parameter> stored;  ///< with the tensor names that the checkpoint has
  std::vector<Parameter> named;   ///< the same ones with transformers' tensor names

  checkpoint::Source& source() const { return *model.source; }
};

/// Takes over what describe_model() or open_model() has given. local.
WholeModel whole_model(ModelSource model);

/// The datasets of a Tessera file that holds it, each in the element type that holds all of the
/// parameter exactly. Refers to `whole`. local.
std::vector<checkpoint::DatasetSpec> dataset_specs(const WholeModel& whole);

/// Throws Error::file unless it is a Hugging Face directory, which alone can be imported. local.
void require_directory(const WholeModel& whole);

}  // namespace tessera::trainer
