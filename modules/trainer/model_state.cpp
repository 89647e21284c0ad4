// SPDX-License-Identifier: Apache-2.0
#include <optional>
#include <tessera/checkpoint/hugging_face.hpp>
#include <tessera/trainer/model_state.hpp>

#include "base/log.hpp"
#include "base/progress.hpp"
#include "initialize.hpp"
#include "tessera/trainer/checkpoint_directory.hpp"
#include "unit_parts.hpp"
#include "verify_shards.hpp"

namespace tessera::trainer {
namespace {

using checkpoint::exp_avg_group;
using checkpoint::exp_avg_sq_group;
using checkpoint::Hdf5Source;
using checkpoint::HuggingFaceSource;
using checkpoint::LoadReport;
using checkpoint::Origin;
using checkpoint::parameters_group;
using kernel::Vector;

template <class V>
std::span<typename V::value_type> span_of(const V& view) {
  return {view.data(), view.size()};
}

/// Reads what the source has of a unit into a host shard and initialises the rest.
LoadReport load_unit(const comm::ProcessGrid& grid, const ModelSource& model, std::size_t unit_idx,
                     const zero3::Unit& unit, std::span<float> shard,
                     const checkpoint::LoadOptions& options) {
  const UnitParts stored = stored_parts(model, unit_idx, unit.parameters(), unit.slices());
  for (const Slice& slice : unit.slices()) {
    if (model.has(*slice.parameter)) continue;
    const auto parameter_idx = static_cast<std::size_t>(slice.parameter - unit.parameters().data());
    const Parameter& parameter = model.units[unit_idx].parameters[parameter_idx];
    const auto how = checkpoint::initialisation_of(model.keys.allow_missing, parameter,
                                                   model.source->parts(parameter));
    initialize(slice, how, model.config.initializer_range, shard);
  }
  return model.source->load(grid, stored.parameters, stored.slices, shard, options);
}

/// One dataset per parameter of every unit, in `group`. Moments: of what is trained alone.
template <class T>
void add_datasets(const zero3::ParameterStore<T>& store, const ModelSource& model,
                  const char* group, std::vector<checkpoint::DatasetSpec>& datasets) {
  const bool are_moments = group != parameters_group;
  for (std::size_t i = 0; i < store.num_units(); ++i) {
    if (!store.unit(i).has_first_rows()) continue;
    for (const Parameter& parameter : store.unit(i).parameters()) {
      if (are_moments && !parameter.trainable) continue;
      datasets.push_back(
          {group, &parameter, Dtype::f32, are_moments ? Origin() : model.origin(parameter)});
    }
  }
}

void write_shard(checkpoint::Hdf5Writer& writer, const char* group,
                 const std::vector<Parameter>& parameters, const std::vector<Slice>& slices,
                 const Vector<float>& shard) {
  const auto host = kernel::host_copy(shard);
  writer.write(group, parameters, slices, std::span<const float>(host.data(), host.size()));
}

/// The family's tensors that need not be read go with what the user permits.
checkpoint::KeyOptions all_keys(const model::ModelConfig& config, checkpoint::KeyOptions keys) {
  keys.ignored = ignored_tensors(config);
  keys.tied = tied_tensors(config);
  return keys;
}

void warn_of_f64(const checkpoint::Source& source) {
  std::int64_t count = 0;
  std::string first;
  for (const checkpoint::TensorInfo& tensor : source.tensors()) {
    if (tensor.dtype == Dtype::f64 && count++ == 0) first = tensor.name;
  }
  if (count == 0) return;
  log_warning(
      "{}: {} tensors are f64 ('{}' and more) and are rounded to f32, Tessera's widest type",
      source.path().string(), count, first);
}

/// Whose names the tensors of a directory have; a Tessera file has transformers' always.
model::Naming naming_of(const ModelSource& model) {
  std::vector<std::string> names;
  for (const checkpoint::TensorInfo& tensor : model.source->tensors()) names.push_back(tensor.name);
  return model::detect_naming(model.config, names);
}

/// Bytes of the checkpoint that hold the model.
std::int64_t stored_bytes(const ModelSource& model) {
  std::int64_t bytes = 0;
  for (const Parameter& parameter : all_parameters(model.units))
    if (model.has(parameter)) bytes += model.source->stored_bytes(parameter);
  return bytes;
}

/// Those of this rank's slices of a unit.
std::int64_t stored_bytes(const ModelSource& model, std::size_t unit_idx, const zero3::Unit& unit) {
  double bytes = 0.0;
  for (const Slice& slice : stored_parts(model, unit_idx, unit.parameters(), unit.slices()).slices)
    bytes += static_cast<double>(model.source->stored_bytes(*slice.parameter)) *
             static_cast<double>(slice.size()) / static_cast<double>(slice.parameter->size());
  return static_cast<std::int64_t>(bytes);
}

std::int64_t num_owned(const zero3::Unit& unit) {
  std::int64_t sum = 0;
  for (const Slice& slice : unit.slices()) sum += slice.size();
  return sum;
}

/// A bar for the shards of all units; `bytes_of(unit)` are this rank's, `total_bytes` those of all.
template <class T, class BytesOf>
ProgressBar bar_for(const char* what, const zero3::ParameterStore<T>& store,
                    std::int64_t total_bytes, BytesOf&& bytes_of) {
  std::int64_t own_bytes = 0;
  for (std::size_t i = 0; i < store.num_units(); ++i) own_bytes += bytes_of(i);
  return {what, own_bytes, total_bytes};
}

/// Elements of all shards together.
template <class T>
std::int64_t num_elements_of_all(const zero3::ParameterStore<T>& store) {
  std::int64_t sum = 0;
  for (std::size_t i = 0; i < store.num_units(); ++i) {
    if (!store.unit(i).has_first_rows()) continue;
    for (const Parameter& parameter : store.unit(i).parameters()) sum += parameter.size();
  }
  return sum;
}

}  // namespace

Origin ModelSource::origin(const Parameter& parameter) const {
  const auto found = origins.find(parameter.name);
  return found == origins.end() ? Origin() : found->second;
}

checkpoint::EmbeddedFiles exported_files(const ModelSource& model,
                                         std::span<const Parameter> parameters,
                                         const checkpoint::Origins& origins,
                                         const checkpoint::ExportOptions& options) {
  checkpoint::EmbeddedFiles files = model.files;
  files["config.json"] = model::hugging_face_config(model.source->config_json(),
                                                    exports_mxfp4(parameters, origins, options));
  return files;
}

ModelSource describe_model(const comm::Communicator& world, const std::filesystem::path& path,
                           const checkpoint::KeyOptions& keys) {
  ModelSource model;
  model.source = checkpoint::Source::open(world, model_path(world, path));
  model.config = model::parse_config(model.source->config_json(), path.string());
  model.keys = all_keys(model.config, keys);
  model.units = in_vocabulary_chunks(model.config, parameter_units(model.config, naming_of(model)));
  if (const auto* tessera = dynamic_cast<const Hdf5Source*>(model.source.get())) {
    model.files = tessera->files();
    model.training = tessera->state();
  } else if (const auto* directory = dynamic_cast<const HuggingFaceSource*>(model.source.get())) {
    model.files = directory->files();
  }
  return model;
}

ModelSource open_model(const comm::Communicator& world, const std::filesystem::path& path,
                       const checkpoint::KeyOptions& keys) {
  ModelSource model = describe_model(world, path, keys);
  const std::vector<Parameter> parameters = all_parameters(model.units);
  require_keys(*model.source, parameters, model.keys);
  warn_of_f64(*model.source);
  for (const Parameter& parameter : parameters) {
    if (model.source->has(parameter)) {
      model.origins[parameter.name] = model.source->origin(parameter);
    }
  }
  return model;
}

template <class T>
zero3::ParameterStore<T> make_store(const comm::ProcessGrid& grid, const model::ModelConfig& config,
                                    zero3::GradientTransport transport) {
  return zero3::ParameterStore<T>(
      place_units(grid, config, in_vocabulary_chunks(config, parameter_units(config))), transport);
}

template <class T>
LoadReport load_parameters(const comm::ProcessGrid& grid, ModelSource& model,
                           zero3::ParameterStore<T>& store, const checkpoint::LoadOptions& options,
                           Verify verify, const BeforeUnit& before_unit) {
  require_tied(grid, model);
  std::optional<ShardProof> proof;
  checkpoint::LoadOptions load = options;
  load.scales = &model.scales;
  if (verify == Verify::yes) load.fingerprints = proof.emplace(model).read();
  LoadReport report;
  store.open_masters();
  const auto bytes_of = [&](std::size_t i) { return stored_bytes(model, i, store.unit(i)); };
  ProgressBar bar = bar_for("loading", store, stored_bytes(model), bytes_of);
  for (std::size_t i = 0; i < store.num_units(); ++i) {
    before_unit();
    const zero3::Unit& unit = store.unit(i);
    const auto host = kernel::host_mirror(unit.master());
    report += load_unit(grid, model, i, unit, span_of(host), load);
    Kokkos::deep_copy(unit.master(), host);
    bar.add(bytes_of(i));
  }
  if (!proof) return report;
  for (std::size_t i = 0; i < store.num_units(); ++i) {
    const zero3::Unit& unit = store.unit(i);
    const auto host = kernel::host_copy(unit.master());
    proof->add(stored_parts(model, i, unit.parameters(), unit.slices()), span_of(host));
  }
  proof->require(grid.world());
  return report;
}

template <class T>
LoadReport load_optimizer(const comm::ProcessGrid& grid, Hdf5Source& source,
                          zero3::ParameterStore<T>& store, const checkpoint::LoadOptions& options,
                          const BeforeUnit& before_unit) {
  LoadReport report;
  if (source.state().optimizer != "adamw") return report;  // plain SGD has no state
  for (std::size_t i = 0; i < store.num_units(); ++i) {
    before_unit();
    zero3::Unit& unit = store.unit(i);
    unit.allocate_moments();
    const UnitParts parts = trainable(unit);
    for (const auto& [group, shard] : {std::pair(exp_avg_group, unit.exp_avg()),
                                       std::pair(exp_avg_sq_group, unit.exp_avg_sq())}) {
      const auto host = kernel::host_mirror(shard);
      report +=
          source.load_group(grid, group, parts.parameters, parts.slices, span_of(host), options);
      Kokkos::deep_copy(shard, host);
    }
  }
  return report;
}

template <class T>
std::int64_t save_checkpoint(const comm::ProcessGrid& grid, const zero3::ParameterStore<T>& store,
                             const std::filesystem::path& path,
                             const checkpoint::TrainingState& state, const ModelSource& model,
                             std::span<const checkpoint::Field> fields) {
  const bool with_moments = state.optimizer == "adamw";
  std::vector<checkpoint::DatasetSpec> datasets;
  add_datasets(store, model, parameters_group, datasets);
  if (with_moments) {
    add_datasets(store, model, exp_avg_group, datasets);
    add_datasets(store, model, exp_avg_sq_group, datasets);
  }
  checkpoint::Hdf5Writer writer(grid.world(), path, datasets, state, model.files);
  const std::int64_t element_bytes = with_moments ? 12 : 4;
  const auto bytes_of = [&](std::size_t i) { return element_bytes * num_owned(store.unit(i)); };
  ProgressBar bar = bar_for("saving", store, element_bytes * num_elements_of_all(store), bytes_of);
  for (std::size_t i = 0; i < store.num_units(); ++i) {
    const zero3::Unit& unit = store.unit(i);
    write_shard(writer, parameters_group, unit.parameters(), unit.slices(), unit.master());
    writer.write_scales(unit.parameters(), unit.slices(), model.scales);
    if (with_moments) {
      const UnitParts parts = trainable(unit);
      write_shard(writer, exp_avg_group, parts.parameters, parts.slices, unit.exp_avg());
      write_shard(writer, exp_avg_sq_group, parts.parameters, parts.slices, unit.exp_avg_sq());
    }
    bar.add(bytes_of(i));
  }
  writer.write_fields(fields);
  writer.commit();
  return writer.written_bytes();
}

checkpoint::Origins export_origins(const ModelSource& model, std::int64_t num_steps) {
  checkpoint::Origins origins = model.origins;
  for (auto& [name, origin] : origins) {
    if (num_steps > 0 && origin.mxfp4) origin = Origin();
  }
  return origins;
}

template <class T>
std::int64_t save_hugging_face(const comm::ProcessGrid& grid, const zero3::ParameterStore<T>& store,
                               const std::filesystem::path& directory, const ModelSource& model,
                               std::int64_t num_steps, const checkpoint::ExportOptions& options) {
  const checkpoint::Origins origins = export_origins(model, num_steps);
  const std::vector<Parameter> parameters = all_parameters(parameter_units(model.config));
  checkpoint::HuggingFaceWriter writer(grid.world(), directory, parameters, origins,
                                       exported_files(model, parameters, origins, options),
                                       options);
  constexpr std::int64_t element_bytes = 2;  // of bf16, as most exports are
  const auto bytes_of = [&](std::size_t i) { return element_bytes * num_owned(store.unit(i)); };
  ProgressBar bar =
      bar_for("exporting", store, element_bytes * num_elements_of_all(store), bytes_of);
  for (std::size_t i = 0; i < store.num_units(); ++i) {
    const zero3::Unit& unit = store.unit(i);
    const auto host = kernel::host_copy(unit.master());
    writer.write(unit.slices(), std::span<const float>(host.data(), host.size()), model.scales);
    bar.add(bytes_of(i));
  }
  writer.commit();
  return writer.written_bytes();
}

#define TESSERA_INSTANTIATE(T)                                                                   \
  template zero3::ParameterStore<T> make_store(                                                  \
      const comm::ProcessGrid&, const model::ModelConfig&, zero3::GradientTransport);            \
  template LoadReport load_parameters(const comm::ProcessGrid&, ModelSource&,                    \
                                      zero3::ParameterStore<T>&, const checkpoint::LoadOptions&, \
                                      Verify, const BeforeUnit&);                                \
  template LoadReport load_optimizer(const comm::ProcessGrid&, Hdf5Source&,                      \
                                     zero3::ParameterStore<T>&, const checkpoint::LoadOptions&,  \
                                     const BeforeUnit&);                                         \
  template std::int64_t save_checkpoint(                                                         \
      const comm::ProcessGrid&, const zero3::ParameterStore<T>&, const std::filesystem::path&,   \
      const checkpoint::TrainingState&, const ModelSource&, std::span<const checkpoint::Field>); \
  template std::int64_t save_hugging_face(                                                       \
      const comm::ProcessGrid&, const zero3::ParameterStore<T>&, const std::filesystem::path&,   \
      const ModelSource&, std::int64_t, const checkpoint::ExportOptions&);
TESSERA_INSTANTIATE(float)
TESSERA_INSTANTIATE(bf16)
#undef TESSERA_INSTANTIATE

}  // namespace tessera::trainer
