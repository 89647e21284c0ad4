// SPDX-License-Identifier: Apache-2.0
#include "tessera/checkpoint/export_plan.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "safetensors_header.hpp"

namespace tessera::checkpoint {
namespace {

using TensorIndex = std::map<std::string, std::size_t>;

/// Two parameters may share a tensor; then they agree on what it is.
std::size_t add_tensor(ExportPlan& plan, TensorIndex& index, ExportTensor tensor) {
  const auto [found, is_new] = index.emplace(tensor.name, plan.tensors.size());
  if (is_new) {
    plan.tensors.push_back(std::move(tensor));
    return found->second;
  }
  const ExportTensor& present = plan.tensors[found->second];
  if (present.shape != tensor.shape || present.dtype != tensor.dtype)
    fail(ErrorKind::internal, "'{}' would be written as {} {} and as {} {}", tensor.name,
         to_string(present.dtype), to_string(present.shape), to_string(tensor.dtype),
         to_string(tensor.shape));
  return found->second;
}

void require_mxfp4_shape(const Parameter& parameter) {
  if (parameter.shape.size() == 3 && parameter.stored_parts().size() == 1 &&
      parameter.shape[2] % mxfp4_block_elements == 0)
    return;
  fail(ErrorKind::usage,
       "'{}' {} cannot be written as MXFP4 (its input dimension is not a multiple of {}) export "
       "with bf16 experts",
       parameter.name, to_string(parameter.checkpoint_shape()), mxfp4_block_elements);
}

ExportParameter plan_mxfp4(ExportPlan& plan, TensorIndex& index, const Parameter& parameter) {
  require_mxfp4_shape(parameter);
  const Shape scales = {parameter.shape[0], parameter.shape[1],
                        parameter.shape[2] / mxfp4_block_elements};
  Shape blocks = scales;
  blocks.push_back(mxfp4_block_bytes);
  const std::string name = parameter.stored_parts().front().tensor;
  const std::size_t first =
      add_tensor(plan, index, {name + "_blocks", Dtype::u8, std::move(blocks)});
  add_tensor(plan, index, {name + "_scales", Dtype::u8, scales});
  return {parameter.shape, false, true, {{0, parameter.size(), 0, first}}};
}

ExportParameter plan_plain(ExportPlan& plan, TensorIndex& index, const Parameter& parameter,
                           const std::vector<Dtype>& dtypes) {
  const std::vector<StoredPart> parts = parameter.stored_parts();
  if ((dtypes.size() != 1 && dtypes.size() != parts.size()) ||
      (parameter.transposed && parts.size() != 1))
    fail(ErrorKind::internal, "'{}' has {} parts and {} element types", parameter.name,
         parts.size(), dtypes.size());
  ExportParameter result{parameter.shape, parameter.transposed, false, {}};
  for (std::size_t k = 0; k < parts.size(); ++k) {
    const StoredPart& part = parts[k];
    const Dtype dtype = dtypes[dtypes.size() == 1 ? 0 : k];
    const std::size_t tensor = add_tensor(plan, index, {part.tensor, dtype, part.shape});
    result.parts.push_back({part.begin, part.size, part.tensor_begin, tensor});
  }
  return result;
}

Origin origin_of(const Parameter& parameter, const Origins& origins) {
  const auto found = origins.find(parameter.name);
  return found == origins.end() ? Origin{} : found->second;
}

bool becomes_mxfp4(const Parameter& parameter, const Origins& origins, ExpertFormat format) {
  if (!parameter.may_be_mxfp4 || format == ExpertFormat::bf16) return false;
  return format == ExpertFormat::mxfp4 || origin_of(parameter, origins).mxfp4;
}

void add_parameter(ExportPlan& plan, TensorIndex& index, const Parameter& parameter,
                   const Origins& origins, ExpertFormat format) {
  const Origin origin = origin_of(parameter, origins);
  const bool to_bf16 = origin.mxfp4 || (format == ExpertFormat::bf16 && parameter.is_expert);
  plan.parameters[parameter.name] =
      becomes_mxfp4(parameter, origins, format)
          ? plan_mxfp4(plan, index, parameter)
          : plan_plain(plan, index, parameter, to_bf16 ? std::vector{Dtype::bf16} : origin.dtypes);
  if (parameter.trainable) plan.num_parameters += parameter.size();
}

/// Indices of the tensors of each file.
std::vector<std::vector<std::size_t>> split(const std::vector<ExportTensor>& tensors,
                                            std::int64_t max_bytes) {
  std::vector<std::vector<std::size_t>> files;
  std::vector<std::size_t> current;
  std::int64_t current_bytes = 0;
  for (std::size_t k = 0; k < tensors.size(); ++k) {
    if (tensors[k].bytes() > max_bytes) {
      files.push_back({k});
      continue;
    }
    if (current_bytes + tensors[k].bytes() > max_bytes) {
      files.push_back(std::exchange(current, {}));
      current_bytes = 0;
    }
    current.push_back(k);
    current_bytes += tensors[k].bytes();
  }
  if (!current.empty()) files.push_back(std::move(current));
  return files;
}

/// Wide elements first, as the safetensors library orders them: each tensor is aligned to its own.
ExportFile lay_out(std::vector<ExportTensor>& tensors, std::vector<std::size_t> members,
                   std::size_t file, std::string name) {
  std::sort(members.begin(), members.end(), [&](std::size_t a, std::size_t b) {
    const std::size_t width_a = size_of(tensors[a].dtype), width_b = size_of(tensors[b].dtype);
    return width_a != width_b ? width_a > width_b : tensors[a].name < tensors[b].name;
  });
  std::vector<SafetensorsTensor> described;
  std::int64_t end = 0;
  for (const std::size_t k : members) {
    const std::int64_t begin = std::exchange(end, end + tensors[k].bytes());
    described.push_back({tensors[k].name, tensors[k].dtype, tensors[k].shape, begin, end});
  }
  ExportFile result{std::move(name), safetensors_header(described), 0};
  result.bytes = std::int64_t(result.header.size()) + end;
  for (std::size_t i = 0; i < members.size(); ++i) {
    tensors[members[i]].file = file;
    tensors[members[i]].offset_bytes =
        std::int64_t(result.header.size()) + described[i].begin_bytes;
  }
  return result;
}

void require_mxfp4_family(std::span<const Parameter> parameters) {
  const auto is_possible = [](const Parameter& parameter) { return parameter.may_be_mxfp4; };
  if (std::any_of(parameters.begin(), parameters.end(), is_possible)) return;
  const auto expert = std::find_if(parameters.begin(), parameters.end(),
                                   [](const Parameter& parameter) { return parameter.is_expert; });
  if (expert == parameters.end())
    fail(ErrorKind::usage, "experts as MXFP4: the model has no experts");
  fail(ErrorKind::usage,
       "experts as MXFP4: '{}' has no MXFP4 form in this model's family (transformers could not "
       "read it) export with bf16 experts",
       expert->name);
}

}  // namespace

std::int64_t ExportPlan::total_bytes() const {
  std::int64_t sum = 0;
  for (const ExportTensor& tensor : tensors) sum += tensor.bytes();
  return sum;
}

std::string ExportPlan::index_json() const {
  if (files.size() == 1) return "";
  nlohmann::ordered_json index = {
      {"metadata", {{"total_parameters", num_parameters}, {"total_size", total_bytes()}}},
      {"weight_map", nlohmann::ordered_json::object()}};
  std::map<std::string, std::string> sorted;
  for (const ExportTensor& tensor : tensors) sorted[tensor.name] = files[tensor.file].name;
  for (const auto& [tensor, file] : sorted) index["weight_map"][tensor] = file;
  return index.dump(2) + "\n";
}

ExportPlan plan_export(std::span<const Parameter> parameters, const Origins& origins,
                       const ExportOptions& options) {
  if (options.experts == ExpertFormat::mxfp4) require_mxfp4_family(parameters);
  ExportPlan plan;
  TensorIndex index;
  for (const Parameter& parameter : parameters)
    add_parameter(plan, index, parameter, origins, options.experts);
  const auto files = split(plan.tensors, options.max_shard_bytes);
  for (std::size_t k = 0; k < files.size(); ++k) {
    const std::string suffix =
        files.size() == 1 ? "" : fmt::format("-{:05}-of-{:05}", k + 1, files.size());
    plan.files.push_back(
        lay_out(plan.tensors, files[k], k, fmt::format("model{}.safetensors", suffix)));
  }
  return plan;
}

bool exports_mxfp4(std::span<const Parameter> parameters, const Origins& origins,
                   const ExportOptions& options) {
  return std::any_of(parameters.begin(), parameters.end(), [&](const Parameter& parameter) {
    return becomes_mxfp4(parameter, origins, options.experts);
  });
}

}  // namespace tessera::checkpoint
