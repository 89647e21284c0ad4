// SPDX-License-Identifier: Apache-2.0
// Writing a Tessera file: all datasets are created at once, filled unit by unit, and the file takes
// its name when every element is on disk.
#include <algorithm>
#include <map>

#include "base/contract.hpp"
#include "base/log.hpp"
#include "comm/agree.hpp"
#include "comm/watchdog.hpp"
#include "hdf5_create.hpp"
#include "hdf5_describe.hpp"
#include "hdf5_file.hpp"
#include "hdf5_partial_file.hpp"
#include "hdf5_transfer.hpp"

namespace tessera::checkpoint {
namespace {

constexpr std::int64_t staging_bytes = 16 << 20;
constexpr std::int64_t metadata_slack_bytes = 8 << 20;
constexpr std::int64_t metadata_per_dataset_bytes = 4 << 10;

std::string key_of(const std::string& group, const std::string& name) { return group + "/" + name; }

std::int64_t needed_bytes(std::span<const DatasetSpec> datasets, const FileList& files) {
  std::int64_t sum = metadata_slack_bytes;
  for (const DatasetSpec& spec : datasets) {
    const std::int64_t bytes = spec.parameter->size() * std::int64_t(size_of(spec.dtype));
    sum += bytes + metadata_per_dataset_bytes + (bytes >= alignment_bytes ? alignment_bytes : 0);
  }
  for (const auto& [name, bytes] : files) sum += bytes + metadata_per_dataset_bytes;
  return sum;
}

void require_names(std::span<const DatasetSpec> datasets, const EmbeddedFiles& files) {
  const auto require = [](const std::string& name) {
    if (name.empty() || name == "." || name.find('/') != std::string::npos) {
      fail(ErrorKind::usage, "'{}' cannot be the name of a dataset", name);
    }
  };
  for (const DatasetSpec& spec : datasets) {
    require(spec.parameter->name);
    const bool is_known = spec.group == parameters_group ||
                          spec.group.starts_with(std::string(optimizer_group) + "/");
    if (!is_known) fail(ErrorKind::internal, "'{}' is no group of the format", spec.group);
  }
  for (const auto& [name, content] : files) require(name);
}

}  // namespace

struct Hdf5Writer::Impl {
  struct Entry {
    Hdf5Dataset dataset;
    Dtype dtype = Dtype::f32;
    Shape shape;
    std::int64_t written = 0;  ///< elements, by this rank
  };

  Impl(const comm::Communicator& world, std::filesystem::path path, SaveOptions options)
      : world(world), path(std::move(path)), options(options) {}

  const comm::Communicator& world;
  std::filesystem::path path;
  SaveOptions options;
  Hdf5File file;
  std::map<std::string, Entry> entries;
  std::vector<Hdf5Dataset> embedded;  ///< in the order of the file list
  std::int64_t written_bytes = 0;
  bool is_committed = false;

  // Closing is collective. Ranks come here together: after commit(), or because an agreed error
  // unwinds all of them; the phase's deadline ends a job in which only some do.
  ~Impl() {
    const comm::Phase phase("close checkpoint", world.options().deadline);
    const QuietHdf5 quiet;
    close_file();
    std::error_code ignored;
    if (!is_committed && world.rank() == 0) std::filesystem::remove(partial_path(path), ignored);
  }

  herr_t close_file() {
    herr_t status = 0;
    for (auto& [key, entry] : entries) status = std::min(status, entry.dataset.close());
    embedded.clear();
    return std::min(status, file.close());
  }

  void create(std::span<const DatasetSpec> datasets, const TrainingState& state,
              const FileList& list) {
    file = create_parallel(world, partial_path(path));
    write_state(file.get(), state);
    create_group(file.get(), parameters_group);
    create_group(file.get(), files_group);
    for (const DatasetSpec& spec : datasets) {
      const Parameter& parameter = *spec.parameter;
      create_group(file.get(), spec.group);
      const std::string key = key_of(spec.group, parameter.name);
      Entry entry{create_dataset(file.get(), key, spec.dtype, parameter.shape), spec.dtype,
                  parameter.shape};
      describe_parameter(entry.dataset.get(), parameter);
      entries.emplace(key, std::move(entry));
    }
    for (const auto& [name, bytes] : list) {
      embedded.push_back(create_dataset(file.get(), key_of(files_group, name), Dtype::u8, {bytes}));
    }
  }

  void embed(const EmbeddedFiles& content, const FileList& list);
  std::int64_t end_of_data() const;
  TransferPlan plan(const std::string& group, std::span<const Parameter> parameters,
                    std::span<const Slice> slices, std::int64_t shard_size);
  void require_complete() const;
};

// Rank 0 has the content; the others know its length and take part with nothing.
void Hdf5Writer::Impl::embed(const EmbeddedFiles& content, const FileList& list) {
  const Hdf5Properties properties = transfer_properties(true);
  for (std::size_t i = 0; i < list.size(); ++i) {
    const auto& [name, bytes] = list[i];
    if (bytes == 0) continue;  // HDF5 gives it no place in the file and refuses to write there
    const bool is_mine = world.rank() == 0;
    const Hdf5Space selected = select_range({bytes}, 0, is_mine ? bytes : 0);
    const void* data = is_mine ? content.at(name).data() : nullptr;
    hdf5_check(H5Dwrite(embedded[i].get(), H5T_STD_U8LE, selected.get(), selected.get(),
                        properties.get(), data),
               fmt::format("writing '/{}/{}'", files_group, name));
  }
}

// Where the last dataset ends. H5Fget_filesize fails before the first flush of a file with MPI-IO.
std::int64_t Hdf5Writer::Impl::end_of_data() const {
  haddr_t end = 0;
  const auto look_at = [&](hid_t dataset) {
    const haddr_t offset = H5Dget_offset(dataset);
    if (offset != HADDR_UNDEF) end = std::max<haddr_t>(end, offset + H5Dget_storage_size(dataset));
  };
  for (const auto& [key, entry] : entries) look_at(entry.dataset.get());
  for (const Hdf5Dataset& dataset : embedded) look_at(dataset.get());
  return static_cast<std::int64_t>(end);
}

TransferPlan Hdf5Writer::Impl::plan(const std::string& group, std::span<const Parameter> parameters,
                                    std::span<const Slice> slices, std::int64_t shard_size) {
  std::vector<Dtype> dtypes;
  std::vector<hid_t> datasets;
  for (const Parameter& parameter : parameters) {
    const auto found = entries.find(key_of(group, parameter.name));
    if (found == entries.end() || found->second.shape != parameter.shape) {
      fail(ErrorKind::internal,
           "'{}' {} was not announced in group '{}' when the checkpoint was begun", parameter.name,
           to_string(parameter.shape), group);
    }
    dtypes.push_back(found->second.dtype);
    datasets.push_back(found->second.dataset.get());
  }
  TransferPlan plan =
      plan_transfers(parameters, dtypes, slices, shard_size, staging_bytes, options.collective);
  for (std::size_t i = 0; i < datasets.size(); ++i) plan.transfers[i].dataset = datasets[i];
  return plan;
}

// Datasets are not filled, so an element that nobody wrote would be whatever the disk held.
void Hdf5Writer::Impl::require_complete() const {
  if (entries.empty()) return;
  std::vector<std::int64_t> written;
  for (const auto& [key, entry] : entries) written.push_back(entry.written);
  world.all_reduce("written elements", std::span<std::int64_t>(written), comm::ReduceOp::sum);
  std::size_t i = 0;
  for (const auto& [key, entry] : entries) {
    const std::int64_t expected = num_elements(entry.shape), actual = written[i++];
    if (actual == expected) continue;
    fail(ErrorKind::internal, "cannot finish {}: {} of {} elements of '{}' were written",
         path.string(), actual, expected, key);
  }
}

Hdf5Writer::Hdf5Writer(const comm::Communicator& world, std::filesystem::path path,
                       std::span<const DatasetSpec> datasets, const TrainingState& state,
                       const EmbeddedFiles& files, SaveOptions options) {
  const comm::Phase phase("write checkpoint", world.options().deadline);
  const QuietHdf5 quiet;
  require_names(datasets, files);
  const TrainingState agreed_state = broadcast_state(world, state);
  const FileList list = broadcast_file_list(world, files);
  impl_ = std::make_unique<Impl>(world, std::move(path), options);
  prepare_partial(world, impl_->path, needed_bytes(datasets, list));
  comm::agreed(world, "create checkpoint", [&] { impl_->create(datasets, agreed_state, list); });
  reserve_partial(world, impl_->path, impl_->end_of_data());
  comm::agreed(world, "embed files", [&] { impl_->embed(files, list); });
}

Hdf5Writer::~Hdf5Writer() = default;

void Hdf5Writer::write(const std::string& group, std::span<const Parameter> parameters,
                       std::span<const Slice> slices, std::span<const float> shard) {
  const comm::Communicator& world = impl_->world;
  TESSERA_EXPECT(impl_->file);
  const comm::Phase phase("write checkpoint", world.options().deadline);
  const QuietHdf5 quiet;
  TransferPlan plan = comm::agreed(world, "plan writes", [&] {
    return impl_->plan(group, parameters, slices, std::ssize(shard));
  });
  const TransferResult result = write_slices(world, plan, shard);
  for (const Transfer& transfer : plan.transfers) {
    const std::string key = key_of(group, transfer.slice.parameter->name);
    impl_->entries.at(key).written += transfer.slice.size();
  }
  impl_->written_bytes += result.moved_bytes;
  log_message(LogLevel::debug, fmt::format("wrote /{} ({} datasets): {}", group,
                                           plan.transfers.size(), result.mode));
}

void Hdf5Writer::commit() {
  const comm::Communicator& world = impl_->world;
  TESSERA_EXPECT(impl_->file);
  const comm::Phase phase("commit checkpoint", world.options().deadline);
  const QuietHdf5 quiet;
  impl_->require_complete();
  comm::agreed(world, "flush checkpoint", [&] {
    hdf5_check(H5Fflush(impl_->file.get(), H5F_SCOPE_GLOBAL), "flushing the checkpoint");
  });
  comm::agreed(world, "close checkpoint",
               [&] { hdf5_check(impl_->close_file(), "closing the checkpoint"); });
  commit_partial(world, impl_->path);
  impl_->is_committed = true;
}

std::int64_t Hdf5Writer::written_bytes() const { return impl_->written_bytes; }

}  // namespace tessera::checkpoint
