// SPDX-License-Identifier: Apache-2.0
// Reading a Tessera file: the description comes from rank 0, the tensors through MPI-IO.
#include <algorithm>

#include "base/log.hpp"
#include "comm/agree.hpp"
#include "comm/watchdog.hpp"
#include "hdf5_describe.hpp"
#include "hdf5_file.hpp"
#include "hdf5_record.hpp"
#include "hdf5_transfer.hpp"
#include "input_file.hpp"

namespace tessera::checkpoint {

struct Hdf5Source::Impl {
  Hdf5File file;
  std::vector<StoredDataset> datasets;  ///< sorted by group and name
  std::chrono::milliseconds deadline{0};

  ~Impl() {
    const comm::Phase phase("close checkpoint", deadline);
    const QuietHdf5 quiet;
    file.close();
  }
};

namespace {

// Every rank looks for itself, because an open that fails on one rank leaves the others waiting in
// it.
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

Hdf5Dataset open_dataset(hid_t file, const std::string& group, const Parameter& parameter) {
  const std::string path = fmt::format("/{}/{}", group, parameter.name);
  return Hdf5Dataset(
      hdf5_id(H5Dopen2(file, path.c_str(), H5P_DEFAULT), fmt::format("opening '{}'", path)));
}

// One collective open after the other, then one agreement.
std::vector<Hdf5Dataset> open_datasets(const comm::Communicator& world, hid_t file,
                                       const std::string& group,
                                       std::span<const Parameter> parameters) {
  std::vector<Hdf5Dataset> datasets;
  std::exception_ptr error;
  for (const Parameter& parameter : parameters) {
    try {
      datasets.push_back(open_dataset(file, group, parameter));
    } catch (...) {
      if (!error) error = std::current_exception();
    }
  }
  comm::agree(world, "open tensors", error);
  return datasets;
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
                                             const std::filesystem::path& path) {
  const comm::Phase phase("open checkpoint", world.options().deadline);
  const QuietHdf5 quiet;
  FileDescription description = comm::agreed(world, "open checkpoint", [&] {
    return world.rank() == 0 ? describe_file(path, 0) : FileDescription{};
  });
  description = broadcast_description(world, description);
  require_same_file(world, path, description.file_bytes);

  std::unique_ptr<Hdf5Source> source(new Hdf5Source);
  source->impl_ = std::make_unique<Impl>();
  source->impl_->deadline = world.options().deadline;
  comm::agreed(world, "open checkpoint", [&] { source->impl_->file = open_parallel(world, path); });
  for (const StoredDataset& dataset : description.datasets) {
    if (dataset.group == parameters_group) source->tensors_.push_back(dataset.info);
  }
  source->path_ = path;
  source->impl_->datasets = std::move(description.datasets);
  source->state_ = std::move(description.state);
  source->files_ = std::move(description.files);
  if (const auto config = source->files_.find("config.json"); config != source->files_.end()) {
    source->config_json_ = config->second;
  }
  return source;
}

const std::vector<StoredDataset>& Hdf5Source::datasets() const { return impl_->datasets; }

std::vector<StoredPart> Hdf5Source::parts(const Parameter& parameter) const {
  return {{parameter.name, parameter.shape, 0, parameter.size(), 0}};
}

bool Hdf5Source::has(const Parameter& parameter) const {
  return find_dataset(impl_->datasets, parameters_group, parameter.name) != nullptr;
}

Origin Hdf5Source::origin(const Parameter& parameter) const {
  const StoredDataset* dataset = find_dataset(impl_->datasets, parameters_group, parameter.name);
  return dataset == nullptr ? Origin{} : dataset->origin;
}

std::int64_t Hdf5Source::stored_bytes(const Parameter& parameter) const {
  std::int64_t bytes = 0;
  for (const char* group : {parameters_group, scales_group}) {
    const StoredDataset* dataset = find_dataset(impl_->datasets, group, parameter.name);
    if (dataset != nullptr) bytes += dataset->info.bytes();
  }
  return bytes;
}

const TensorFingerprint* Hdf5Source::fingerprint(const std::string& group,
                                                 const std::string& name) const {
  const StoredDataset* dataset = find_dataset(impl_->datasets, group, name);
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

LoadReport Hdf5Source::load_group(const comm::ProcessGrid& grid, const std::string& group,
                                  std::span<const Parameter> parameters,
                                  std::span<const Slice> slices, std::span<float> shard,
                                  const LoadOptions& options) {
  return read_group(grid, group, parameters, slices, shard, options);
}

LoadReport Hdf5Source::load_bytes(const comm::ProcessGrid& grid, const std::string& group,
                                  std::span<const Parameter> parameters,
                                  std::span<const Slice> slices, std::span<std::uint8_t> shard,
                                  const LoadOptions& options) {
  return read_group(grid, group, parameters, slices, shard, options);
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
  of_bytes.fingerprints = nullptr;
  const LoadReport report =
      load_bytes(grid, scales_group, plan.parameters, plan.slices, shard, of_bytes);
  for (const Slice& slice : plan.slices) {
    const auto first = shard.begin() + slice.shard_offset;
    (*options.scales)[slice.parameter->name].assign(first, first + slice.size());
  }
  return report;
}

template <class Element>
LoadReport Hdf5Source::read_group(const comm::ProcessGrid& grid, const std::string& group,
                                  std::span<const Parameter> parameters,
                                  std::span<const Slice> slices, std::span<Element> shard,
                                  const LoadOptions& options) {
  const comm::Communicator& world = grid.world();
  const comm::Phase phase("read checkpoint", impl_->deadline);
  const QuietHdf5 quiet;
  std::vector<Dtype> dtypes;
  for (const Parameter& parameter : parameters) {
    const bool wants_bytes = std::is_same_v<Element, std::uint8_t>;
    dtypes.push_back(
        require_dataset(impl_->datasets, path_, group, parameter, wants_bytes).info.dtype);
  }
  TransferPlan plan = comm::agreed(world, "plan reads", [&] {
    return plan_transfers(parameters, dtypes, slices, std::ssize(shard), options.buffer_bytes,
                          options.collective);
  });
  if (options.plan_only) return {plan.bytes(), 0, 0, std::ssize(plan.staging)};
  plan.fingerprints = options.fingerprints;
  const std::vector<Hdf5Dataset> datasets =
      open_datasets(world, impl_->file.get(), group, parameters);
  for (std::size_t i = 0; i < datasets.size(); ++i) plan.transfers[i].dataset = datasets[i].get();
  const TransferResult result = move_slices(world, plan, shard);
  log_message(LogLevel::debug,
              fmt::format("read /{} ({} datasets): {}", group, datasets.size(), result.mode));
  return {plan.bytes(), result.moved_bytes, 0, std::ssize(plan.staging)};
}

}  // namespace tessera::checkpoint
