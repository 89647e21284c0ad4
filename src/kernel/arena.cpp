// SPDX-License-Identifier: Apache-2.0
#include "kernel/arena.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/bytes.hpp"
#include "base/out_of_memory.hpp"

namespace tessera::kernel {
namespace {

/// In place, so much becomes writable at a time; untouched pages of it cost nothing.
constexpr std::int64_t step_bytes = 32 << 20;
constexpr std::int64_t huge_page_bytes = 2 << 20;

[[noreturn]] void refuse(std::int64_t bytes, const Arena& arena, const char* reason) {
  throw OutOfMemory(
      fmt::format("no memory for {} more in a step, for which {} are held, {} of them in use: {}",
                  format_bytes(bytes), format_bytes(arena.reserved_bytes()),
                  format_bytes(arena.used_bytes()), reason));
}

std::int64_t physical_bytes() {
  return std::int64_t{sysconf(_SC_PHYS_PAGES)} * std::int64_t{sysconf(_SC_PAGE_SIZE)};
}

}  // namespace

Arena::~Arena() {
  if (base_ != nullptr) munmap(base_, static_cast<std::size_t>(address_bytes_));
}

Arena::Block Arena::take(std::int64_t bytes) {
  Block block;
  block.bytes = bytes;
  if (growth_ == Growth::in_place && base_ == nullptr && !reserve_addresses()) {
    growth_ = Growth::in_pieces;
  }
  if (growth_ == Growth::in_place) {
    block.offset = *map_.take(bytes);
    try {
      make_writable();
    } catch (const OutOfMemory& error) {
      map_.give_back(block.offset, bytes);
      refuse(bytes, *this, error.what());
    }
    block.data = base_ + block.offset;
  } else {
    try {
      place_in_piece(block);
    } catch (const OutOfMemory& error) {
      refuse(bytes, *this, error.what());
    }
    block.offset = *map_.take(bytes);
  }
  peak_bytes_ = std::max(peak_bytes_, map_.used_bytes());
  return block;
}

void Arena::give_back(const Block& block) {
  map_.give_back(block.offset, block.bytes);
  if (growth_ == Growth::in_pieces) {
    pieces_[block.piece_idx].map.give_back(block.piece_offset, block.bytes);
  }
}

/// As many as the machine has memory, which no arena will outgrow. Nothing is taken by that, but a
/// limit on addresses (ulimit -v) may refuse it.
bool Arena::reserve_addresses() {
  address_bytes_ = std::max(physical_bytes(), step_bytes);
  void* addresses = mmap(nullptr, static_cast<std::size_t>(address_bytes_), PROT_NONE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (addresses == MAP_FAILED) return false;
  base_ = static_cast<std::byte*>(addresses);
  return true;
}

/// As far as blocks reach.
void Arena::make_writable() {
  const std::int64_t before = std::exchange(reserved_bytes_, map_.size_bytes());
  if (reserved_bytes_ <= writable_bytes_) return;
  const std::int64_t wanted =
      std::min((reserved_bytes_ + step_bytes - 1) / step_bytes * step_bytes, address_bytes_);
  if (reserved_bytes_ > address_bytes_ ||
      mprotect(base_ + writable_bytes_, static_cast<std::size_t>(wanted - writable_bytes_),
               PROT_READ | PROT_WRITE) != 0) {
    const int error = reserved_bytes_ > address_bytes_ ? ENOMEM : errno;
    reserved_bytes_ = before;
    throw OutOfMemory(std::strerror(error));
  }
  // Fewer faults at first touch and fewer misses of the address cache, where there is much to
  // touch; a wish, so no error.
  if (reserved_bytes_ >= 2 * huge_page_bytes) {
    (void)madvise(base_, static_cast<std::size_t>(wanted), MADV_HUGEPAGE);
  }
  writable_bytes_ = wanted;
  ++num_growths_;
}

void Arena::place_in_piece(Block& block) {
  if (map_.used_bytes() == 0 && pieces_.size() > 1) {
    pieces_.clear();
    reserved_bytes_ = 0;
    add_piece(map_.size_bytes());
  }
  for (block.piece_idx = 0;; ++block.piece_idx) {
    if (block.piece_idx == pieces_.size()) {
      add_piece(std::max(BlockMap::rounded(block.bytes), reserved_bytes_ / 2));
    }
    Piece& piece = pieces_[block.piece_idx];
    if (const auto offset = piece.map.take(block.bytes, piece.bytes)) {
      block.piece_offset = *offset;
      block.data = piece.first() + *offset;
      return;
    }
  }
}

void Arena::add_piece(std::int64_t bytes) {
  try {
    pieces_.push_back(
        {{}, bytes, Vector<std::uint8_t>(uninitialized("arena"), bytes + BlockMap::granule_bytes)});
  } catch (const std::exception& error) {  // Kokkos', whose type differs from version to version
    throw OutOfMemory(error.what());
  }
  reserved_bytes_ += bytes;
  ++num_growths_;
}

std::byte* Arena::Piece::first() const {
  const auto address = static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(memory.data()));
  return reinterpret_cast<std::byte*>(memory.data()) + (BlockMap::rounded(address) - address);
}

}  // namespace tessera::kernel
