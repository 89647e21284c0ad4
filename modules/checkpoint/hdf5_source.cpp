// SPDX-License-Identifier: Apache-2.0
// Reading a Tessera file: the description comes from rank 0, the tensors through MPI-IO.
#include <algorithm>

#include "base/log.hpp"
#include "comm/agree.hpp"
#include "comm/watchdog.hpp"
#include "hdf5_describe.hpp"
#include "hdf5_file.hpp"
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

  const StoredDataset* find(const std::string& group, const std::string& name) const {
    const auto key = std::tie(group, name);
    const auto found = std::lower_bound(datasets.begin(), datasets.end(), key,
                                        [](const StoredDataset& d, const auto& wanted) {
                                          return std::tie(d.group, d.info.name) < wanted;
                                        });
    const bool is_found =
        found != datasets.end() && std::tie(found->group, found->info.name) == key;
    return is_found ? &*found : nullptr;
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

LoadReport Hdf5Source::load(const comm::ProcessGrid& grid, std::span<const Parameter> parameters,
                            std::span<const Slice> slices, std::span<float> shard,
                            const LoadOptions& options) {
  return load_group(grid, parameters_group, parameters, slices, shard, options);
}

LoadReport Hdf5Source::load_group(const comm::ProcessGrid& grid, const std::string& group,
                                  std::span<const Parameter> parameters,
                                  std::span<const Slice> slices, std::span<float> shard,
                                  const LoadOptions& options) {
  const comm::Communicator& world = grid.world();
  const comm::Phase phase("read checkpoint", impl_->deadline);
  const QuietHdf5 quiet;
  std::vector<Dtype> dtypes;
  for (const Parameter& parameter : parameters) {
    dtypes.push_back(require_dataset(group, parameter));
  }
  TransferPlan plan = comm::agreed(world, "plan reads", [&] {
    return plan_transfers(parameters, dtypes, slices, std::ssize(shard), options.buffer_bytes,
                          options.collective);
  });
  const std::vector<Hdf5Dataset> datasets =
      open_datasets(world, impl_->file.get(), group, parameters);
  for (std::size_t i = 0; i < datasets.size(); ++i) plan.transfers[i].dataset = datasets[i].get();
  const TransferResult result = read_slices(world, plan, shard);
  log_message(LogLevel::debug,
              fmt::format("read /{} ({} datasets): {}", group, datasets.size(), result.mode));
  return {plan.bytes(), result.moved_bytes, 0, std::ssize(plan.staging)};
}

Dtype Hdf5Source::require_dataset(const std::string& group, const Parameter& parameter) const {
  const StoredDataset* dataset = impl_->find(group, parameter.name);
  if (dataset == nullptr) {
    fail(ErrorKind::keys, "{}: '/{}/{}' is missing (the model needs it)", path_.string(), group,
         parameter.name);
  }
  const TensorInfo& info = dataset->info;
  if (info.shape != parameter.shape || info.dtype == Dtype::u8) {
    fail(ErrorKind::keys, "{}: '/{}/{}' is {} {}, the model needs a float tensor {}",
         path_.string(), group, parameter.name, to_string(info.dtype), to_string(info.shape),
         to_string(parameter.shape));
  }
  if (dataset->is_transposed != parameter.transposed) {
    fail(ErrorKind::keys,
         "{}: '/{}/{}' has its last two dimensions {} against the Hugging Face checkpoint, the "
         "model "
         "needs them {} (its elements would be read in the wrong places)",
         path_.string(), group, parameter.name, dataset->is_transposed ? "exchanged" : "unchanged",
         parameter.transposed ? "exchanged" : "unchanged");
  }
  return info.dtype;
}

}  // namespace tessera::checkpoint
