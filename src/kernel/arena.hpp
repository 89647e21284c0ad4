// SPDX-License-Identifier: Apache-2.0
// The memory of a step: one range of bytes from which everything that comes and goes is taken,
// whatever its type and shape. It grows to what lives at once, and then no more.
#pragma once

#include <cstddef>
#include <vector>

#include "kernel/block_map.hpp"
#include "kernel/view_types.hpp"

namespace tessera::kernel {

/// In host memory the range grows in place: addresses are reserved once, pages come as they are
/// needed, so that what is held is what was needed at once. Elsewhere it grows in pieces, each at
/// least half as large as all before; as soon as nothing lives, one of the right size replaces
/// them. Not for use by several threads at a time.
class Arena {
 public:
  enum class Growth { in_place, in_pieces };
  static constexpr Growth usual_growth =
      std::is_same_v<Memory, Kokkos::HostSpace> ? Growth::in_place : Growth::in_pieces;

  explicit Arena(Growth growth = usual_growth) : growth_(growth) {}
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;
  ~Arena();

  struct Block {
    std::byte* data = nullptr;  ///< in kernel::Memory, at a multiple of BlockMap::granule_bytes
    std::int64_t bytes = 0;

   private:
    friend class Arena;
    std::int64_t offset = 0;        // in place, or where it would be
    std::size_t piece_idx = 0;      // in pieces
    std::int64_t piece_offset = 0;  // in that piece
  };
  /// Content is undefined. Throws Error::memory. local.
  Block take(std::int64_t bytes);
  /// No kernel that is still to run uses it. local.
  void give_back(const Block& block);

  std::int64_t reserved_bytes() const { return reserved_bytes_; }  ///< held, taken or free
  std::int64_t used_bytes() const { return map_.used_bytes(); }
  std::int64_t peak_bytes() const { return peak_bytes_; }    ///< taken at most
  std::int64_t num_growths() const { return num_growths_; }  ///< times that it asked for memory

 private:
  struct Piece {
    BlockMap map;
    std::int64_t bytes = 0;
    Vector<std::uint8_t> memory;

    std::byte* first() const;
  };

  bool reserve_addresses();
  void make_writable();
  void place_in_piece(Block& block);
  void add_piece(std::int64_t bytes);

  Growth growth_;
  BlockMap map_;
  std::byte* base_ = nullptr;        // in place: of the reserved addresses
  std::int64_t address_bytes_ = 0;   // in place: how many there are
  std::int64_t writable_bytes_ = 0;  // in place: of these
  std::vector<Piece> pieces_;
  std::int64_t reserved_bytes_ = 0;
  std::int64_t peak_bytes_ = 0;
  std::int64_t num_growths_ = 0;
};

}  // namespace tessera::kernel
