// SPDX-License-Identifier: Apache-2.0
#include "tessera/checkpoint/load_bf16.hpp"

#include <algorithm>

namespace tessera::checkpoint {
namespace {

constexpr std::int64_t piece_elements = 4 << 20;

/// How one parameter is cut: this rank's pieces begin at `first` and have `step` elements.
struct Pieces {
  std::int64_t first = 0;
  std::int64_t step = piece_elements;
  std::int64_t count = 0;  ///< the same on all ranks
};

const Slice* find_slice(std::span<const Slice> slices, const Parameter& parameter) {
  const auto found = std::find_if(slices.begin(), slices.end(), [&](const Slice& slice) {
    return slice.parameter->name == parameter.name;
  });
  return found == slices.end() ? nullptr : &*found;
}

/// Whether the ranks of a replica group exchange its elements; never told by the shape, which may
/// be square.
bool is_turned(const Source& source, const Parameter& parameter) {
  return parameter.transposed && !source.origin(parameter).mxfp4;
}

/// Each rank begins with its own slice, so that all read at once; those that turn a tensor together
/// begin with the first of their common experts, which stay whole. collective over grid.world().
std::vector<Pieces> cut(const comm::ProcessGrid& grid, const Source& source,
                        std::span<const Parameter> parameters, std::span<const Slice> slices) {
  std::vector<Pieces> all(parameters.size());
  std::vector<std::int64_t> begins, ends, counts;
  for (const Parameter& parameter : parameters) {
    const Slice* slice = find_slice(slices, parameter);
    begins.push_back(slice == nullptr ? parameter.size() : slice->begin);
    ends.push_back(slice == nullptr ? 0 : slice->end);
  }
  std::vector<std::int64_t> group_begins = begins, group_ends = ends;
  grid.replica().all_reduce("slice begins", std::span(group_begins), comm::ReduceOp::min);
  grid.replica().all_reduce("slice ends", std::span(group_ends), comm::ReduceOp::max);
  for (std::size_t i = 0; i < all.size(); ++i) {
    const Parameter& parameter = parameters[i];
    if (is_turned(source, parameter)) {
      const std::int64_t expert = parameter.size() / parameter.shape[0];
      all[i].step = std::max<std::int64_t>(piece_elements / expert, 1) * expert;
      begins[i] = group_begins[i];
      ends[i] = group_ends[i];
    }
    all[i].first = begins[i];
    counts.push_back(std::max<std::int64_t>(ends[i] - begins[i] + all[i].step - 1, 0) /
                     all[i].step);
  }
  grid.world().all_reduce("pieces", std::span(counts), comm::ReduceOp::max);
  for (std::size_t i = 0; i < all.size(); ++i) all[i].count = counts[i];
  return all;
}

}  // namespace

LoadReport load_bf16(const comm::ProcessGrid& grid, Source& source,
                     std::span<const Parameter> parameters, std::span<const Slice> slices,
                     std::span<bf16> shard, const LoadOptions& options) {
  const std::vector<Pieces> pieces = cut(grid, source, parameters, slices);
  LoadReport report;
  std::vector<float> wide;
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    const Slice* slice = find_slice(slices, parameters[i]);
    for (std::int64_t k = 0; k < pieces[i].count; ++k) {
      const std::int64_t begin = pieces[i].first + k * pieces[i].step;
      std::vector<Slice> part;
      if (slice != nullptr) {
        part.push_back({&parameters[i], std::max(begin, slice->begin),
                        std::min(begin + pieces[i].step, slice->end), 0});
        if (part.front().size() <= 0) part.clear();
      }
      wide.resize(part.empty() ? 0 : static_cast<std::size_t>(part.front().size()));
      report += source.load(grid, parameters.subspan(i, 1), part, wide, options);
      if (part.empty()) continue;
      const std::int64_t to = slice->shard_offset + part.front().begin - slice->begin;
      std::copy(wide.begin(), wide.end(), shard.begin() + to);
    }
  }
  return report;
}

}  // namespace tessera::checkpoint
