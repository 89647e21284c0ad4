// SPDX-License-Identifier: Apache-2.0
// Slices of parameters between a rank's flat shard and global datasets through parallel HDF5, in
// rounds of bounded memory that are the same number on all ranks.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/hdf5_handle.hpp"
#include "base/parameter.hpp"
#include "comm/communicator.hpp"
#include "tessera/checkpoint/fingerprint.hpp"
#include "tessera/checkpoint/source.hpp"

namespace tessera::checkpoint {

/// `mode`, or if it is automatic what rank 0's environment has in TESSERA_HDF5_TRANSFER, or else
/// direct where all ranks share a node and collective where they do not. Throws Error::usage for an
/// unknown name, on all ranks alike. collective over world.
TransferMode resolved(const comm::Communicator& world, TransferMode mode);

/// A dataspace of `shape` with the flat range [begin, end) selected; nothing if it is empty. local.
Hdf5Space select_range(const Shape& shape, std::int64_t begin, std::int64_t end);

/// For collective or independent transfers. local.
Hdf5Properties transfer_properties(bool collective);

/// One dataset and what this rank has of it (an empty slice where it has nothing).
struct Transfer {
  hid_t dataset = H5I_INVALID_HID;
  Dtype dtype = Dtype::f32;
  Slice slice;
};

struct TransferOptions {
  std::int64_t buffer_bytes = 16 << 20;      ///< bound of the memory for converted elements
  bool collective = true;                    ///< else independent
  FingerprintTable* fingerprints = nullptr;  ///< if not null: receives those of what is moved
  FingerprintTable* placed = nullptr;        ///< likewise
};

/// Memory that move_slices() takes for conversion [bytes]. local.
std::int64_t staging_bytes(std::span<const Transfer> transfers, std::int64_t buffer_bytes);

/// Reads the slices into `shard`, or writes them from it: floats, widened or narrowed, or the bytes
/// of u8 datasets. A rank that fails in the middle keeps taking part in the remaining rounds,
/// because the others wait for it there; then the errors are agreed. How HDF5 really moved them is
/// logged (debug). Element: float or std::uint8_t, const for writing. Returns the bytes that this
/// rank moved. collective over `world`, which opened the file; the same datasets on all ranks.
template <class Element>
std::int64_t move_slices(const comm::Communicator& world, std::span<const Transfer> transfers,
                         std::span<Element> shard, const TransferOptions& options);

}  // namespace tessera::checkpoint
