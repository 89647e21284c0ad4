// SPDX-License-Identifier: Apache-2.0
// Reading a Tessera file: the description comes from rank 0, then each rank reads its elements.
#include <algorithm>

#include "comm/agree.hpp"
#include "comm/watchdog.hpp"
#include "hdf5_describe.hpp"
#include "hdf5_file.hpp"
#include "hdf5_record.hpp"
#include "hdf5_transfer.hpp"
#include "input_file.hpp"
#include "read_plan.hpp"
#include "slices.hpp"
#include "tensor_loader.hpp"

namespace tessera::checkpoint {

struct Hdf5Source::ParallelFile {
  Hdf5File file;
  bool is_collective;
  std::chrono::milliseconds deadline;

  ~ParallelFile() {
    const comm::Phase phase("close checkpoint", deadline);
    const QuietHdf5 quiet;
    file.close();
  }
};

namespace {

void require_same_file(const comm::Communicator& world, const std::filesystem::path& path,
                       std::int64_t file_bytes) {
  comm::agreed(world, "look at the checkpoint", [&] {
    const InputFile file(path, world.rank());
    if (file.size_bytes() == file_bytes) return;
    fail(ErrorKind::file,
         "{} has {} bytes here and {} on rank 0 (every rank reads its part, so the file "
         "must be on storage shared by all nodes)",
         path.string(), file.size_bytes(), file_bytes);
  });
}

// The dataset of a parameter, if it is what the model needs. Throws Error::keys. local.
const StoredDataset& require_dataset(const std::vector<StoredDataset>& datasets,
                                     const std::filesystem::path& file, const std::string& group,
                                     const Parameter& parameter, bool wants_bytes) {
  const StoredDataset* dataset = find_dataset(datasets, group, parameter.name);
  if (dataset == nullptr) {
    fail(ErrorKind::keys, "{}: '/{}/{}' is missing (the model needs it)", file.string(), group,
         parameter.name);
  }
  const TensorInfo& info = dataset->info;
  if (info.shape != parameter.shape || (info.dtype == Dtype::u8) != wants_bytes) {
    fail(ErrorKind::keys, "{}: '{}' is {} {}, the model needs a tensor of {} {}", file.string(),
         dataset->path(), to_string(info.dtype), to_string(info.shape),
         wants_bytes ? "bytes" : "floats", to_string(parameter.shape));
  }
  if (dataset->is_transposed != parameter.transposed) {
    fail(ErrorKind::keys,
         "{}: '{}' has its last two dimensions {} against the Hugging Face checkpoint, the model "
         "needs them {} (its elements would be read in the wrong places)",
         file.string(), dataset->path(), dataset->is_transposed ? "exchanged" : "unchanged",
         parameter.transposed ? "exchanged" : "unchanged");
  }
  return *dataset;
}

}  // namespace

Hdf5Source::~Hdf5Source() = default;

std::unique_ptr<Hdf5Source> Hdf5Source::open(const comm::Communicator& world,
                                             const std::filesystem::path& path,
                                             TransferMode transfer) {
  const comm::Phase phase("open checkpoint", world.options().deadline);
  const QuietHdf5 quiet;
  FileDescription description = comm::agreed(world, "open checkpoint", [&] {
    return world.rank() == 0 ? describe_file(path, 0) : FileDescription{};
  });
  description = broadcast_description(world, description);
  require_same_file(world, path, description.file_bytes);

  std::unique_ptr<Hdf5Source> source(new Hdf5Source);
  transfer = resolved(world, transfer);
  if (transfer != TransferMode::direct) {
    source->file_.reset(
        new ParallelFile{{}, transfer == TransferMode::collective, world.options().deadline});
    comm::agreed(world, "open checkpoint",
                 [&] { source->file_->file = open_parallel(world, path); });
  }
  for (const StoredDataset& dataset : description.datasets) {
    if (dataset.group == parameters_group) source->tensors_.push_back(dataset.info);
  }
  source->path_ = path;
  source->datasets_ = std::move(description.datasets);
  source->state_ = std::move(description.state);
  source->files_ = std::move(description.files);
  if (const auto config = source->files_.find("config.json"); config != source->files_.end()) {
    source->config_json_ = config->second;
  }
  return source;
}

std::vector<StoredPart> Hdf5Source::parts(const Parameter& parameter) const {
  return {{parameter.name, parameter.shape, 0, parameter.size(), 0}};
}

bool Hdf5Source::has(const Parameter& parameter) const {
  return find_dataset(datasets_, parameters_group, parameter.name) != nullptr;
}

Origin Hdf5Source::origin(const Parameter& parameter) const {
  const StoredDataset* dataset = find_dataset(datasets_, parameters_group, parameter.name);
  return dataset == nullptr ? Origin{} : dataset->origin;
}

std::int64_t Hdf5Source::stored_bytes(const Parameter& parameter) const {
  std::int64_t bytes = 0;
  for (const char* group : {parameters_group, scales_group}) {
    const StoredDataset* dataset = find_dataset(datasets_, group, parameter.name);
    if (dataset != nullptr) bytes += dataset->info.bytes();
  }
  return bytes;
}

const TensorFingerprint* Hdf5Source::fingerprint(const std::string& group,
                                                 const std::string& name) const {
  const StoredDataset* dataset = find_dataset(datasets_, group, name);
  const bool has_any = dataset != nullptr && !dataset->fingerprint.experts.empty();
  return has_any ? &dataset->fingerprint : nullptr;
}

LoadReport Hdf5Source::load(const comm::ProcessGrid& grid, std::span<const Parameter> parameters,
                            std::span<const Slice> slices, std::span<float> shard,
                            const LoadOptions& options) {
  LoadReport report = load_group(grid, parameters_group, parameters, slices, shard, options);
  if (options.scales != nullptr) report += load_scales(grid, parameters, slices, options);
  return report;
}

std::vector<const TensorInfo*> Hdf5Source::require_tensors(const std::string& group,
                                                           std::span<const Parameter> parameters,
                                                           bool wants_bytes) const {
  std::vector<const TensorInfo*> tensors;
  for (const Parameter& parameter : parameters)
    tensors.push_back(&require_dataset(datasets_, path_, group, parameter, wants_bytes).info);
  return tensors;
}

template <class Element>
LoadReport Hdf5Source::transfer(const comm::Communicator& world, const std::string& group,
                                std::span<const Parameter> parameters,
                                std::span<const TensorInfo* const> tensors,
                                std::span<const Slice> slices, std::span<Element> shard,
                                const LoadOptions& options) {
  std::vector<Hdf5Dataset> datasets;
  std::vector<Transfer> transfers;
  comm::agreed(world, "plan reads", [&] {
    for (const Slice& slice : slices_by_parameter(parameters, slices, std::ssize(shard))) {
      const TensorInfo& tensor = *tensors[std::size_t(slice.parameter - parameters.data())];
      transfers.push_back({H5I_INVALID_HID, tensor.dtype, slice});
    }
  });
  LoadReport report;
  report.peak_buffer_bytes = staging_bytes(transfers, options.buffer_bytes);
  for (const Transfer& transfer : transfers)
    report.planned_bytes += transfer.slice.size() * std::int64_t(size_of(transfer.dtype));
  if (options.plan_only) return report;
  comm::agreed(world, "open tensors", [&] {
    const QuietHdf5 quiet;
    for (Transfer& transfer : transfers) {
      const std::string path = fmt::format("/{}/{}", group, transfer.slice.parameter->name);
      datasets.emplace_back(hdf5_id(H5Dopen2(file_->file.get(), path.c_str(), H5P_DEFAULT),
                                    fmt::format("opening '{}'", path)));
      transfer.dataset = datasets.back().get();
    }
  });
  report.read_bytes = move_slices(
      world, transfers, shard,
      {options.buffer_bytes, file_->is_collective, options.fingerprints, options.placed});
  return report;
}

// Directly, elements are read where they lie: through MPI-IO each would be copied twice more.
LoadReport Hdf5Source::load_group(const comm::ProcessGrid& grid, const std::string& group,
                                  std::span<const Parameter> parameters,
                                  std::span<const Slice> slices, std::span<float> shard,
                                  const LoadOptions& options) {
  const comm::Communicator& world = grid.world();
  const comm::Phase phase("read checkpoint", world.options().deadline);
  const std::vector<const TensorInfo*> tensors = require_tensors(group, parameters, false);
  if (file_ != nullptr) {
    if (!options.plan_only) expect(options, parameters);
    return transfer(world, group, parameters, tensors, slices, shard, options);
  }
  const ReadPlan plan = comm::agreed(world, "plan reads", [&] {
    return plan_tensors(parameters, tensors, slices, std::ssize(shard), options.buffer_bytes);
  });
  if (options.plan_only) return {plan.planned_bytes, 0, 0, plan.staging_bytes};
  expect(options, parameters);
  return TensorLoader(grid, path_.parent_path(), plan, shard, options).run();
}

LoadReport Hdf5Source::load_bytes(const comm::ProcessGrid& grid, const std::string& group,
                                  std::span<const Parameter> parameters,
                                  std::span<const Slice> slices, std::span<std::uint8_t> shard,
                                  const LoadOptions& options) {
  const comm::Communicator& world = grid.world();
  const comm::Phase phase("read checkpoint", world.options().deadline);
  const std::vector<const TensorInfo*> tensors = require_tensors(group, parameters, true);
  expect(options, parameters);
  if (file_ != nullptr) return transfer(world, group, parameters, tensors, slices, shard, options);
  LoadReport report;
  comm::agreed(world, "read tensors", [&] {
    const InputFile file(path_, world.rank());
    for (const Slice& slice : slices_by_parameter(parameters, slices, std::ssize(shard))) {
      report.planned_bytes += slice.size();
      if (options.plan_only || slice.size() == 0) continue;
      const Parameter& parameter = *slice.parameter;
      const auto bytes = shard.subspan(std::size_t(slice.shard_offset), std::size_t(slice.size()));
      const TensorInfo& tensor = *tensors[std::size_t(slice.parameter - parameters.data())];
      report.read_bytes +=
          file.read_at(tensor.offset_bytes + slice.begin, std::as_writable_bytes(bytes));
      for (FingerprintTable* table : {options.fingerprints, options.placed})
        if (table != nullptr)
          table->add_bytes(parameter.name, parameter.shape, parameter.is_expert, slice.begin,
                           bytes);
    }
  });
  return report;
}

// One buffer for the scales of all of them, as the parameters share a shard; then one vector each.
LoadReport Hdf5Source::load_scales(const comm::ProcessGrid& grid,
                                   std::span<const Parameter> parameters,
                                   std::span<const Slice> slices, const LoadOptions& options) {
  const ScalePlan plan = plan_scales(
      parameters, slices, [&](const Parameter& parameter) { return origin(parameter).mxfp4; });
  if (plan.parameters.empty()) return {};
  std::vector<std::uint8_t> shard(static_cast<std::size_t>(plan.num_scales));
  LoadOptions of_bytes = options;  // what is summed there are the parameters
  of_bytes.fingerprints = of_bytes.placed = nullptr;
  const LoadReport report =
      load_bytes(grid, scales_group, plan.parameters, plan.slices, shard, of_bytes);
  for (const Slice& slice : plan.slices) {
    const auto first = shard.begin() + slice.shard_offset;
    (*options.scales)[slice.parameter->name].assign(first, first + slice.size());
  }
  return report;
}

}  // namespace tessera::checkpoint
