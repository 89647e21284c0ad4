// SPDX-License-Identifier: Apache-2.0
// One checkpoint against its own fingerprints.
#include <map>

#include "batches.hpp"
#include "comm/agree.hpp"
#include "expert_changes.hpp"
#include "hdf5_file.hpp"
#include "tessera/checkpoint/verify.hpp"

namespace tessera::checkpoint {
namespace {

constexpr std::size_t max_lines_per_tensor = 8;

/// The datasets of a file as parameters, by group.
std::map<std::string, std::vector<Parameter>> parameters_by_group(const Hdf5Source& source) {
  std::map<std::string, std::vector<Parameter>> groups;
  for (const StoredDataset& dataset : source.datasets()) {
    groups[dataset.group].push_back({.name = dataset.info.name,
                                     .shape = dataset.info.shape,
                                     .is_expert = dataset.is_expert,
                                     .transposed = dataset.is_transposed});
  }
  return groups;
}

std::int64_t total_bytes(const Hdf5Source& source) {
  std::int64_t sum = 0;
  for (const StoredDataset& dataset : source.datasets()) sum += dataset.info.bytes();
  return sum;
}

/// Hashes batches while it counts them.
class Hasher {
 public:
  Hasher(const comm::ProcessGrid& grid, std::int64_t total_bytes, const Progress& progress)
      : grid_(grid), total_bytes_(total_bytes), progress_(progress) {}

  /// `load(batch, options)` reads one batch. Its bytes are those of all ranks after sum().
  template <class Load>
  void hash(std::span<const Parameter> parameters, FingerprintTable& table, Load&& load) {
    const comm::Communicator& world = grid_.world();
    LoadOptions options{.fingerprints = &table};
    for (const Batch& batch : plan_batches(parameters, world.size(), world.rank())) {
      const LoadReport report = load(batch, options);
      read_bytes_ += report.read_bytes;
      if (progress_) progress_(read_bytes_ * world.size(), total_bytes_);
    }
    // Ranks that read nothing of a tensor, and tensors without elements.
    for (const Parameter& parameter : parameters) {
      table.expect(parameter.name, parameter.is_expert ? parameter.shape[0] : 1);
    }
  }

  std::int64_t read_bytes() const {
    return grid_.world().all_reduce_value("bytes read", read_bytes_, comm::ReduceOp::sum);
  }

 private:
  const comm::ProcessGrid& grid_;
  std::int64_t total_bytes_;
  const Progress& progress_;
  std::int64_t read_bytes_ = 0;
};

void hash_group(const comm::ProcessGrid& grid, Hdf5Source& source, const std::string& group,
                const std::vector<Parameter>& parameters, Hasher& hasher, FingerprintTable& table) {
  if (group == scales_group || group == files_group) {
    std::vector<std::uint8_t> shard;
    hasher.hash(parameters, table, [&](const Batch& batch, const LoadOptions& options) {
      shard.resize(static_cast<std::size_t>(batch.shard_size));
      return source.load_bytes(grid, group, batch.parameters, batch.slices, shard, options);
    });
    return;
  }
  std::vector<float> shard;
  hasher.hash(parameters, table, [&](const Batch& batch, const LoadOptions& options) {
    shard.resize(static_cast<std::size_t>(batch.shard_size));
    return source.load_group(grid, group, batch.parameters, batch.slices, shard, options);
  });
}

std::string line_of(const StoredDataset& dataset, const ExpertChange& change,
                    const TensorFingerprint& found) {
  const std::string subject = dataset.is_expert
                                  ? fmt::format("{}: expert {}", dataset.path(), change.expert)
                                  : dataset.path();
  switch (change.kind) {
    case ExpertChange::Kind::moved:
      return fmt::format("{} holds what was written as expert {}", subject, change.from);
    case ExpertChange::Kind::zeroed:
      return fmt::format("{} is all zeros, which it was not when it was written", subject);
    case ExpertChange::Kind::changed: break;
  }
  return fmt::format("{} is not what was written: its fingerprint is {}, not {}", subject,
                     to_string(found.experts[change.expert]),
                     to_string(dataset.fingerprint.experts[change.expert]));
}

void add_lines(const StoredDataset& dataset, const TensorFingerprint& found,
               std::vector<std::string>& lines) {
  const auto changes =
      find_changes(dataset.info.shape, dataset.info.dtype, dataset.fingerprint, found);
  for (std::size_t i = 0; i < changes.size(); ++i) {
    if (i == max_lines_per_tensor) {
      lines.push_back(
          fmt::format("{}: {} more experts differ", dataset.path(), changes.size() - i));
      return;
    }
    lines.push_back(line_of(dataset, changes[i], found));
  }
}

void count(const FingerprintTable& table, VerifyReport& report) {
  for (const auto& [name, fingerprint] : table.tensors()) {
    ++report.num_tensors;
    report.num_fingerprints += std::ssize(fingerprint.experts);
  }
}

}  // namespace

VerifyReport verify_file(const comm::ProcessGrid& grid, Hdf5Source& source,
                         const Progress& progress) {
  const auto groups = parameters_by_group(source);
  Hasher hasher(grid, total_bytes(source), progress);
  std::map<std::string, FingerprintTable> tables;
  std::vector<FingerprintTable*> all;
  for (const auto& [group, parameters] : groups) {
    hash_group(grid, source, group, parameters, hasher, tables[group]);
    all.push_back(&tables[group]);
  }
  FingerprintTable::sum(grid.world(), all);

  VerifyReport report;
  report.read_bytes = hasher.read_bytes();
  report.parameters = fingerprint_of(tables[parameters_group]);
  for (const auto& [group, table] : tables) count(table, report);
  for (const StoredDataset& dataset : source.datasets()) {
    if (dataset.fingerprint.experts.empty()) {
      report.has_stored_fingerprints = false;
    } else {
      add_lines(dataset, *tables[dataset.group].find(dataset.info.name), report.differences);
    }
  }
  return report;
}

VerifyReport hash_source(const comm::ProcessGrid& grid, Source& source,
                         std::span<const Parameter> parameters, const Progress& progress) {
  std::int64_t total_bytes = 0;
  for (const Parameter& parameter : parameters) total_bytes += source.stored_bytes(parameter);
  Hasher hasher(grid, total_bytes, progress);
  FingerprintTable table;
  std::vector<float> shard;
  hasher.hash(parameters, table, [&](const Batch& batch, const LoadOptions& options) {
    shard.resize(static_cast<std::size_t>(batch.shard_size));
    return source.load(grid, batch.parameters, batch.slices, shard, options);
  });
  table.sum(grid.world());
  VerifyReport report;
  report.has_stored_fingerprints = false;
  report.read_bytes = hasher.read_bytes();
  report.parameters = fingerprint_of(table);
  count(table, report);
  return report;
}

}  // namespace tessera::checkpoint
