// SPDX-License-Identifier: Apache-2.0
// Writing a Tessera file: all datasets are created at once, filled unit by unit, and the file takes
// its name when every element is on disk.
#include <algorithm>
#include <map>
#include <numeric>
#include <optional>

#include "base/contract.hpp"
#include "comm/agree.hpp"
#include "comm/watchdog.hpp"
#include "hdf5_create.hpp"
#include "hdf5_describe.hpp"
#include "hdf5_fields.hpp"
#include "hdf5_file.hpp"
#include "hdf5_partial_file.hpp"
#include "hdf5_record.hpp"
#include "hdf5_state.hpp"
#include "hdf5_transfer.hpp"
#include "narrow.hpp"
#include "slices.hpp"
#include "tessera/checkpoint/disk.hpp"
#include "widen.hpp"

namespace tessera::checkpoint {
namespace {

// Of one write: its elements stay in the second cache between conversion, hash and write.
constexpr std::int64_t step_elements = 128 << 10;

}  // namespace

struct Hdf5Writer::Impl {
  struct Entry {
    Hdf5Dataset dataset;
    Dtype dtype = Dtype::f32;
    Shape shape;
    std::int64_t offset_bytes = 0;  ///< of its first element in the file
  };

  Impl(const comm::Communicator& world, std::filesystem::path path, TransferMode transfer)
      : world(world), path(std::move(path)), transfer(transfer) {}

  const comm::Communicator& world;
  std::filesystem::path path;
  TransferMode transfer;
  Hdf5File file;
  std::optional<OutputFile> elements;  ///< the same file, for this rank's elements
  std::vector<std::byte> narrowed;     ///< one step of them in the file's type
  std::vector<float> rounded;          ///< what that holds
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
  const Entry& require_entry(const std::string& group, const Parameter& parameter);
  void put(const Entry& entry, std::int64_t begin, std::span<const std::byte> bytes);
  void write(const Entry& entry, const std::string& group, const Slice& slice,
             std::span<const float> values);
  void write(const Entry& entry, const std::string& group, const Slice& slice,
             std::span<const std::uint8_t> bytes);
  template <class Element>
  void write(const std::string& group, std::span<const Parameter> parameters,
             std::span<const Slice> slices, std::span<const Element> shard);
  template <class Element>
  void write_by_hdf5(const std::string& group, std::span<const Parameter> parameters,
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
  // Without elements HDF5 gives it no place.
  if (const haddr_t offset = H5Dget_offset(dataset); offset != HADDR_UNDEF)
    entry.offset_bytes = std::int64_t(offset);
  create_fingerprints(dataset, num_fingerprints(parameter));
  fingerprints[group].expect(parameter.name, num_fingerprints(parameter));
  groups[group].emplace(parameter.name, std::move(entry));
  return dataset;
}

// Rank 0 has the content; the others know its length.
void Hdf5Writer::Impl::embed(const EmbeddedFiles& content, const FileList& list) {
  if (world.rank() != 0) return;
  for (const auto& [name, bytes] : list) {
    const Parameter parameter{.name = name, .shape = {bytes}};
    const std::string& text = content.at(name);
    write(require_entry(files_group, parameter), files_group, {&parameter, 0, bytes, 0},
          std::span(reinterpret_cast<const std::uint8_t*>(text.data()), text.size()));
  }
  written_bytes = 0;  // counts tensors alone
}

// Where the last dataset ends. H5Fget_filesize fails before the first flush of a file with MPI-IO.
std::int64_t Hdf5Writer::Impl::end_of_data() const {
  std::int64_t end = 0;
  for (const auto& [group, entries] : groups) {
    for (const auto& [name, entry] : entries) {
      const std::int64_t bytes = num_elements(entry.shape) * std::int64_t(size_of(entry.dtype));
      end = std::max(end, entry.offset_bytes + bytes);
    }
  }
  return end;
}

const Hdf5Writer::Impl::Entry& Hdf5Writer::Impl::require_entry(const std::string& group,
                                                               const Parameter& parameter) {
  const auto& entries = groups[group];
  const auto found = entries.find(parameter.name);
  if (found == entries.end() || found->second.shape != parameter.shape) {
    fail(ErrorKind::internal,
         "'{}' {} was not announced in group '{}' when the checkpoint was begun", parameter.name,
         to_string(parameter.shape), group);
  }
  return found->second;
}

/// `begin`: of the first element in the tensor.
void Hdf5Writer::Impl::put(const Entry& entry, std::int64_t begin,
                           std::span<const std::byte> bytes) {
  elements->write_at(entry.offset_bytes + begin * std::int64_t(size_of(entry.dtype)), bytes);
  written_bytes += std::ssize(bytes);
}

void Hdf5Writer::Impl::write(const Entry& entry, const std::string& group, const Slice& slice,
                             std::span<const float> values) {
  TensorHash hash(*slice.parameter, &fingerprints[group]);
  const auto width = std::int64_t(size_of(entry.dtype));
  for (std::int64_t done = 0; done < slice.size(); done += step_elements) {
    const std::int64_t count = std::min(step_elements, slice.size() - done);
    const auto step = values.subspan(std::size_t(done), std::size_t(count));
    const std::int64_t begin = slice.begin + done;
    if (entry.dtype == Dtype::f32) {
      hash.add(begin, step);
      put(entry, begin, std::as_bytes(step));
      continue;
    }
    narrowed.resize(std::size_t(step_elements * width));
    rounded.resize(std::size_t(step_elements));
    narrow(entry.dtype, step.data(), count, narrowed.data());
    widen(entry.dtype, narrowed.data(), count, rounded.data());
    hash.add(begin, std::span(rounded).first(std::size_t(count)));
    put(entry, begin, std::span(narrowed).first(std::size_t(count * width)));
  }
}

void Hdf5Writer::Impl::write(const Entry& entry, const std::string& group, const Slice& slice,
                             std::span<const std::uint8_t> bytes) {
  const Parameter& parameter = *slice.parameter;
  fingerprints[group].add_bytes(parameter.name, parameter.shape, parameter.is_expert, slice.begin,
                                bytes);
  put(entry, slice.begin, std::as_bytes(bytes));
}

template <class Element>
void Hdf5Writer::Impl::write_by_hdf5(const std::string& group,
                                     std::span<const Parameter> parameters,
                                     std::span<const Slice> slices,
                                     std::span<const Element> shard) {
  const auto transfers = comm::agreed(world, "plan writes", [&] {
    std::vector<Transfer> result;
    for (const Slice& slice : slices_by_parameter(parameters, slices, std::ssize(shard))) {
      const Entry& entry = require_entry(group, *slice.parameter);
      result.push_back({entry.dataset.get(), entry.dtype, slice});
    }
    return result;
  });
  TransferOptions options;
  options.collective = transfer == TransferMode::collective;
  options.fingerprints = &fingerprints[group];
  written_bytes += move_slices(world, transfers, shard, options);
}

// Directly, each rank writes its elements where HDF5 has placed the datasets: through MPI-IO they
// would be copied on the way.
template <class Element>
void Hdf5Writer::Impl::write(const std::string& group, std::span<const Parameter> parameters,
                             std::span<const Slice> slices, std::span<const Element> shard) {
  TESSERA_EXPECT(file);
  const comm::Phase phase("write checkpoint", world.options().deadline);
  if (transfer != TransferMode::direct) return write_by_hdf5(group, parameters, slices, shard);
  comm::agreed(world, "write tensors", [&] {
    for (const Parameter& parameter : parameters) require_entry(group, parameter);
    for (const Slice& slice : slices_by_parameter(parameters, slices, std::ssize(shard))) {
      if (slice.size() == 0) continue;
      write(require_entry(group, *slice.parameter), group, slice,
            shard.subspan(std::size_t(slice.shard_offset), std::size_t(slice.size())));
    }
  });
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
                       const EmbeddedFiles& files, TransferMode transfer) {
  const comm::Phase phase("write checkpoint", world.options().deadline);
  const QuietHdf5 quiet;
  require_specs(datasets, files);
  const TrainingState agreed_state = broadcast_state(world, state);
  const FileList list = broadcast_file_list(world, files);
  require_sizes(list);
  impl_ = std::make_unique<Impl>(world, std::move(path), resolved(world, transfer));
  prepare_partial(world, impl_->path, needed_bytes(datasets, list));
  comm::agreed(world, "create checkpoint", [&] { impl_->create(datasets, agreed_state, list); });
  reserve_partial(world, impl_->path, impl_->end_of_data());
  comm::agreed(world, "embed files", [&] {
    impl_->elements.emplace(partial_path(impl_->path), world.rank());
    impl_->embed(files, list);
  });
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

void Hdf5Writer::write_fields(std::span<const Field> fields) {
  require_fields(impl_->world, fields);
  const comm::Phase phase("write fields", impl_->world.options().deadline);
  const QuietHdf5 quiet;
  comm::agreed(impl_->world, "write fields", [&] {
    for (const Field& field : fields) write_field(impl_->file.get(), field);
  });
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
  comm::agreed(world, "close checkpoint",
               [&] { hdf5_check(impl_->close_file(), "closing the checkpoint"); });
  commit_partial(world, impl_->path);
  impl_->is_committed = true;
}

std::int64_t Hdf5Writer::written_bytes() const { return impl_->written_bytes; }

}  // namespace tessera::checkpoint
