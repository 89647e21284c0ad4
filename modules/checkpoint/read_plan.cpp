// SPDX-License-Identifier: Apache-2.0
#include "read_plan.hpp"

#include <algorithm>
#include <unordered_map>

#include "base/contract.hpp"
#include "base/error.hpp"
#include "comm/agree.hpp"
#include "slices.hpp"

namespace tessera::checkpoint {
namespace {

// Elements of the largest type that are read in one step, at least: a block of the fingerprint.
constexpr std::int64_t min_buffer_bytes = 32 * sizeof(double);
// Of one step: what is read and what it becomes stay in the second cache until they are hashed.
constexpr std::int64_t step_bytes = 256 << 10;

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

/// A parameter and the tensors that hold it.
struct Located {
  const Parameter* parameter = nullptr;
  std::vector<StoredPart> stored;
  std::vector<EncodedPart> encoded;  ///< of each stored part

  /// Only plain tensors are [E, in, out]; MXFP4 blocks are in Tessera's order.
  bool is_exchanged() const {
    return parameter->transposed && encoded.front().encoding == Encoding::plain;
  }
};

/// What compare_keys reports is an error here, the same on all ranks because headers are.
Located locate(const Source& source, const Parameter& parameter) {
  Located located{&parameter, source.parts(parameter), {}};
  TESSERA_EXPECT(!parameter.transposed || located.stored.size() == 1);
  for (const StoredPart& part : located.stored) {
    EncodedPart encoded = find_part(source, parameter, part);
    if (encoded.is_missing())
      fail(ErrorKind::keys, "the checkpoint has no tensor '{}' (the model needs it)", part.tensor);
    if (!encoded.is_readable())
      fail(ErrorKind::keys, "the checkpoint does not fit the model: {}", encoded.problem);
    TESSERA_EXPECT(encoded.encoding != Encoding::mxfp4 || located.stored.size() == 1);
    located.encoded.push_back(std::move(encoded));
  }
  return located;
}

/// The slices of all ranks of the replica group, [exchanged parameter][rank]. collective over
/// replica.
std::vector<std::vector<Range>> gather_slices(const comm::Communicator& replica,
                                              std::span<const Located> located,
                                              const SliceByName& by_name) {
  std::vector<std::int64_t> mine;
  for (const Located& each : located) {
    if (!each.is_exchanged()) continue;
    // Only expert tensors are stored transposed, and only their shards make up whole experts per
    // group.
    TESSERA_EXPECT(each.parameter->is_expert && each.parameter->shape.size() == 3);
    const Slice slice = slice_of(by_name, *each.parameter);
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

/// Staging memory that the read needs if it is to be read in one step, and at least.
struct Staging {
  std::int64_t whole_bytes = 0;
  std::int64_t least_bytes = min_buffer_bytes;
};

Staging staging_of(const PartRead& read) {
  if (read.encoding == Encoding::fp8) {
    const std::int64_t num_factors = read.scale_rows().size() * read.scales->shape[1];
    const std::int64_t factor_bytes = num_factors * std::int64_t(sizeof(float));
    // Scales are read behind the place that they are widened to, then elements take theirs.
    return {factor_bytes + std::max(factor_bytes, std::min(read.num_elements, step_bytes)),
            factor_bytes + std::max(factor_bytes, min_buffer_bytes)};
  }
  // f32 is read in place.
  const bool is_in_place = read.encoding == Encoding::plain && read.values->dtype == Dtype::f32;
  return {is_in_place ? 0 : std::min(read.bytes(), step_bytes), min_buffer_bytes};
}

/// FP8 scales stay in the buffer while their elements pass through it: a read whose scales would
/// fill more than half of it is cut after whole rows of scales.
std::int64_t elements_of_one_read(const PartRead& read, std::int64_t buffer_bytes) {
  if (read.encoding != Encoding::fp8) return read.num_elements;
  const std::int64_t scale_row_bytes = read.scales->shape[1] * std::int64_t(sizeof(float));
  const std::int64_t room_bytes = std::min(buffer_bytes / 2, buffer_bytes - min_buffer_bytes);
  const std::int64_t rows = std::max<std::int64_t>(1, room_bytes / scale_row_bytes);
  const std::int64_t strip = rows * fp8_block * read.values->shape[1];
  return std::min(read.num_elements, strip - read.tensor_begin % strip);
}

void add_read(ReadPlan& plan, PartRead read, std::int64_t buffer_bytes) {
  const std::int64_t end = read.tensor_begin + read.num_elements;
  while (read.tensor_begin < end) {
    read.num_elements = end - read.tensor_begin;
    read.num_elements = elements_of_one_read(read, buffer_bytes);
    const Staging staging = staging_of(read);
    const std::int64_t least_bytes = std::min(staging.least_bytes, staging.whole_bytes);
    if (least_bytes > buffer_bytes)
      fail(ErrorKind::usage,
           "a staging buffer of {} bytes is too small for {} (its elements pass through it) give "
           "at least {} bytes",
           buffer_bytes, read.values->name, least_bytes);
    plan.planned_bytes += read.bytes();
    plan.staging_bytes = std::max(plan.staging_bytes, std::min(staging.whole_bytes, buffer_bytes));
    plan.parts.push_back(read);
    read.tensor_begin += read.num_elements;
    read.parameter_begin += read.num_elements;
    read.shard_offset += read.num_elements;
  }
}

/// The parts of `slice`: what of each tensor lies within it.
void add_parts(ReadPlan& plan, const Located& located, const Slice& slice,
               std::int64_t buffer_bytes) {
  std::int64_t covered = 0;
  for (std::size_t k = 0; k < located.stored.size(); ++k) {
    const StoredPart& part = located.stored[k];
    const EncodedPart& encoded = located.encoded[k];
    const std::int64_t begin = std::max(slice.begin, part.begin);
    const std::int64_t end = std::min(slice.end, part.begin + part.size);
    if (begin >= end) continue;
    covered += end - begin;
    TESSERA_EXPECT(encoded.encoding != Encoding::mxfp4 ||
                   (begin % mxfp4_block_elements == 0 && end % mxfp4_block_elements == 0));
    add_read(plan,
             {located.parameter, encoded.encoding, encoded.values, encoded.scales,
              part.tensor_begin + begin - part.begin, begin, end - begin,
              slice.shard_offset + begin - slice.begin},
             buffer_bytes);
  }
  TESSERA_EXPECT(covered == slice.size());
}

void add_exchanged(ReadPlan& plan, TransposedRead read, const Slice& slice, int rank) {
  plan.planned_bytes += read.planned_bytes(rank);
  plan.staging_bytes = std::max(plan.staging_bytes, read.staging_bytes());
  plan.exchanged.push_back({std::move(read), slice});
}

void require_buffer(std::int64_t buffer_bytes) {
  if (buffer_bytes < min_buffer_bytes)
    fail(ErrorKind::usage,
         "a staging buffer of {} bytes is too small (elements are read through it in blocks) "
         "give at least {} bytes",
         buffer_bytes, min_buffer_bytes);
}

void allocate(ReadPlan& plan) {
  plan.staging = std::make_unique_for_overwrite<std::byte[]>(std::size_t(plan.staging_bytes));
}

}  // namespace

Range PartRead::scale_rows() const {
  const std::int64_t num_columns = values->shape[1];
  return {tensor_begin / num_columns / fp8_block,
          (tensor_begin + num_elements - 1) / num_columns / fp8_block + 1};
}

std::int64_t PartRead::bytes() const {
  switch (encoding) {
    case Encoding::plain: return num_elements * std::int64_t(size_of(values->dtype));
    case Encoding::mxfp4: return num_elements / mxfp4_block_elements * (mxfp4_block_bytes + 1);
    case Encoding::fp8:
      return num_elements +
             scale_rows().size() * scales->shape[1] * std::int64_t(size_of(scales->dtype));
  }
  return 0;
}

ReadPlan make_read_plan(const comm::ProcessGrid& grid, const Source& source,
                        std::span<const Parameter> parameters, std::span<const Slice> slices,
                        std::int64_t buffer_bytes) {
  const SliceByName by_name = index_slices(slices);
  std::vector<Located> located;
  for (const Parameter& parameter : parameters) located.push_back(locate(source, parameter));
  const auto group_slices = gather_slices(grid.replica(), located, by_name);
  return comm::agreed(grid.world(), "plan the reads", [&] {
    require_buffer(buffer_bytes);
    ReadPlan plan;
    std::size_t exchanged_idx = 0;
    for (const Located& each : located) {
      const Slice slice = slice_of(by_name, *each.parameter);
      if (each.is_exchanged())
        add_exchanged(plan,
                      {*each.encoded.front().values, group_slices[exchanged_idx++], buffer_bytes},
                      slice, grid.replica().rank());
      else
        add_parts(plan, each, slice, buffer_bytes);
    }
    allocate(plan);
    return plan;
  });
}

ReadPlan plan_tensors(std::span<const Parameter> parameters,
                      std::span<const TensorInfo* const> tensors, std::span<const Slice> slices,
                      std::int64_t shard_size, std::int64_t buffer_bytes) {
  require_buffer(buffer_bytes);
  ReadPlan plan;
  const std::vector<Slice> mine = slices_by_parameter(parameters, slices, shard_size);
  for (std::size_t k = 0; k < mine.size(); ++k) {
    const Slice& slice = mine[k];
    add_read(plan,
             {&parameters[k], Encoding::plain, tensors[k], nullptr, slice.begin, slice.begin,
              slice.size(), slice.shard_offset},
             buffer_bytes);
  }
  allocate(plan);
  return plan;
}

}  // namespace tessera::checkpoint
