// SPDX-License-Identifier: Apache-2.0
// Two checkpoints of one model, element by element and expert by expert.
#include <algorithm>

#include "batches.hpp"
#include "expert_changes.hpp"
#include "first_differences.hpp"
#include "narrow.hpp"
#include "tessera/checkpoint/encoding.hpp"
#include "tessera/checkpoint/verify.hpp"
#include "widen.hpp"

namespace tessera::checkpoint {
namespace {

constexpr std::size_t max_lines_per_tensor = 8;

/// "byte 96", or "byte 96 of <tensor>" where that has another name; in the checkpoint's encoding.
std::string place_in(const Source& source, const Parameter& parameter, std::int64_t element) {
  for (const StoredPart& part : source.parts(parameter)) {
    if (element < part.begin || element >= part.begin + part.size) continue;
    const EncodedPart encoded = find_part(source, parameter, part);
    std::int64_t at = part.tensor_begin + element - part.begin;
    if (encoded.encoding == Encoding::mxfp4) {
      return fmt::format("byte {} of {}", at / 2, encoded.values->name);
    }
    const bool is_tessera = dynamic_cast<const Hdf5Source*>(&source) != nullptr;
    if (parameter.transposed && !is_tessera) {
      const std::int64_t rows = parameter.shape[1], columns = parameter.shape[2];
      const std::int64_t within = at % (rows * columns);
      at += within % columns * rows + within / columns - within;
    }
    const std::int64_t byte = at * std::int64_t(size_of(encoded.values->dtype));
    if (encoded.values->name == parameter.name) return fmt::format("byte {}", byte);
    return fmt::format("byte {} of {}", byte, encoded.values->name);
  }
  return "nowhere";
}

/// "[3, 10, 5]", as transformers counts.
std::string index_text(const Parameter& parameter, std::int64_t element) {
  Shape index(parameter.shape.size());
  for (std::size_t d = index.size(); d-- > 0;) {
    index[d] = element % parameter.shape[d];
    element /= parameter.shape[d];
  }
  if (parameter.transposed) std::swap(index[1], index[2]);
  return to_string(index);
}

/// Rounds `values`, which begin at element `begin` of the parameter, to the element types that
/// `source` stores it in. MXFP4 and FP8 are no types that a value could be rounded to: left alone.
void round_as_stored(const Source& source, const Parameter& parameter, std::int64_t begin,
                     std::span<float> values) {
  const std::int64_t end = begin + std::ssize(values);
  std::vector<std::byte> narrowed;
  for (const StoredPart& part : source.parts(parameter)) {
    const std::int64_t first = std::max(begin, part.begin);
    const std::int64_t size = std::min(end, part.begin + part.size) - first;
    const EncodedPart encoded = find_part(source, parameter, part);
    if (size <= 0 || encoded.encoding != Encoding::plain) continue;
    const Dtype dtype = encoded.values->dtype;
    narrowed.resize(std::size_t(size) * size_of(dtype));
    narrow(dtype, values.data() + (first - begin), size, narrowed.data());
    widen(dtype, narrowed.data(), size, values.data() + (first - begin));
  }
}

/// Two checkpoints whose parameters are compared; both lists have the same names and shapes.
struct Comparison {
  Source &a, &b;
  std::vector<Parameter> of_a, of_b;
  FingerprintTable table_a, table_b;
  std::int64_t read_bytes = 0;

  /// Leaves out, and reports, what only one of them has or what they have in different shapes.
  Comparison(Source& a, Source& b, std::span<const Parameter> all_a,
             std::span<const Parameter> all_b, std::vector<std::string>& lines)
      : a(a), b(b) {
    for (const Parameter& parameter : all_a) {
      const auto other = std::ranges::find(all_b, parameter.name, &Parameter::name);
      const bool in_a = a.has(parameter), in_b = other != all_b.end() && b.has(*other);
      if (in_a != in_b) {
        lines.push_back(
            fmt::format("{}: only {} has it", parameter.name, (in_a ? a : b).path().string()));
      } else if (in_a && other->shape != parameter.shape) {
        lines.push_back(fmt::format("{}: {} against {}", parameter.name,
                                    to_string(parameter.checkpoint_shape()),
                                    to_string(other->checkpoint_shape())));
      } else if (in_a) {
        of_a.push_back(parameter);
        of_b.push_back(*other);
      }
    }
    for (const Parameter& parameter : all_b) {
      if (std::ranges::find(all_a, parameter.name, &Parameter::name) != all_a.end()) continue;
      if (b.has(parameter)) {
        lines.push_back(fmt::format("{}: only {} has it", parameter.name, b.path().string()));
      }
    }
  }

  std::int64_t total_bytes() const {
    std::int64_t sum = 0;
    for (std::size_t p = 0; p < of_a.size(); ++p) {
      sum += a.stored_bytes(of_a[p]) + b.stored_bytes(of_b[p]);
    }
    return sum;
  }

  void read(const comm::ProcessGrid& grid, Compare how, const Progress& progress,
            FirstDifferences& differences) {
    const comm::Communicator& world = grid.world();
    const auto batches_a = plan_batches(of_a, world.size(), world.rank());
    const auto batches_b = plan_batches(of_b, world.size(), world.rank());
    const std::int64_t total = total_bytes();
    std::vector<float> shard_a, shard_b;
    for (std::size_t i = 0; i < batches_a.size(); ++i) {
      const Batch &batch_a = batches_a[i], &batch_b = batches_b[i];
      shard_a.resize(std::size_t(batch_a.shard_size));
      shard_b.resize(std::size_t(batch_b.shard_size));
      const bool is_rounded = how == Compare::rounded;
      const LoadOptions from_a{.fingerprints = is_rounded ? nullptr : &table_a},
          from_b{.fingerprints = &table_b};
      read_bytes += a.load(grid, batch_a.parameters, batch_a.slices, shard_a, from_a).read_bytes +
                    b.load(grid, batch_b.parameters, batch_b.slices, shard_b, from_b).read_bytes;
      for (const Slice& slice : batch_a.slices) {
        if (is_rounded) round_a(slice, shard_a);
        differences.compare(std::size_t(slice.parameter - of_a.data()), slice,
                            shard_a.data() + slice.shard_offset,
                            shard_b.data() + slice.shard_offset);
      }
      if (progress) progress(read_bytes * world.size(), total);
    }
    expect_all();
  }

  void round_a(const Slice& slice, std::span<float> shard) {
    const std::span<float> values =
        shard.subspan(std::size_t(slice.shard_offset), std::size_t(slice.size()));
    round_as_stored(b, of_b[std::size_t(slice.parameter - of_a.data())], slice.begin, values);
    table_a.add(*slice.parameter, slice.begin, values);
  }

  // All ranks must sum the same tensors.
  void expect_all() {
    for (const Parameter& parameter : of_a) {
      const std::int64_t num_experts = parameter.is_expert ? parameter.shape[0] : 1;
      table_a.expect(parameter.name, num_experts);
      table_b.expect(parameter.name, num_experts);
    }
  }

  std::string line_of(std::size_t p, const ExpertChange& change,
                      const FirstDifferences& differences) const {
    const Parameter& parameter = of_a[p];
    const std::string& name = parameter.name;
    const auto [e, kind, from] = change;
    if (kind == ExpertChange::Kind::moved) {
      return fmt::format("{}: expert {} of {} is expert {} of {}", name, e, b.path().string(), from,
                         a.path().string());
    }
    const std::string subject = parameter.is_expert ? fmt::format("{}: expert {}", name, e) : name;
    if (kind == ExpertChange::Kind::zeroed) {
      return fmt::format("{} of {} is all zeros", subject, b.path().string());
    }
    const auto [value_a, value_b] = differences.values(p, e);
    const std::int64_t first = differences.first(p, e);
    return fmt::format("{}: {} of {} elements differ, first {}: {:.9g} ({}) against {:.9g} ({})",
                       subject, differences.count(p, e), table_a.find(name)->num_elements[e],
                       index_text(parameter, first), value_a, place_in(a, of_a[p], first), value_b,
                       place_in(b, of_b[p], first));
  }

  void add_lines(std::size_t p, const FirstDifferences& differences,
                 std::vector<std::string>& lines) const {
    const std::string& name = of_a[p].name;
    const auto changes =
        find_changes(of_a[p].shape, Dtype::f32, *table_a.find(name), *table_b.find(name));
    for (std::size_t i = 0; i < changes.size(); ++i) {
      if (i == max_lines_per_tensor) {
        lines.push_back(fmt::format("{}: {} more experts differ", name, changes.size() - i));
        return;
      }
      lines.push_back(line_of(p, changes[i], differences));
    }
  }
};

}  // namespace

VerifyReport compare_sources(const comm::ProcessGrid& grid, Source& a, Source& b,
                             std::span<const Parameter> of_a, std::span<const Parameter> of_b,
                             Compare how, const Progress& progress) {
  VerifyReport report;
  Comparison comparison(a, b, of_a, of_b, report.differences);
  FirstDifferences differences(comparison.of_a);
  comparison.read(grid, how, progress, differences);
  differences.sum(grid.world());
  FingerprintTable* const tables[] = {&comparison.table_a, &comparison.table_b};
  FingerprintTable::sum(grid.world(), tables);
  for (std::size_t p = 0; p < comparison.of_a.size(); ++p) {
    comparison.add_lines(p, differences, report.differences);
  }
  report.parameters = fingerprint_of(comparison.table_a);
  report.read_bytes =
      grid.world().all_reduce_value("bytes read", comparison.read_bytes, comm::ReduceOp::sum);
  for (const auto& [name, fingerprint] : comparison.table_a.tensors()) {
    ++report.num_tensors;
    report.num_fingerprints += std::ssize(fingerprint.experts);
  }
  return report;
}

}  // namespace tessera::checkpoint
