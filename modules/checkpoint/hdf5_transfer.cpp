// SPDX-License-Identifier: Apache-2.0
// Hyperslab unions, conversion and the rounds of collective transfers.
#include "hdf5_transfer.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <exception>
#include <memory>
#include <type_traits>

#include "base/log.hpp"
#include "comm/agree.hpp"
#include "hdf5_types.hpp"
#include "narrow.hpp"
#include "tessera/checkpoint/flat_selection.hpp"
#include "widen.hpp"

namespace tessera::checkpoint {
namespace {

struct Range {
  std::int64_t begin, end;
  std::int64_t size() const { return end - begin; }
};

// These go straight between file and shard.
bool needs_no_conversion(Dtype dtype) { return dtype == Dtype::f32 || dtype == Dtype::u8; }

// Bounded, too, because MPI-IO counts bytes in int.
constexpr std::int64_t unconverted_round_bytes = 256 << 20;
constexpr std::int64_t largest_block = 32;  // of a fingerprint; rounds end between them

std::int64_t elements_per_round(Dtype dtype, std::int64_t buffer_bytes) {
  const std::int64_t bytes = needs_no_conversion(dtype) ? unconverted_round_bytes : buffer_bytes;
  const std::int64_t blocks = bytes / (largest_block * std::int64_t(size_of(dtype)));
  return largest_block * std::max<std::int64_t>(1, blocks);
}

// The part of a slice that travels in one round; empty once the slice is done.
Range range_of_round(const Transfer& transfer, std::int64_t round, std::int64_t buffer_bytes) {
  const std::int64_t step = elements_per_round(transfer.dtype, buffer_bytes);
  const std::int64_t begin = std::min(transfer.slice.end, transfer.slice.begin + round * step);
  return {begin, std::min(transfer.slice.end, begin + step)};
}

// The most rounds that any rank needs for each dataset: collective calls must match in number.
std::vector<std::int64_t> agree_rounds(const comm::Communicator& world,
                                       std::span<const Transfer> transfers,
                                       std::int64_t buffer_bytes) {
  std::vector<std::int64_t> rounds;
  for (const Transfer& transfer : transfers) {
    const std::int64_t step = elements_per_round(transfer.dtype, buffer_bytes);
    rounds.push_back((transfer.slice.size() + step - 1) / step);
  }
  if (!rounds.empty())
    world.all_reduce("transfer rounds", std::span<std::int64_t>(rounds), comm::ReduceOp::max);
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
  if (mode == H5D_MPIO_CONTIGUOUS_COLLECTIVE) return "contiguous collective";
  if (global_cause == H5D_MPIO_SET_INDEPENDENT) return "independent, as asked";
  return fmt::format("not collective (HDF5's cause bits: {:#x} here, {:#x} on any rank)",
                     local_cause, global_cause);
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

// One unit's way through HDF5 on this rank.
template <class Element>
class Mover {
 public:
  using Value = std::remove_const_t<Element>;
  static constexpr bool writes = std::is_const_v<Element>;

  Mover(std::span<const Transfer> transfers, std::span<Element> shard,
        const TransferOptions& options)
      : shard_(shard),
        options_(options),
        properties_(transfer_properties(options.collective)),
        staging_(static_cast<std::size_t>(staging_bytes(transfers, options.buffer_bytes))) {}

  void move(const Transfer& transfer, const Range& range) {
    const auto position = transfer.slice.shard_offset + range.begin - transfer.slice.begin;
    const auto values = shard_.subspan(std::size_t(position), std::size_t(range.size()));
    if constexpr (writes) {
      write(transfer, range, values);
    } else {
      read(transfer, range, values);
    }
  }
  std::string mode() const { return describe_transfer(properties_.get()); }

 private:
  void write(const Transfer& transfer, const Range& range, std::span<const Value> values) {
    const Selection selection(transfer, range);
    const void* data = values.data();
    if (needs_no_conversion(transfer.dtype)) {
      hash(transfer, range.begin, values);
    } else if constexpr (std::is_same_v<Value, float>) {
      narrow(transfer.dtype, values.data(), range.size(), staging_.data());
      hash_narrowed(transfer, range);
      data = staging_.data();
    }
    hdf5_check(H5Dwrite(transfer.dataset, selection.type.get(), selection.memory.get(),
                        selection.file.get(), properties_.get(), data),
               fmt::format("writing '{}'", transfer.slice.parameter->name));
  }

  void read(const Transfer& transfer, const Range& range, std::span<Value> values) {
    const Selection selection(transfer, range);
    const bool converts = !needs_no_conversion(transfer.dtype);
    void* data = converts ? static_cast<void*>(staging_.data()) : values.data();
    hdf5_check(H5Dread(transfer.dataset, selection.type.get(), selection.memory.get(),
                       selection.file.get(), properties_.get(), data),
               fmt::format("reading '{}'", transfer.slice.parameter->name));
    if constexpr (std::is_same_v<Value, float>) {
      if (converts) widen(transfer.dtype, staging_.data(), range.size(), values.data());
    }
    hash(transfer, range.begin, std::span<const Value>(values));
  }

  // Of values as the file has them; widened a little at a time, so that they stay in the cache.
  void hash_narrowed(const Transfer& transfer, const Range& range) {
    std::array<float, 128 * largest_block> values;
    const std::byte* raw = staging_.data();
    for (std::int64_t at = range.begin; at < range.end; at += std::ssize(values)) {
      const std::int64_t count = std::min<std::int64_t>(std::ssize(values), range.end - at);
      widen(transfer.dtype, raw, count, values.data());
      hash(transfer, at, std::span<const float>(values).first(std::size_t(count)));
      raw += count * std::int64_t(size_of(transfer.dtype));
    }
  }

  template <class Stored>
  void hash(const Transfer& transfer, std::int64_t begin, std::span<const Stored> values) {
    const Parameter& parameter = *transfer.slice.parameter;
    for (FingerprintTable* table : {options_.fingerprints, options_.placed}) {
      if (table == nullptr) continue;
      if constexpr (std::is_same_v<Stored, float>) {
        table->add(parameter, begin, values);
      } else {
        table->add_bytes(parameter.name, parameter.shape, parameter.is_expert, begin, values);
      }
    }
  }

  std::span<Element> shard_;
  const TransferOptions& options_;
  Hdf5Properties properties_;
  std::vector<std::byte> staging_;
};

TransferMode mode_named(std::string_view name) {
  if (name.empty()) return TransferMode::automatic;
  if (name == "collective") return TransferMode::collective;
  if (name == "independent") return TransferMode::independent;
  if (name == "direct") return TransferMode::direct;
  fail(ErrorKind::usage,
       "TESSERA_HDF5_TRANSFER is '{}'; it may be collective, independent or direct", name);
}

}  // namespace

Hdf5Properties transfer_properties(bool collective) {
  Hdf5Properties properties(hdf5_id(H5Pcreate(H5P_DATASET_XFER), "transfer properties"));
  hdf5_check(
      H5Pset_dxpl_mpio(properties.get(), collective ? H5FD_MPIO_COLLECTIVE : H5FD_MPIO_INDEPENDENT),
      "transfer properties");
  return properties;
}

TransferMode resolved(const comm::Communicator& world, TransferMode mode) {
  if (mode != TransferMode::automatic) return mode;
  const char* text = std::getenv("TESSERA_HDF5_TRANSFER");
  mode = mode_named(world.broadcast_string("HDF5 transfer", text == nullptr ? "" : text, 0));
  if (mode != TransferMode::automatic) return mode;
  // A node's ranks gain nothing by writing for each other; those of many nodes would compete for
  // the stripes of a parallel file system.
  const std::int32_t here = world.split_node("node").size();
  const bool one_node =
      world.all_reduce_value("ranks of a node", here, comm::ReduceOp::min) == world.size();
  return one_node ? TransferMode::direct : TransferMode::collective;
}

Hdf5Space select_range(const Shape& shape, std::int64_t begin, std::int64_t end) {
  const std::vector<hsize_t> extent(shape.begin(), shape.end());
  Hdf5Space space(hdf5_id(H5Screate_simple(static_cast<int>(extent.size()), extent.data(), nullptr),
                          "dataspace"));
  hdf5_check(H5Sselect_none(space.get()), "selection");
  H5S_seloper_t operation = H5S_SELECT_SET;
  for (const Box& box : boxes_of_range(shape, begin, end)) {
    const std::vector<hsize_t> start(box.start.begin(), box.start.end()),
        count(box.count.begin(), box.count.end()), ones(count.size(), 1);
    hdf5_check(H5Sselect_hyperslab(space.get(), operation, start.data(), nullptr, ones.data(),
                                   count.data()),
               "selection");
    operation = H5S_SELECT_OR;
  }
  return space;
}

std::int64_t staging_bytes(std::span<const Transfer> transfers, std::int64_t buffer_bytes) {
  std::int64_t bytes = 0;
  for (const Transfer& transfer : transfers) {
    if (needs_no_conversion(transfer.dtype)) continue;
    const std::int64_t elements =
        std::min(transfer.slice.size(), elements_per_round(transfer.dtype, buffer_bytes));
    bytes = std::max(bytes, elements * std::int64_t(size_of(transfer.dtype)));
  }
  return bytes;
}

template <class Element>
std::int64_t move_slices(const comm::Communicator& world, std::span<const Transfer> transfers,
                         std::span<Element> shard, const TransferOptions& options) {
  const QuietHdf5 quiet;
  const std::vector<std::int64_t> rounds = agree_rounds(world, transfers, options.buffer_bytes);
  std::unique_ptr<Mover<Element>> mover = comm::agreed(world, "plan transfers", [&] {
    return std::make_unique<Mover<Element>>(transfers, shard, options);
  });
  std::int64_t moved_bytes = 0;
  std::exception_ptr first_error;
  for (std::size_t i = 0; i < rounds.size(); ++i) {
    for (std::int64_t round = 0; round < rounds[i]; ++round) {
      const Range range = range_of_round(transfers[i], round, options.buffer_bytes);
      try {
        mover->move(transfers[i], range);
        moved_bytes += range.size() * std::int64_t(size_of(transfers[i].dtype));
      } catch (...) {
        if (!first_error) first_error = std::current_exception();
      }
    }
  }
  comm::agree(world, Mover<Element>::writes ? "write tensors" : "read tensors", first_error);
  log_message(LogLevel::debug,
              fmt::format("{} {} datasets by HDF5: {}", Mover<Element>::writes ? "wrote" : "read",
                          transfers.size(), mover->mode()));
  return moved_bytes;
}

#define TESSERA_INSTANTIATE(Element)                                                      \
  template std::int64_t move_slices(const comm::Communicator&, std::span<const Transfer>, \
                                    std::span<Element>, const TransferOptions&);
TESSERA_INSTANTIATE(float)
TESSERA_INSTANTIATE(const float)
TESSERA_INSTANTIATE(std::uint8_t)
TESSERA_INSTANTIATE(const std::uint8_t)
#undef TESSERA_INSTANTIATE

}  // namespace tessera::checkpoint
