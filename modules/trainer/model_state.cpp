// SPDX-License-Identifier: Apache-2.0
#include <tessera/checkpoint/hugging_face.hpp>
#include <tessera/trainer/model_state.hpp>

#include "base/log.hpp"
#include "initialize.hpp"
#include "tessera/model/parameter_units.hpp"

namespace tessera::trainer {
namespace {

using checkpoint::Hdf5Source;
using checkpoint::HuggingFaceSource;
using checkpoint::LoadReport;
using kernel::Vector;

constexpr const char* parameters_group = "parameters";
constexpr const char* exp_avg_group = "optimizer/exp_avg";
constexpr const char* exp_avg_sq_group = "optimizer/exp_avg_sq";

template <class V>
std::span<float> span_of(const V& view) {
  return {view.data(), view.size()};
}

/// Reads what the source has of a unit into a host shard and initialises the rest.
LoadReport load_unit(const comm::ProcessGrid& grid, ModelSource& model,
                     const std::vector<Parameter>& parameters, const std::vector<Slice>& slices,
                     std::span<float> shard, const checkpoint::LoadOptions& options) {
  std::vector<Parameter> present;
  for (const Parameter& parameter : parameters) {
    if (model.source->find(parameter.name) != nullptr) present.push_back(parameter);
  }
  std::vector<Slice> stored;
  for (const Slice& slice : slices) {
    if (model.source->find(slice.parameter->name) != nullptr) {
      stored.push_back(slice);
    } else {
      initialize(slice, model.config.initializer_range, shard);
    }
  }
  return model.source->load(grid, present, stored, shard, options);
}

/// One dataset per parameter of every unit, in `group`.
template <class T>
void add_datasets(const zero3::ParameterStore<T>& store, const char* group,
                  std::vector<checkpoint::DatasetSpec>& datasets) {
  for (std::size_t i = 0; i < store.num_units(); ++i) {
    for (const Parameter& parameter : store.unit(i).parameters()) {
      datasets.push_back({group, &parameter, Dtype::f32});
    }
  }
}

void write_shard(checkpoint::Hdf5Writer& writer, const char* group, const zero3::Unit& unit,
                 const Vector<float>& shard) {
  const auto host = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), shard);
  writer.write(group, unit.parameters(), unit.slices(),
               std::span<const float>(host.data(), host.size()));
}

}  // namespace

ModelSource open_model(const comm::Communicator& world, const std::filesystem::path& path,
                       const checkpoint::KeyOptions& keys) {
  ModelSource model;
  model.source = checkpoint::Source::open(world, path);
  model.config = model::parse_config(model.source->config_json(), path.string());
  require_keys(*model.source, all_parameters(parameter_units(model.config)), keys);
  if (const auto* tessera = dynamic_cast<const Hdf5Source*>(model.source.get())) {
    model.files = tessera->files();
    model.training = tessera->state();
  } else if (const auto* directory = dynamic_cast<const HuggingFaceSource*>(model.source.get())) {
    model.files = directory->files();
  }
  return model;
}

template <class T>
zero3::ParameterStore<T> make_store(const comm::ProcessGrid& grid, const model::ModelConfig& config,
                                    zero3::GradientTransport transport) {
  return zero3::ParameterStore<T>(place_units(grid, config, parameter_units(config)), transport);
}

template <class T>
LoadReport load_parameters(const comm::ProcessGrid& grid, ModelSource& model,
                           zero3::ParameterStore<T>& store,
                           const checkpoint::LoadOptions& options) {
  LoadReport report;
  for (std::size_t i = 0; i < store.num_units(); ++i) {
    const zero3::Unit& unit = store.unit(i);
    const auto host = Kokkos::create_mirror_view(unit.master());
    report += load_unit(grid, model, unit.parameters(), unit.slices(), span_of(host), options);
    Kokkos::deep_copy(unit.master(), host);
  }
  return report;
}

template <class T>
LoadReport load_optimizer(const comm::ProcessGrid& grid, Hdf5Source& source,
                          zero3::ParameterStore<T>& store, const checkpoint::LoadOptions& options) {
  LoadReport report;
  if (source.state().optimizer != "adamw") return report;  // plain SGD has no state
  for (std::size_t i = 0; i < store.num_units(); ++i) {
    zero3::Unit& unit = store.unit(i);
    unit.allocate_moments();
    for (const auto& [group, shard] : {std::pair(exp_avg_group, unit.exp_avg()),
                                       std::pair(exp_avg_sq_group, unit.exp_avg_sq())}) {
      const auto host = Kokkos::create_mirror_view(shard);
      report +=
          source.load_group(grid, group, unit.parameters(), unit.slices(), span_of(host), options);
      Kokkos::deep_copy(shard, host);
    }
  }
  return report;
}

template <class T>
std::int64_t save_checkpoint(const comm::ProcessGrid& grid, const zero3::ParameterStore<T>& store,
                             const std::filesystem::path& path,
                             const checkpoint::TrainingState& state,
                             const checkpoint::EmbeddedFiles& files) {
  const bool with_moments = state.optimizer == "adamw";
  std::vector<checkpoint::DatasetSpec> datasets;
  add_datasets(store, parameters_group, datasets);
  if (with_moments) {
    add_datasets(store, exp_avg_group, datasets);
    add_datasets(store, exp_avg_sq_group, datasets);
  }
  checkpoint::Hdf5Writer writer(grid.world(), path, datasets, state, files);
  for (std::size_t i = 0; i < store.num_units(); ++i) {
    const zero3::Unit& unit = store.unit(i);
    write_shard(writer, parameters_group, unit, unit.master());
    if (!with_moments) continue;
    write_shard(writer, exp_avg_group, unit, unit.exp_avg());
    write_shard(writer, exp_avg_sq_group, unit, unit.exp_avg_sq());
  }
  writer.commit();
  return writer.written_bytes();
}

#define TESSERA_INSTANTIATE(T)                                                                    \
  template zero3::ParameterStore<T> make_store(                                                   \
      const comm::ProcessGrid&, const model::ModelConfig&, zero3::GradientTransport);             \
  template LoadReport load_parameters(const comm::ProcessGrid&, ModelSource&,                     \
                                      zero3::ParameterStore<T>&, const checkpoint::LoadOptions&); \
  template LoadReport load_optimizer(const comm::ProcessGrid&, Hdf5Source&,                       \
                                     zero3::ParameterStore<T>&, const checkpoint::LoadOptions&);  \
  template std::int64_t save_checkpoint(                                                          \
      const comm::ProcessGrid&, const zero3::ParameterStore<T>&, const std::filesystem::path&,    \
      const checkpoint::TrainingState&, const checkpoint::EmbeddedFiles&);
TESSERA_INSTANTIATE(float)
TESSERA_INSTANTIATE(bf16)
#undef TESSERA_INSTANTIATE

}  // namespace tessera::trainer
