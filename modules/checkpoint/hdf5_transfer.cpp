// SPDX-License-Identifier: Apache-2.0
// Hyperslab unions, staging and the collective rounds.
#include "hdf5_transfer.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <exception>
#include <type_traits>

#include "base/contract.hpp"
#include "comm/agree.hpp"
#include "hdf5_types.hpp"
#include "tessera/checkpoint/flat_selection.hpp"
#include "widen.hpp"

namespace tessera::checkpoint {
namespace {

std::vector<hsize_t> to_hsize(const std::vector<std::int64_t>& values) {
  return {values.begin(), values.end()};
}

// The part of a slice that travels in one round; empty once the slice is done.
struct Range {
  std::int64_t begin, end;
  std::int64_t size() const { return end - begin; }
};

// These go straight between file and shard.
bool is_direct(Dtype dtype) { return dtype == Dtype::f32 || dtype == Dtype::u8; }

// Direct rounds are bounded too, because MPI-IO counts bytes in int.
constexpr std::int64_t direct_round_bytes = 256 << 20;
constexpr std::int64_t largest_block = 32;  // of a fingerprint; rounds end between them

std::int64_t elements_per_round(Dtype dtype, std::int64_t buffer_bytes) {
  const std::int64_t bytes = is_direct(dtype) ? direct_round_bytes : buffer_bytes;
  const std::int64_t blocks = bytes / (largest_block * std::int64_t(size_of(dtype)));
  return largest_block * std::max<std::int64_t>(1, blocks);
}

Range range_of_round(const Transfer& transfer, std::int64_t round, std::int64_t buffer_bytes) {
  const std::int64_t step = elements_per_round(transfer.dtype, buffer_bytes);
  const std::int64_t begin = std::min(transfer.slice.end, transfer.slice.begin + round * step);
  return {begin, std::min(transfer.slice.end, begin + step)};
}

// The most rounds that any rank needs for each dataset: collective calls must match in number.
std::vector<std::int64_t> agree_rounds(const comm::Communicator& world, const TransferPlan& plan) {
  std::vector<std::int64_t> rounds;
  for (const Transfer& transfer : plan.transfers) {
    const std::int64_t step = elements_per_round(transfer.dtype, plan.buffer_bytes);
    rounds.push_back((transfer.slice.size() + step - 1) / step);
  }
  if (plan.collective && !rounds.empty()) {
    world.all_reduce("transfer rounds", std::span<std::int64_t>(rounds), comm::ReduceOp::max);
  }
  return rounds;
}

Hdf5Space memory_space(std::int64_t count) {
  const hsize_t extent = static_cast<hsize_t>(std::max<std::int64_t>(count, 1));
  Hdf5Space space(hdf5_id(H5Screate_simple(1, &extent, nullptr), "memory space"));
  if (count == 0) hdf5_check(H5Sselect_none(space.get()), "memory space");
  return space;
}

std::string describe_transfer(hid_t properties) {
  H5D_mpio_actual_io_mode_t mode = H5D_MPIO_NO_COLLECTIVE;
  std::uint32_t local_cause = 0, global_cause = 0;
  H5Pget_mpio_actual_io_mode(properties, &mode);
  H5Pget_mpio_no_collective_cause(properties, &local_cause, &global_cause);
  switch (mode) {
    case H5D_MPIO_CONTIGUOUS_COLLECTIVE: return "contiguous collective";
    case H5D_MPIO_CHUNK_COLLECTIVE: return "chunked collective";
    case H5D_MPIO_NO_COLLECTIVE: break;
    default: return "mixed";
  }
  if (global_cause == H5D_MPIO_SET_INDEPENDENT) return "independent, as asked";
  return fmt::format("independent (HDF5's cause bits: {:#x} here, {:#x} on any rank)", local_cause,
                     global_cause);
}

void add_fingerprints(FingerprintTable& table, const Parameter& parameter, std::int64_t begin,
                      std::span<const float> values) {
  table.add(parameter, begin, values);
}

void add_fingerprints(FingerprintTable& table, const Parameter& parameter, std::int64_t begin,
                      std::span<const std::uint8_t> bytes) {
  table.add_bytes(parameter.name, parameter.shape, parameter.is_expert, begin, bytes);
}

// Of values as the file has them; widened a little at a time, so that they stay in the cache.
void add_narrowed(FingerprintTable& table, const Transfer& transfer, const Range& range,
                  const std::byte* raw) {
  constexpr std::int64_t step = 128 * largest_block;
  std::array<float, step> values;
  for (std::int64_t at = range.begin; at < range.end; at += step) {
    const std::int64_t count = std::min(step, range.end - at);
    widen(transfer.dtype, raw, count, values.data());
    table.add(*transfer.slice.parameter, at, std::span(values).first(std::size_t(count)));
    raw += count * std::int64_t(size_of(transfer.dtype));
  }
}

void narrow_into(std::byte* staging, const Transfer& transfer, const Range& range,
                 std::span<const float> values, FingerprintTable* fingerprints) {
  narrow(values, transfer.dtype, staging);
  if (fingerprints != nullptr) add_narrowed(*fingerprints, transfer, range, staging);
}

// Where one round's elements lie in the file and, one after the other, in memory.
struct Selection {
  Hdf5Space file, memory;
  Hdf5Type type;

  Selection(const Transfer& transfer, const Range& range)
      : file(select_range(transfer.slice.parameter->shape, range.begin, range.end)),
        memory(memory_space(range.size())),
        type(hdf5_type(transfer.dtype)) {}
};

template <class Element>
void write_round(const Transfer& transfer, const Range& range, hid_t properties,
                 std::span<const Element> values, TransferPlan& plan) {
  const Selection selection(transfer, range);
  const Parameter& parameter = *transfer.slice.parameter;
  const void* data = values.data();
  if (!is_direct(transfer.dtype)) {
    if constexpr (std::is_same_v<Element, float>) {
      narrow_into(plan.staging.data(), transfer, range, values, plan.fingerprints);
    }
    data = plan.staging.data();
  } else if (plan.fingerprints != nullptr) {
    add_fingerprints(*plan.fingerprints, parameter, range.begin, values);
  }
  hdf5_check(H5Dwrite(transfer.dataset, selection.type.get(), selection.memory.get(),
                      selection.file.get(), properties, data),
             fmt::format("writing '{}'", parameter.name));
}

template <class Element>
void read_round(const Transfer& transfer, const Range& range, hid_t properties,
                std::span<Element> values, TransferPlan& plan) {
  const Selection selection(transfer, range);
  const Parameter& parameter = *transfer.slice.parameter;
  const bool direct = is_direct(transfer.dtype);
  void* data = direct ? static_cast<void*>(values.data()) : plan.staging.data();
  hdf5_check(H5Dread(transfer.dataset, selection.type.get(), selection.memory.get(),
                     selection.file.get(), properties, data),
             fmt::format("reading '{}'", parameter.name));
  if constexpr (std::is_same_v<Element, float>) {
    if (!direct) widen(transfer.dtype, plan.staging.data(), range.size(), values.data());
  }
  if (plan.fingerprints == nullptr) return;
  add_fingerprints(*plan.fingerprints, parameter, range.begin, std::span<const Element>(values));
}

// Moves one round of one dataset; `Element` is const for writing.
template <class Element>
void move_round(const Transfer& transfer, const Range& range, hid_t properties,
                std::span<Element> shard, TransferPlan& plan) {
  const auto position = transfer.slice.shard_offset + range.begin - transfer.slice.begin;
  const auto values = shard.subspan(std::size_t(position), std::size_t(range.size()));
  if constexpr (std::is_const_v<Element>) {
    write_round<std::remove_const_t<Element>>(transfer, range, properties, values, plan);
  } else {
    read_round(transfer, range, properties, values, plan);
  }
}

// Tables that are summed over the ranks need the same tensors on each.
void expect_fingerprints(TransferPlan& plan) {
  if (plan.fingerprints == nullptr) return;
  for (const Transfer& transfer : plan.transfers) {
    const Parameter& parameter = *transfer.slice.parameter;
    plan.fingerprints->expect(parameter.name, parameter.is_expert ? parameter.shape[0] : 1);
  }
}

// This rank's slice of `parameter`; an empty one where it has none.
Slice slice_of(const Parameter& parameter, std::span<const Slice> slices, std::int64_t shard_size) {
  Slice found{&parameter, 0, 0, 0};
  for (const Slice& slice : slices) {
    if (slice.size() == 0 || slice.parameter->name != parameter.name) continue;
    const bool fits = 0 <= slice.begin && slice.begin < slice.end &&
                      slice.end <= parameter.size() && 0 <= slice.shard_offset &&
                      slice.shard_offset + slice.size() <= shard_size;
    if (!fits || found.size() != 0) {
      fail(ErrorKind::internal,
           "slice [{}, {}) of '{}' leaves its tensor or shard, or is its second", slice.begin,
           slice.end, parameter.name);
    }
    found = {&parameter, slice.begin, slice.end, slice.shard_offset};
  }
  return found;
}

}  // namespace

Hdf5Space select_range(const Shape& shape, std::int64_t begin, std::int64_t end) {
  const std::vector<hsize_t> extent = to_hsize(shape);
  Hdf5Space space(hdf5_id(H5Screate_simple(static_cast<int>(extent.size()), extent.data(), nullptr),
                          "dataspace"));
  hdf5_check(H5Sselect_none(space.get()), "selection");
  H5S_seloper_t operation = H5S_SELECT_SET;
  for (const Box& box : boxes_of_range(shape, begin, end)) {
    const std::vector<hsize_t> start = to_hsize(box.start), count = to_hsize(box.count);
    const std::vector<hsize_t> ones(count.size(), 1);
    hdf5_check(H5Sselect_hyperslab(space.get(), operation, start.data(), nullptr, ones.data(),
                                   count.data()),
               "selection");
    operation = H5S_SELECT_OR;
  }
  return space;
}

Hdf5Properties transfer_properties(bool collective) {
  Hdf5Properties properties(hdf5_id(H5Pcreate(H5P_DATASET_XFER), "transfer properties"));
  hdf5_check(
      H5Pset_dxpl_mpio(properties.get(), collective ? H5FD_MPIO_COLLECTIVE : H5FD_MPIO_INDEPENDENT),
      "transfer properties");
  return properties;
}

std::int64_t TransferPlan::bytes() const {
  std::int64_t sum = 0;
  for (const Transfer& transfer : transfers) sum += transfer.bytes();
  return sum;
}

TransferPlan plan_transfers(std::span<const Parameter> parameters, std::span<const Dtype> dtypes,
                            std::span<const Slice> slices, std::int64_t shard_size,
                            std::int64_t buffer_bytes, bool collective) {
  TESSERA_EXPECT(parameters.size() == dtypes.size());
  TransferPlan plan{{}, {}, buffer_bytes, collective};
  std::int64_t staging_bytes = 0, owned = 0, given = 0;
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    const Transfer transfer{H5I_INVALID_HID, dtypes[i],
                            slice_of(parameters[i], slices, shard_size)};
    const std::int64_t round_bytes =
        elements_per_round(dtypes[i], buffer_bytes) * std::int64_t(size_of(dtypes[i]));
    if (!is_direct(dtypes[i])) {
      staging_bytes = std::max(staging_bytes, std::min(transfer.bytes(), round_bytes));
    }
    owned += transfer.slice.size();
    plan.transfers.push_back(transfer);
  }
  for (const Slice& slice : slices) given += slice.size();
  if (owned != given) fail(ErrorKind::internal, "a slice belongs to none of the unit's parameters");
  plan.staging.resize(static_cast<std::size_t>(staging_bytes));
  return plan;
}

template <class Element>
TransferResult move_slices(const comm::Communicator& world, TransferPlan& plan,
                           std::span<Element> shard) {
  const std::vector<std::int64_t> rounds = agree_rounds(world, plan);
  Hdf5Properties properties;
  comm::agreed(world, "transfer properties",
               [&] { properties = transfer_properties(plan.collective); });
  expect_fingerprints(plan);
  TransferResult result;
  std::exception_ptr first_error;
  for (std::size_t i = 0; i < rounds.size(); ++i) {
    const Transfer& transfer = plan.transfers[i];
    for (std::int64_t round = 0; round < rounds[i]; ++round) {
      const Range range = range_of_round(transfer, round, plan.buffer_bytes);
      try {
        move_round(transfer, range, properties.get(), shard, plan);
        result.moved_bytes += range.size() * std::int64_t(size_of(transfer.dtype));
      } catch (...) {
        if (!first_error) first_error = std::current_exception();
      }
    }
  }
  comm::agree(world, std::is_const_v<Element> ? "write tensors" : "read tensors", first_error);
  result.mode = describe_transfer(properties.get());
  return result;
}

template TransferResult move_slices(const comm::Communicator&, TransferPlan&, std::span<float>);
template TransferResult move_slices(const comm::Communicator&, TransferPlan&,
                                    std::span<const float>);
template TransferResult move_slices(const comm::Communicator&, TransferPlan&,
                                    std::span<std::uint8_t>);
template TransferResult move_slices(const comm::Communicator&, TransferPlan&,
                                    std::span<const std::uint8_t>);

}  // namespace tessera::checkpoint
