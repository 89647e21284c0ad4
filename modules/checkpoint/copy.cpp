// SPDX-License-Identifier: Apache-2.0
#include "tessera/checkpoint/copy.hpp"

#include <algorithm>
#include <array>
#include <cmath>

#include "base/error.hpp"
#include "batches.hpp"
#include "tessera/checkpoint/hdf5_store.hpp"

namespace tessera::checkpoint {
namespace {

/// Fingerprints of a copy: of values as read and as handed on, and of scales as read.
struct Tables {
  FingerprintTable read, handed_on, scales;
};

/// Every rank sums the same tensors, those of which it reads nothing included.
Tables expected_tables(const Source& source, std::span<const Parameter> parameters) {
  Tables tables;
  for (const Parameter& parameter : parameters) {
    const std::int64_t num_experts = parameter.is_expert ? parameter.shape[0] : 1;
    tables.read.expect(parameter.name, num_experts);
    tables.handed_on.expect(parameter.name, num_experts);
    if (source.origin(parameter).mxfp4) tables.scales.expect(parameter.name, num_experts);
  }
  return tables;
}

void hash_scales(const Batch& batch, const ScaleShards& scales, FingerprintTable& table) {
  for (const Slice& slice : batch.slices) {
    const Parameter& parameter = *slice.parameter;
    const auto of_blocks = scales.find(parameter.name);
    if (of_blocks == scales.end()) continue;
    Shape shape = parameter.shape;
    shape.back() /= mxfp4_block_elements;
    table.add_bytes(parameter.name, shape, parameter.is_expert, slice.begin / mxfp4_block_elements,
                    of_blocks->second);
  }
}

void require_same(ErrorKind kind, const Parameter& parameter, const TensorFingerprint& actual,
                  const TensorFingerprint* expected, const std::string& whose, const char* reason) {
  for (std::size_t e = 0; expected != nullptr && e < actual.experts.size(); ++e) {
    if (actual.experts[e] == expected->experts[e]) continue;
    fail(kind, "'{}'{}: {} has fingerprint {} instead of {} ({})", parameter.name,
         parameter.is_expert ? fmt::format(", expert {}", e) : "", whose,
         to_string(actual.experts[e]), to_string(expected->experts[e]), reason);
  }
}

/// `tables` are summed over the ranks. A Hugging Face directory states nothing.
void require_proof(const Source& source, std::span<const Parameter> parameters,
                   const Tables& tables) {
  constexpr const char* damaged =
      "the file was damaged or changed since it was written; `tessera verify` lists all that "
      "differs";
  const auto* file = dynamic_cast<const Hdf5Source*>(&source);
  const auto stated = [&](const char* group, const Parameter& parameter) {
    return file == nullptr ? nullptr : file->fingerprint(group, parameter.name);
  };
  const std::string path = source.path().string();
  for (const Parameter& parameter : parameters) {
    const TensorFingerprint& read = *tables.read.find(parameter.name);
    const TensorFingerprint& handed_on = *tables.handed_on.find(parameter.name);
    require_same(ErrorKind::format, parameter, read, stated("parameters", parameter), path,
                 damaged);
    require_same(ErrorKind::internal, parameter, handed_on, &read, "what would be written",
                 "that is not what was read");
    if (const TensorFingerprint* scales = tables.scales.find(parameter.name))
      require_same(ErrorKind::format, parameter, *scales, stated("mxfp4_scales", parameter),
                   path + "'s MXFP4 scales", damaged);
  }
}

}  // namespace

CopyReport copy_parameters(const comm::ProcessGrid& grid, Source& source,
                           std::span<const Parameter> parameters, const PortionConsumer& consumer,
                           bool verify, const CopyProgress& progress) {
  const comm::Communicator& world = grid.world();
  CopyReport report;
  Tables tables;
  if (verify) tables = expected_tables(source, parameters);
  const std::vector<Batch> batches = plan_batches(parameters, world.size(), world.rank());
  std::vector<float> shard;
  for (std::size_t k = 0; k < batches.size(); ++k) {
    const Batch& batch = batches[k];
    ScaleShards scales;
    LoadOptions options;
    options.scales = &scales;
    if (verify) options.fingerprints = &tables.read, options.placed = &tables.handed_on;
    shard.resize(static_cast<std::size_t>(batch.shard_size));
    report.load += source.load(grid, batch.parameters, batch.slices, shard, options);
    if (verify) hash_scales(batch, scales, tables.scales);
    consumer({batch.parameters, batch.slices, shard, scales});
    if (progress) progress(std::int64_t(k) + 1, std::ssize(batches));
  }
  if (!verify) return report;
  FingerprintTable::sum(world, std::array{&tables.read, &tables.handed_on, &tables.scales});
  require_proof(source, parameters, tables);
  report.fingerprints = std::move(tables.read);
  return report;
}

std::vector<CopyPlan> plan_copy(const Source& source, std::span<const Parameter> parameters,
                                int num_ranks) {
  std::vector<double> bytes_per_element;
  for (const Parameter& parameter : parameters)
    bytes_per_element.push_back(double(source.stored_bytes(parameter)) /
                                double(std::max<std::int64_t>(parameter.size(), 1)));
  std::vector<CopyPlan> plans;
  for (int rank = 0; rank < num_ranks; ++rank) {
    double read_bytes = 0.0;
    std::int64_t largest_shard = 0;
    for (const Batch& batch : plan_batches(parameters, num_ranks, rank)) {
      for (const Slice& slice : batch.slices)
        read_bytes += bytes_per_element[std::size_t(slice.parameter - parameters.data())] *
                      double(slice.size());
      largest_shard = std::max(largest_shard, batch.shard_size);
    }
    const std::int64_t shard_bytes = largest_shard * std::int64_t(sizeof(float));
    plans.push_back(
        {std::llround(read_bytes),
         shard_bytes + shard_bytes / mxfp4_block_elements / 4 + LoadOptions{}.buffer_bytes});
  }
  return plans;
}

}  // namespace tessera::checkpoint
