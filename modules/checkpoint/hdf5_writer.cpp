// SPDX-License-Identifier: Apache-2.0
// Writing a Tessera file: all datasets are created at once, filled unit by unit, and the file takes
// its name when every element is on disk.
#include <algorithm>
#include <map>
#include <numeric>

#include "base/contract.hpp"
#include "base/log.hpp"
#include "comm/agree.hpp"
#include "comm/watchdog.hpp"
#include "hdf5_create.hpp"
#include "hdf5_describe.hpp"
#include "hdf5_file.hpp"
#include "hdf5_partial_file.hpp"
#include "hdf5_record.hpp"
#include "hdf5_state.hpp"
#include "hdf5_transfer.hpp"

namespace tessera::checkpoint {
namespace {

constexpr std::int64_t staging_bytes = 16 << 20;
constexpr std::int64_t metadata_slack_bytes = 8 << 20;
constexpr std::int64_t metadata_per_dataset_bytes = 4 << 10;

std::int64_t with_alignment(std::int64_t bytes) {
  return bytes + (bytes >= alignment_bytes ? alignment_bytes : 0);
}

std::int64_t num_fingerprints(const Parameter& parameter) {
  return parameter.is_expert ? parameter.shape[0] : 1;
}

std::int64_t needed_bytes(const Parameter& parameter, Dtype dtype) {
  return metadata_per_dataset_bytes +
         with_alignment(parameter.size() * std::int64_t(size_of(dtype))) +
         with_alignment(num_fingerprints(parameter) * std::int64_t(sizeof(Fingerprint)));
}

std::int64_t needed_bytes(std::span<const DatasetSpec> datasets, const FileList& files) {
  std::int64_t sum = metadata_slack_bytes;
  for (const DatasetSpec& spec : datasets) {
    sum += needed_bytes(*spec.parameter, spec.dtype);
    if (spec.origin.mxfp4) sum += needed_bytes(scales_of(*spec.parameter), Dtype::u8);
  }
  for (const auto& [name, bytes] : files) sum += with_alignment(bytes) + metadata_per_dataset_bytes;
  return sum;
}

void require_specs(std::span<const DatasetSpec> datasets, const EmbeddedFiles& files) {
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
    const Parameter& parameter = *spec.parameter;
    if (spec.origin.mxfp4 && (!parameter.is_expert || !may_have_scales(parameter.shape))) {
      fail(ErrorKind::internal, "'{}' {} cannot have MXFP4 scales", parameter.name,
           to_string(parameter.shape));
    }
  }
  for (const auto& [name, content] : files) require(name);
}

}  // namespace

struct Hdf5Writer::Impl {
  struct Entry {
    Hdf5Dataset dataset;
    Dtype dtype = Dtype::f32;
    Shape shape;
  };

  Impl(const comm::Communicator& world, std::filesystem::path path, SaveOptions options)
      : world(world), path(std::move(path)), options(options) {}

  const comm::Communicator& world;
  std::filesystem::path path;
  SaveOptions options;
  Hdf5File file;
  std::map<std::string, std::map<std::string, Entry>> groups;  ///< datasets by group and name
  std::map<std::string, FingerprintTable> fingerprints;        ///< of what was written, by group
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
    for (auto& [group, entries] : groups) {
      for (auto& [name, entry] : entries) status = std::min(status, entry.dataset.close());
    }
    return std::min(status, file.close());
  }

  void create(std::span<const DatasetSpec> datasets, const TrainingState& state,
              const FileList& list);
  hid_t add(const std::string& group, const Parameter& parameter, Dtype dtype);
  void embed(const EmbeddedFiles& content, const FileList& list);
  std::int64_t end_of_data() const;
  TransferPlan plan(const std::string& group, std::span<const Parameter> parameters,
                    std::span<const Slice> slices, std::int64_t shard_size);
  template <class Element>
  void write(const std::string& group, std::span<const Parameter> parameters,
             std::span<const Slice> slices, std::span<const Element> shard);
  void require_complete() const;
  void require_equal(const FingerprintTable& expected) const;
  void store_fingerprints();
};

void Hdf5Writer::Impl::create(std::span<const DatasetSpec> datasets, const TrainingState& state,
                              const FileList& list) {
  file = create_parallel(world, partial_path(path));
  write_state(file.get(), state);
  create_group(file.get(), parameters_group);
  create_group(file.get(), files_group);
  for (const DatasetSpec& spec : datasets) {
    create_group(file.get(), spec.group);
    const Dtype dtype = spec.dtype == Dtype::f64 ? Dtype::f32 : spec.dtype;
    describe_parameter(add(spec.group, *spec.parameter, dtype), spec);
    if (!spec.origin.mxfp4) continue;
    create_group(file.get(), scales_group);
    describe_scales(add(scales_group, scales_of(*spec.parameter), Dtype::u8));
  }
  for (const auto& [name, bytes] : list) {
    add(files_group, {.name = name, .shape = {bytes}}, Dtype::u8);
  }
}

// With room for its fingerprints.
hid_t Hdf5Writer::Impl::add(const std::string& group, const Parameter& parameter, Dtype dtype) {
  Entry entry{create_dataset(file.get(), group + "/" + parameter.name, dtype, parameter.shape),
              dtype, parameter.shape};
  const hid_t dataset = entry.dataset.get();
  create_fingerprints(dataset, num_fingerprints(parameter));
  fingerprints[group].expect(parameter.name, num_fingerprints(parameter));
  groups[group].emplace(parameter.name, std::move(entry));
  return dataset;
}

// Rank 0 has the content; the others know its length and take part with nothing.
void Hdf5Writer::Impl::embed(const EmbeddedFiles& content, const FileList& list) {
  const Hdf5Properties properties = transfer_properties(true);
  for (const auto& [name, bytes] : list) {
    if (bytes == 0) continue;  // HDF5 gives it no place in the file and refuses to write there
    const bool is_mine = world.rank() == 0;
    const Hdf5Space selected = select_range({bytes}, 0, is_mine ? bytes : 0);
    const std::string none, &text = is_mine ? content.at(name) : none;
    const std::span data(reinterpret_cast<const std::uint8_t*>(text.data()), text.size());
    fingerprints[files_group].add_bytes(name, {bytes}, false, 0, data);
    hdf5_check(H5Dwrite(groups[files_group].at(name).dataset.get(), H5T_STD_U8LE, selected.get(),
                        selected.get(), properties.get(), data.data()),
               fmt::format("writing '/{}/{}'", files_group, name));
  }
}

// Where the last dataset ends. H5Fget_filesize fails before the first flush of a file with MPI-IO.
std::int64_t Hdf5Writer::Impl::end_of_data() const {
  haddr_t end = 0;
  for (const auto& [group, entries] : groups) {
    for (const auto& [name, entry] : entries) {
      const hid_t dataset = entry.dataset.get();
      const haddr_t offset = H5Dget_offset(dataset);
      if (offset == HADDR_UNDEF) continue;
      end = std::max<haddr_t>(end, offset + H5Dget_storage_size(dataset));
    }
  }
  return static_cast<std::int64_t>(end);
}

TransferPlan Hdf5Writer::Impl::plan(const std::string& group, std::span<const Parameter> parameters,
                                    std::span<const Slice> slices, std::int64_t shard_size) {
  std::vector<Dtype> dtypes;
  std::vector<hid_t> datasets;
  for (const Parameter& parameter : parameters) {
    const auto& entries = groups[group];
    const auto found = entries.find(parameter.name);
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
  plan.fingerprints = &fingerprints[group];
  return plan;
}

template <class Element>
void Hdf5Writer::Impl::write(const std::string& group, std::span<const Parameter> parameters,
                             std::span<const Slice> slices, std::span<const Element> shard) {
  TESSERA_EXPECT(file);
  const comm::Phase phase("write checkpoint", world.options().deadline);
  const QuietHdf5 quiet;
  TransferPlan transfers = comm::agreed(
      world, "plan writes", [&] { return plan(group, parameters, slices, std::ssize(shard)); });
  const TransferResult result = move_slices(world, transfers, shard);
  written_bytes += result.moved_bytes;
  log_message(LogLevel::debug, fmt::format("wrote /{} ({} datasets): {}", group,
                                           transfers.transfers.size(), result.mode));
}

// Datasets are not filled, so an element that nobody wrote would be whatever the disk held. What
// was written was hashed, and the sums have counted it.
void Hdf5Writer::Impl::require_complete() const {
  for (const auto& [group, entries] : groups) {
    for (const auto& [name, entry] : entries) {
      const auto& counts = fingerprints.at(group).find(name)->num_elements;
      const std::int64_t total = num_elements(entry.shape), each = total / std::ssize(counts);
      const std::int64_t actual = std::accumulate(counts.begin(), counts.end(), std::int64_t(0));
      if (std::ranges::count(counts, each) == std::ssize(counts)) continue;
      fail(ErrorKind::internal, "cannot finish {}: {} of {} elements of '{}/{}' were written",
           path.string(), actual, total, group, name);
    }
  }
}

void Hdf5Writer::Impl::require_equal(const FingerprintTable& expected) const {
  for (const auto& [name, entry] : fingerprints.at(parameters_group).tensors()) {
    const TensorFingerprint* tensor = expected.find(name);
    if (tensor != nullptr && tensor->experts == entry.experts) continue;
    fail(ErrorKind::internal, "cannot finish {}: '{}' was written with other values than expected",
         path.string(), name);
  }
}

void Hdf5Writer::Impl::store_fingerprints() {
  for (const auto& [group, entries] : groups) {
    for (const auto& [name, entry] : entries) {
      write_fingerprints(entry.dataset.get(), fingerprints.at(group).find(name)->experts);
    }
  }
}

Hdf5Writer::Hdf5Writer(const comm::Communicator& world, std::filesystem::path path,
                       std::span<const DatasetSpec> datasets, const TrainingState& state,
                       const EmbeddedFiles& files, SaveOptions options) {
  const comm::Phase phase("write checkpoint", world.options().deadline);
  const QuietHdf5 quiet;
  require_specs(datasets, files);
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
  impl_->write(group, parameters, slices, shard);
}

void Hdf5Writer::write_scales(std::span<const Parameter> parameters, std::span<const Slice> slices,
                              const ScaleShards& scales) {
  const auto& announced = impl_->groups[scales_group];
  ScalePlan plan;
  std::vector<std::uint8_t> shard;
  comm::agreed(impl_->world, "plan scales", [&] {
    plan = plan_scales(parameters, slices,
                       [&](const Parameter& p) { return announced.contains(p.name); });
    shard = gather_scales(plan, scales);
  });
  if (plan.parameters.empty()) return;
  impl_->write(scales_group, plan.parameters, plan.slices, std::span<const std::uint8_t>(shard));
}

const FingerprintTable& Hdf5Writer::fingerprints() const {
  TESSERA_EXPECT(impl_->is_committed);
  return impl_->fingerprints.at(parameters_group);
}

void Hdf5Writer::commit(const FingerprintTable* expected) {
  const comm::Communicator& world = impl_->world;
  TESSERA_EXPECT(impl_->file);
  const comm::Phase phase("commit checkpoint", world.options().deadline);
  const QuietHdf5 quiet;
  std::vector<FingerprintTable*> tables;
  for (auto& [group, table] : impl_->fingerprints) tables.push_back(&table);
  FingerprintTable::sum(world, tables);
  impl_->require_complete();
  if (expected != nullptr) impl_->require_equal(*expected);
  comm::agreed(world, "store fingerprints", [&] { impl_->store_fingerprints(); });
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
