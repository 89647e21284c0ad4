// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <string>
#include <tessera/checkpoint/copy.hpp>
#include <tessera/checkpoint/hdf5_store.hpp>
#include <tessera/trainer/whole_model.hpp>

#include "handles.hpp"
#include "status.hpp"

using namespace tessera;

struct tessera_checkpoint {
  c::SharedGrid grid;
  std::unique_ptr<checkpoint::Source> source;
  std::string path;
};

namespace {

const checkpoint::TensorInfo& tensor_at(const tessera_checkpoint* opened, std::int64_t index) {
  c::require(opened != nullptr, "the checkpoint is NULL");
  const auto count = static_cast<std::int64_t>(opened->source->tensors().size());
  if (index < 0 || index >= count)
    fail(ErrorKind::usage, "tensor {} does not exist (there are {}, counted from 0)", index, count);
  return opened->source->tensors()[static_cast<std::size_t>(index)];
}

/// The tensor as a parameter that lies in its file as it is read.
Parameter as_stored(const checkpoint::Source& source, const checkpoint::TensorInfo& tensor) {
  Parameter parameter{.name = tensor.name, .shape = tensor.shape};
  const auto* tessera_file = dynamic_cast<const checkpoint::Hdf5Source*>(&source);
  if (tessera_file == nullptr) return parameter;
  for (const checkpoint::StoredDataset& dataset : tessera_file->datasets())
    if (dataset.group == "parameters" && dataset.info.name == tensor.name)
      parameter.transposed = dataset.is_transposed;
  return parameter;
}

void read(const tessera_checkpoint& opened, const checkpoint::TensorInfo& tensor,
          std::int64_t begin, std::int64_t count, float* values) {
  const Parameter parameter = as_stored(*opened.source, tensor);
  std::vector<Slice> slices;
  if (count > 0) slices.push_back({&parameter, begin, begin + count, 0});
  opened.source->load(*opened.grid, std::span(&parameter, 1), slices,
                      std::span(values, static_cast<std::size_t>(count)), {});
}

void import_model(const tessera_checkpoint& opened, const char* path,
                  const tessera_fields* fields) {
  const comm::Communicator& world = opened.grid->world();
  const trainer::WholeModel whole =
      trainer::whole_model(trainer::open_model(world, opened.path, {}));
  require_directory(whole);
  require_tied(*opened.grid, whole.model);
  checkpoint::Hdf5Writer writer(world, path, dataset_specs(whole), {}, whole.model.files);
  const checkpoint::CopyReport report = copy_parameters(
      *opened.grid, whole.source(), whole.stored,
      [&](const checkpoint::Portion& portion) {
        writer.write("parameters", portion.parameters, portion.slices, portion.shard);
        writer.write_scales(portion.parameters, portion.slices, portion.scales);
      },
      true);
  writer.write_fields(c::fields_of(fields));
  writer.commit(&report.fingerprints);
}

}  // namespace

tessera_status tessera_checkpoint_open(tessera_grid* grid, const char* path,
                                       tessera_checkpoint** opened) {
  return c::guarded([&] {
    const c::SharedGrid& shared = c::shared(grid);
    comm::agreed(shared->world(), "arguments of tessera_checkpoint_open", [&] {
      c::require(path != nullptr && opened != nullptr,
                 "tessera_checkpoint_open: path or checkpoint is NULL");
    });
    *opened = new tessera_checkpoint{shared, checkpoint::Source::open(shared->world(), path), path};
  });
}

int64_t tessera_checkpoint_size(const tessera_checkpoint* opened) {
  return opened == nullptr ? 0 : static_cast<int64_t>(opened->source->tensors().size());
}

tessera_status tessera_checkpoint_tensor(const tessera_checkpoint* opened, int64_t index,
                                         tessera_tensor* tensor) {
  return c::guarded([&] {
    const checkpoint::TensorInfo& info = tensor_at(opened, index);
    c::require(tensor != nullptr, "tessera_checkpoint_tensor: tensor is NULL");
    *tensor = {info.name.c_str(), to_string(info.dtype), static_cast<int>(info.shape.size()),
               info.shape.data()};
  });
}

tessera_status tessera_checkpoint_find(const tessera_checkpoint* opened, const char* name,
                                       int64_t* index) {
  return c::guarded([&] {
    c::require(opened != nullptr && name != nullptr && index != nullptr,
               "tessera_checkpoint_find: an argument is NULL");
    const checkpoint::TensorInfo* tensor = opened->source->find(name);
    if (tensor == nullptr) fail(ErrorKind::keys, "{} has no tensor '{}'", opened->path, name);
    *index = tensor - opened->source->tensors().data();
  });
}

tessera_status tessera_checkpoint_read(tessera_checkpoint* opened, int64_t index, int64_t begin,
                                       int64_t count, float* values) {
  return c::guarded([&] {
    c::require(opened != nullptr, "the checkpoint is NULL");
    const checkpoint::TensorInfo* tensor = nullptr;
    comm::agreed(opened->grid->world(), "arguments of tessera_checkpoint_read", [&] {
      tensor = &tensor_at(opened, index);
      const std::int64_t size = num_elements(tensor->shape);
      if (begin < 0 || count < 0 || begin > size - count)
        fail(ErrorKind::usage, "'{}' {} has no elements {} to {}", tensor->name,
             checkpoint::to_string(tensor->shape), begin, begin + count);
      c::require(count == 0 || values != nullptr, "tessera_checkpoint_read: values is NULL");
    });
    read(*opened, *tensor, begin, count, values);
  });
}

tessera_status tessera_checkpoint_import(tessera_checkpoint* opened, const char* path,
                                         const tessera_fields* fields) {
  return c::guarded([&] {
    c::require(opened != nullptr, "the checkpoint is NULL");
    comm::agreed(opened->grid->world(), "arguments of tessera_checkpoint_import",
                 [&] { c::require(path != nullptr, "tessera_checkpoint_import: path is NULL"); });
    import_model(*opened, path, fields);
  });
}

void tessera_checkpoint_close(tessera_checkpoint* opened) { delete opened; }
