// SPDX-License-Identifier: Apache-2.0
// Moves slices of parameters between a rank's flat shard and global datasets, in rounds of bounded
// staging memory that are the same number on all ranks.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/parameter.hpp"
#include "comm/communicator.hpp"
#include "hdf5_handle.hpp"
#include "tessera/checkpoint/fingerprint.hpp"

namespace tessera::checkpoint {

/// A dataspace of `shape` with the flat range [begin, end) selected; nothing if it is empty. local.
Hdf5Space select_range(const Shape& shape, std::int64_t begin, std::int64_t end);

/// Transfer properties for MPI-IO. local.
Hdf5Properties transfer_properties(bool collective);

/// One dataset and what this rank has of it (an empty slice where it has nothing).
struct Transfer {
  hid_t dataset = H5I_INVALID_HID;
  Dtype dtype = Dtype::f32;
  Slice slice;

  std::int64_t bytes() const { return slice.size() * std::int64_t(size_of(dtype)); }
};

/// What one unit moves on this rank, with the memory for it.
struct TransferPlan {
  std::vector<Transfer>
      transfers;  ///< one per parameter of the unit, in their order, also if empty
  std::vector<std::byte>
      staging;                    ///< elements on their way between file and shard; not for f32, u8
  std::int64_t buffer_bytes = 0;  ///< bound of one round
  bool collective = true;
  FingerprintTable* fingerprints = nullptr;  ///< if not null: receives those of what is moved

  std::int64_t bytes() const;
};

/// Matches slices to parameters by name and allocates the staging memory. `dtypes`: of each
/// parameter's dataset. Throws Error::internal if a slice belongs to no parameter, comes twice, or
/// leaves its tensor or the shard. Datasets are left unset. local.
TransferPlan plan_transfers(std::span<const Parameter> parameters, std::span<const Dtype> dtypes,
                            std::span<const Slice> slices, std::int64_t shard_size,
                            std::int64_t buffer_bytes, bool collective);

/// What a transfer did.
struct TransferResult {
  std::int64_t moved_bytes = 0;
  std::string mode;  ///< how HDF5 really moved the last round, e.g. "contiguous collective"
};

/// Reads the plan's slices into `shard`, or writes them from it: floats, widened or narrowed, or
/// the bytes of u8 datasets. When a rank fails in the middle it keeps taking part in the remaining
/// rounds, because the others wait for it there; then its first error and those of the others are
/// agreed. Element: float or std::uint8_t, const for writing. collective over `world`, which opened
/// the file.
template <class Element>
TransferResult move_slices(const comm::Communicator& world, TransferPlan& plan,
                           std::span<Element> shard);

}  // namespace tessera::checkpoint
