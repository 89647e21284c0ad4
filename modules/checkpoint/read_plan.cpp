// SPDX-License-Identifier: Apache-2.0
#include "read_plan.hpp"

#include <algorithm>
#include <unordered_map>

#include "base/contract.hpp"
#include "base/error.hpp"
#include "comm/agree.hpp"

namespace tessera::checkpoint {
namespace {

using SliceByName = std::unordered_map<std::string, Slice>;

SliceByName index_slices(std::span<const Slice> slices) {
  SliceByName by_name;
  for (const Slice& slice : slices) {
    const bool is_first = by_name.emplace(slice.parameter->name, slice).second;
    TESSERA_EXPECT(is_first);
  }
  return by_name;
}

Slice slice_of(const SliceByName& by_name, const Parameter& parameter) {
  const auto found = by_name.find(parameter.name);
  return found == by_name.end() ? Slice{&parameter, 0, 0, 0} : found->second;
}

/// The slices of all ranks of the replica group, [transposed parameter][rank]. collective over
/// replica.
std::vector<std::vector<Range>> gather_slices(const comm::Communicator& replica,
                                              std::span<const Parameter> parameters,
                                              const SliceByName& by_name) {
  std::vector<std::int64_t> mine;
  for (const Parameter& parameter : parameters) {
    if (!parameter.transposed) continue;
    // Only expert tensors are stored transposed, and only their shards make up whole experts per
    // group.
    TESSERA_EXPECT(parameter.is_expert && parameter.shape.size() == 3);
    const Slice slice = slice_of(by_name, parameter);
    mine.insert(mine.end(), {slice.begin, slice.end});
  }
  if (mine.empty()) return {};
  const auto num_ranks = static_cast<std::size_t>(replica.size());
  std::vector<std::int64_t> all(mine.size() * num_ranks);
  replica.all_gather("slices of transposed tensors", std::span<const std::int64_t>(mine),
                     std::span(all));
  std::vector<std::vector<Range>> ranges(mine.size() / 2, std::vector<Range>(num_ranks));
  for (std::size_t rank = 0; rank < num_ranks; ++rank)
    for (std::size_t k = 0; k < ranges.size(); ++k)
      ranges[k][rank] = {all[rank * mine.size() + 2 * k], all[rank * mine.size() + 2 * k + 1]};
  return ranges;
}

/// The tensor, which must be as the parameter needs it: what compare_keys reports is an error here.
const StoredTensor& require_tensor(const TensorLookup& lookup, const Parameter& parameter) {
  const StoredTensor* tensor = lookup(parameter);
  if (tensor == nullptr)
    fail(ErrorKind::keys, "the checkpoint has no tensor '{}' (the model needs it)", parameter.name);
  const Dtype dtype = tensor->info.dtype;
  const bool is_weight =
      dtype == Dtype::f32 || dtype == Dtype::bf16 || dtype == Dtype::f16 || dtype == Dtype::f64;
  if (!is_weight || tensor->info.shape != parameter.checkpoint_shape())
    fail(ErrorKind::keys, "tensor '{}' is {} {} in {} but the model needs weights {}",
         parameter.name, to_string(dtype), to_string(tensor->info.shape), tensor->info.file,
         to_string(parameter.checkpoint_shape()));
  return *tensor;
}

void add_contiguous(ReadPlan& plan, const StoredTensor& tensor, const Slice& slice,
                    std::int64_t buffer_bytes) {
  if (slice.size() == 0) return;
  ContiguousRead read{&tensor, 0, slice.size(), slice.shard_offset};
  read.offset_bytes = tensor.offset_bytes + slice.begin * read.element_bytes();
  const std::int64_t bytes = slice.size() * read.element_bytes();
  plan.planned_bytes += bytes;
  // f32 is read in place.
  if (tensor.info.dtype != Dtype::f32)
    plan.staging_bytes = std::max(plan.staging_bytes, std::min(bytes, buffer_bytes));
  plan.contiguous.push_back(read);
}

void add_exchanged(ReadPlan& plan, TransposedRead read, const Slice& slice, int rank) {
  plan.planned_bytes += read.planned_bytes(rank);
  plan.staging_bytes = std::max(plan.staging_bytes, read.staging_bytes());
  plan.exchanged.push_back({std::move(read), slice});
}

}  // namespace

ReadPlan make_read_plan(const comm::ProcessGrid& grid, std::span<const Parameter> parameters,
                        std::span<const Slice> slices, const TensorLookup& lookup,
                        std::int64_t buffer_bytes) {
  const SliceByName by_name = index_slices(slices);
  const auto group_slices = gather_slices(grid.replica(), parameters, by_name);
  return comm::agreed(grid.world(), "plan the reads", [&] {
    if (buffer_bytes < std::int64_t(sizeof(double)))
      fail(ErrorKind::usage, "a staging buffer of {} bytes cannot hold one element", buffer_bytes);
    ReadPlan plan;
    std::size_t transposed_idx = 0;
    for (const Parameter& parameter : parameters) {
      const StoredTensor& tensor = require_tensor(lookup, parameter);
      const Slice slice = slice_of(by_name, parameter);
      if (parameter.transposed)
        add_exchanged(plan, {tensor, group_slices[transposed_idx++], buffer_bytes}, slice,
                      grid.replica().rank());
      else
        add_contiguous(plan, tensor, slice, buffer_bytes);
    }
    plan.staging = std::make_unique_for_overwrite<std::byte[]>(std::size_t(plan.staging_bytes));
    return plan;
  });
}

}  // namespace tessera::checkpoint
