// SPDX-License-Identifier: Apache-2.0
#include <tessera/checkpoint/hugging_face.hpp>
#include <tessera/trainer/whole_model.hpp>

#include "base/contract.hpp"
#include "tessera/model/parameter_units.hpp"

namespace tessera::trainer {
namespace {

/// The element type that holds all of its parts exactly.
Dtype common_dtype(const checkpoint::Origin& origin) {
  if (origin.mxfp4) return Dtype::bf16;
  Dtype common = origin.dtypes.front();
  for (const Dtype dtype : origin.dtypes) {
    // f16 and bf16 have the same size, and neither holds the other.
    if (size_of(dtype) > size_of(common)) common = dtype;
    if (size_of(dtype) == size_of(common) && dtype != common) common = Dtype::f32;
  }
  return common;
}

}  // namespace

WholeModel whole_model(ModelSource model) {
  WholeModel whole;
  const std::vector<Parameter> stored = model::all_parameters(model.units);
  const std::vector<Parameter> named = model::all_parameters(model::parameter_units(model.config));
  TESSERA_EXPECT(stored.size() == named.size());
  for (std::size_t k = 0; k < stored.size(); ++k) {
    TESSERA_EXPECT(stored[k].name == named[k].name);
    if (!model.source->has(stored[k])) continue;
    whole.stored.push_back(stored[k]);
    whole.named.push_back(named[k]);
  }
  whole.model = std::move(model);
  return whole;
}

std::vector<checkpoint::DatasetSpec> dataset_specs(const WholeModel& whole) {
  std::vector<checkpoint::DatasetSpec> specs;
  for (const Parameter& parameter : whole.named) {
    const checkpoint::Origin& origin = whole.model.origins.at(parameter.name);
    specs.push_back({"parameters", &parameter, common_dtype(origin), origin});
  }
  return specs;
}

void require_directory(const WholeModel& whole) {
  if (dynamic_cast<const checkpoint::HuggingFaceSource*>(&whole.source()) != nullptr) return;
  fail(ErrorKind::file, "{} is a {} already; import reads a Hugging Face directory",
       whole.source().path().string(), whole.source().kind());
}

}  // namespace tessera::trainer
